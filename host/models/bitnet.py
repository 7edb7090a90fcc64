"""A small language model runtime in NumPy: BitNet and Llama models with ternary layers.

Every ternary layer goes through one callable, so that a device can compute it. The rest is float32
and follows the eager attention of transformers (`models.bitnet`, `models.llama`).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.huggingface import Checkpoint
from tritloom.host.layer import TernaryLayer, stack
from tritloom.host.models.config import FUSED, HEAD, BitNetConfig
from tritloom.host.models.decoder import Block, Decoder
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["Attend", "BitNetModel", "Linear", "golden_linear"]

F32 = npt.NDArray[np.float32]
Linear = Callable[[str, TernaryLayer, F32], F32]
"""Computes one layer: its name, the layer, float32 `[tokens, in]` → float32 `[tokens, out]`."""
Attend = Callable[[int, list[F32]], F32]
"""Computes the attention of a block: the block's number, then float32 query, key and value
`[tokens, features]` → float32 `[tokens, queries]`."""

FIRST_CACHE_TOKENS = 256
"""Room of a new cache; it doubles when it is full."""


def golden_linear(name: str, layer: TernaryLayer, x: F32) -> F32:
    """The golden model's BitLinear; a device must give the same bits."""
    return numerics.bitlinear(x, layer.trits, layer.scale, layer.scale_divides, layer.bias)


class _Cache:
    """Keys and values of the tokens so far: one layer is float32 `[kv_heads, room, head_dim]`."""

    def __init__(self, config: BitNetConfig) -> None:
        layers, heads = config.num_hidden_layers, config.num_key_value_heads
        self.keys = np.zeros((layers, heads, FIRST_CACHE_TOKENS, config.head_dim), np.float32)
        self.values = self.keys.copy()
        self.length = 0

    def make_room(self, tokens: int) -> None:
        """Grow until `tokens` more fit."""
        while self.length + tokens > self.keys.shape[2]:
            self.keys = np.concatenate([self.keys, np.zeros_like(self.keys)], axis=2)
            self.values = np.concatenate([self.values, np.zeros_like(self.values)], axis=2)


class BitNetModel:
    """A causal language model that computes its ternary layers through `linear`.

    Parameters
    ----------
    checkpoint : as `load_checkpoint` reads it
    linear : computes one ternary layer, by default the golden model
    fuse : stack q/k/v and gate/up into one layer each; the results are the same bit for bit

    Members
    -------
    config : the model's shape
    layers : ternary layers by the name that `linear` receives, in the order of use
    run_blocks : computes all blocks and the final norm: float32 embeddings `[tokens, hidden]` and
        an `Attend` → float32 hidden states of the same shape. A device may take the place of
        `blocks_on_host`
    run_feed_forward : computes the feed-forward of a block, with its norm and residual, where
        `blocks_on_host` runs: the block's number, float32 `[tokens, hidden]` → the same shape. A
        device may take the place of `feed_forward_on_host`

    Raises
    ------
    CheckpointError : a tensor is missing or has another shape than config.json says
    """

    def __init__(
        self, checkpoint: Checkpoint, linear: Linear = golden_linear, *, fuse: bool = True
    ) -> None:
        self.config = config = BitNetConfig.from_checkpoint(checkpoint)
        self.linear = linear
        self.run_blocks: Callable[[F32, Attend], F32] = self.blocks_on_host
        self.run_feed_forward: Callable[[int, F32], F32] = self.feed_forward_on_host
        self.layers: dict[str, TernaryLayer] = {}
        self._tensors: dict[str, F32] = {}
        self._ends: dict[str, npt.NDArray[np.intp]] = {}
        hidden, inner = config.hidden_size, config.intermediate_size
        shapes = config.linear_shapes
        self._take(checkpoint, "model.embed_tokens", config.vocab_size, hidden)
        fuse = fuse and config.may_fuse
        for index in range(config.num_hidden_layers):
            block = f"model.layers.{index}"
            for part, fused, last, bias in (
                ("self_attn", "qkv_proj", "o_proj", config.attention_bias),
                ("mlp", "gate_up_proj", "down_proj", config.mlp_bias),
            ):
                for name in [f"{block}.{part}.{each}" for each in FUSED[fused]]:
                    self._take_linear(checkpoint, name, shapes[name], bias)
                if fuse:
                    self._fuse(f"{block}.{part}", fused)
                name = f"{block}.{part}.{last}"
                self._take_linear(checkpoint, name, shapes[name], bias)
            self._take(checkpoint, f"{block}.input_layernorm", hidden)
            self._take(checkpoint, f"{block}.post_attention_layernorm", hidden)
            if config.sub_norms:
                queries = shapes[f"{block}.self_attn.o_proj"][1]
                self._take(checkpoint, f"{block}.self_attn.attn_sub_norm", queries)
                self._take(checkpoint, f"{block}.mlp.ffn_sub_norm", inner)
        self._take(checkpoint, "model.norm", hidden)
        self._take_linear(checkpoint, HEAD, shapes[HEAD], bias=False)
        exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
        self._frequencies = np.float32(1) / np.float32(config.rope_theta) ** exponents

    def logits(self, ids: Sequence[int]) -> F32:
        """Next-token logits after each token of `ids`: float32 `[tokens, vocab_size]`."""
        prompt = self._check(ids, 0)
        return self._head(self._run(prompt, _Cache(self.config)))

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[int]:
        """Yield new token ids as they are computed; an end-of-sequence id is the last one.

        Parameters
        ----------
        prompt : token ids to continue
        max_new_tokens : most new ids
        temperature : 0 takes the most likely token, above 0 tokens are drawn with `seed`
        seed : of the drawing

        Raises
        ------
        InputError : at once, for an empty or too long prompt, an id outside the vocabulary, a
            number of tokens below 1, a negative temperature
        """
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if not 0 <= temperature < math.inf:
            raise InputError(f"temperature must be 0 or more, not {temperature}")
        ids = self._check(prompt, max_new_tokens)
        return self._generate(ids, max_new_tokens, temperature, np.random.default_rng(seed))

    def nll(self, ids: Sequence[int], windows: int, window_tokens: int) -> float:
        """Mean negative log likelihood in nats a token, over the first windows of `ids`.

        Each window of `window_tokens` is read on its own and predicts all its tokens but the
        first. Perplexity is exp of it. Raises `InputError` when `ids` are too few.
        """
        if windows < 1 or window_tokens < 2 or len(ids) < windows * window_tokens:
            raise InputError(
                f"nll needs {windows} windows of {window_tokens} tokens, there are {len(ids)}; "
                "give a longer text, or fewer windows of 2 tokens or more"
            )
        losses = []
        for start in range(0, windows * window_tokens, window_tokens):
            window = np.asarray(ids[start : start + window_tokens])
            scores = self.logits(window.tolist())[:-1].astype(np.float64)
            scores -= scores.max(axis=1, keepdims=True)
            chosen = np.take_along_axis(scores, window[1:, None], axis=1)[:, 0]
            losses.append(np.log(np.exp(scores).sum(axis=1)) - chosen)
        return float(np.mean(losses))

    def _generate(
        self, ids: list[int], max_new_tokens: int, temperature: float, rng: np.random.Generator
    ) -> Iterator[int]:
        cache = _Cache(self.config)
        for _ in range(max_new_tokens):
            scores = self._head(self._run(ids, cache)[-1:])[0]
            if temperature:
                weights = np.exp((scores - scores.max()).astype(np.float64) / temperature)
                token = int(rng.choice(len(weights), p=weights / weights.sum()))
            else:
                token = int(scores.argmax())
            yield token
            if token in self.config.eos_token_ids:
                return
            ids = [token]

    def _check(self, ids: Sequence[int], new_tokens: int) -> list[int]:
        """The ids as Python integers, if the model can read them and write `new_tokens`."""
        tokens = [int(token) for token in ids]
        if not tokens:
            raise InputError("the prompt must have at least one token, not none; give some text")
        for token in tokens:
            if not 0 <= token < self.config.vocab_size:
                raise InputError(
                    f"token ids must be below {self.config.vocab_size}, not {token}; "
                    "use the model's own tokenizer"
                )
        if len(tokens) + new_tokens > self.config.max_position_embeddings:
            raise InputError(
                f"{len(tokens)} + {new_tokens} tokens exceed the model's context of "
                f"{self.config.max_position_embeddings}; shorten the prompt or the output"
            )
        return tokens

    def _take(self, checkpoint: Checkpoint, name: str, *shape: int) -> None:
        """Store the float tensor `NAME.weight`; it must have this shape."""
        key = f"{name}.weight"
        tensor = checkpoint.tensors.get(key)
        if tensor is None:
            raise CheckpointError(f"the checkpoint has no {key}; copy the model again")
        if tensor.shape != shape:
            raise CheckpointError(f"{key} has shape {tensor.shape}, config.json asks for {shape}")
        if tensor.dtype != np.float32:
            raise CheckpointError(f"{key} must be a float tensor, not {tensor.dtype}")
        self._tensors[key] = tensor

    def _take_linear(
        self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], bias: bool
    ) -> None:
        """Store a linear layer: a ternary one, or the floats that modules_to_not_convert left."""
        layer = checkpoint.layers.get(name)
        if layer is None:
            self._take(checkpoint, name, *shape)
            offset = checkpoint.tensors.get(f"{name}.bias")
            if offset is not None:
                self._tensors[f"{name}.bias"] = offset
        else:
            if layer.trits.shape != shape:
                raise CheckpointError(
                    f"{name} has shape {layer.trits.shape}, config.json asks for {shape}"
                )
            if self.config.quantization.norm_eps is not None:
                self._take(checkpoint, f"{name}.rms_norm", shape[1])
            offset = layer.bias
            self.layers[name] = layer
        if (offset is not None) != bias:
            raise CheckpointError(
                f"{name} has {'no' if bias else 'a'} bias, but config.json says "
                f"{'that it has one' if bias else 'it has none'}; "
                "mend attention_bias or mlp_bias, or copy the model again"
            )
        if offset is not None and offset.shape != shape[:1]:
            raise CheckpointError(
                f"{name}.bias has shape {offset.shape}, config.json asks for {shape[:1]}"
            )

    def _fuse(self, block: str, fused: str) -> None:
        """Replace the parts of `fused` by their stack, if all of them are ternary."""
        names = [f"{block}.{part}" for part in FUSED[fused]]
        if all(name in self.layers for name in names):
            parts = [self.layers.pop(name) for name in names]
            self._ends[f"{block}.{fused}"] = np.cumsum([part.out_features for part in parts])[:-1]
            self.layers[f"{block}.{fused}"] = stack(parts)

    def _apply(self, name: str, x: F32) -> F32:
        """One linear layer: float32 `[tokens, in]` → `[tokens, out]`."""
        layer = self.layers.get(name)
        if layer is None:
            y: F32 = x @ self._tensors[f"{name}.weight"].T
            bias = self._tensors.get(f"{name}.bias")
            return y if bias is None else y + bias
        if self.config.quantization.norm_eps is not None:
            norm = self._tensors[f"{name}.rms_norm.weight"]
            x = numerics.rms_norm(x, norm, self.config.quantization.norm_eps)
        return self.linear(name, layer, x)

    def _parts(self, block: str, fused: str, x: F32) -> list[F32]:
        """The outputs of the parts of `fused`, computed as one layer if they were stacked."""
        if f"{block}.{fused}" not in self.layers:
            return [self._apply(f"{block}.{part}", x) for part in FUSED[fused]]
        y = self._apply(f"{block}.{fused}", x)
        return np.split(y, self._ends[f"{block}.{fused}"], axis=1)

    def _norm(self, name: str, x: F32) -> F32:
        return numerics.rms_norm(x, self._tensors[f"{name}.weight"], self.config.rms_norm_eps)

    def _head(self, hidden: F32) -> F32:
        return self._apply(HEAD, hidden)

    def _run(self, ids: Sequence[int], cache: _Cache) -> F32:
        """Final hidden states `[tokens, hidden]` of `ids`, which follow the tokens in the cache."""
        cache.make_room(len(ids))
        positions = np.arange(cache.length, cache.length + len(ids), dtype=np.float32)
        angles = np.tile(positions[:, None] * self._frequencies, 2)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        x: F32 = self._tensors["model.embed_tokens.weight"][np.asarray(ids)]

        def attend(index: int, parts: list[F32]) -> F32:
            return self._attend(index, parts, cos, sin, cache)

        hidden = self.run_blocks(x, attend)
        cache.length += len(ids)
        return hidden

    def blocks_on_host(self, x: F32, attend: Attend) -> F32:
        """All blocks and the final norm, layer by layer; see `run_blocks`."""
        for index in range(self.config.num_hidden_layers):
            block = f"model.layers.{index}"
            normed = self._norm(f"{block}.input_layernorm", x)
            mixed = attend(index, self._parts(f"{block}.self_attn", "qkv_proj", normed))
            if self.config.sub_norms:
                mixed = self._norm(f"{block}.self_attn.attn_sub_norm", mixed)
            x = numerics.add_residual(x, self._apply(f"{block}.self_attn.o_proj", mixed))
            x = self.run_feed_forward(index, x)
        return self.final_norm(x)

    def feed_forward_on_host(self, index: int, x: F32) -> F32:
        """The feed-forward of a block, layer by layer; see `run_feed_forward`."""
        block = f"model.layers.{index}"
        normed = self._norm(f"{block}.post_attention_layernorm", x)
        gate, up = self._parts(f"{block}.mlp", "gate_up_proj", normed)
        inner = self.activation(gate, up)
        if self.config.sub_norms:
            inner = self._norm(f"{block}.mlp.ffn_sub_norm", inner)
        return numerics.add_residual(x, self._apply(f"{block}.mlp.down_proj", inner))

    def activation(self, gate: F32, up: F32) -> F32:
        """What `down_proj` receives, without the norm: float32 `[tokens, intermediate_size]`."""
        if self.config.hidden_act == "relu2":
            return numerics.relu2_times(gate, up)
        with np.errstate(over="ignore"):
            opposite: F32 = np.exp(-gate)
            return gate / (opposite + np.float32(1)) * up

    def final_norm(self, x: F32) -> F32:
        """The norm behind the last block: float32 `[tokens, hidden_size]` → the same shape."""
        return self._norm("model.norm", x)

    def decoder(self) -> Decoder:
        """The blocks as a program of the vector unit needs them.

        Raises
        ------
        InputError : the model has something that no program computes
        """
        config = self.config
        if config.quantization.norm_eps is not None:
            raise InputError("each layer has a norm of its own, which no program computes")
        names = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
        for index in range(config.num_hidden_layers):
            for name in names:
                if f"model.layers.{index}.{name}" not in self.layers:
                    raise InputError(
                        f"model.layers.{index}.{name} is not one ternary layer, so no program "
                        "computes it"
                    )

        def block(index: int) -> Block:
            name = f"model.layers.{index}"
            qkv, o, gate_up, down = (self.layers[f"{name}.{each}"] for each in names)
            norms = {
                each: self._tensors.get(f"{name}.{each}.weight")
                for each in ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
            }
            return Block(
                qkv=qkv,
                o=o,
                gate_up=gate_up,
                down=down,
                input_norm=self._tensors[f"{name}.input_layernorm.weight"],
                post_norm=self._tensors[f"{name}.post_attention_layernorm.weight"],
                attention_norm=norms["self_attn.attn_sub_norm"],
                inner_norm=norms["mlp.ffn_sub_norm"],
            )

        return Decoder(
            blocks=tuple(block(index) for index in range(config.num_hidden_layers)),
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            queries=config.num_attention_heads * config.head_dim,
            keys=config.num_key_value_heads * config.head_dim,
            final_norm=self._tensors["model.norm.weight"],
            eps=config.rms_norm_eps,
            relu2=config.hidden_act == "relu2",
        )

    def _attend(self, index: int, parts: list[F32], cos: F32, sin: F32, cache: _Cache) -> F32:
        tokens, heads = len(parts[0]), self.config.num_key_value_heads
        groups, head_dim = self.config.num_attention_heads // heads, self.config.head_dim
        shaped = [part.reshape(tokens, -1, head_dim) for part in parts]
        query, key = (numerics.rotate(part, cos, sin) for part in shaped[:2])
        value = shaped[2]
        end = cache.length + tokens
        cache.keys[index, :, cache.length : end] = key.swapaxes(0, 1)
        cache.values[index, :, cache.length : end] = value.swapaxes(0, 1)
        keys, values = cache.keys[index, :, None, :end], cache.values[index, :, None, :end]
        # Query head h reads key head h // groups: [kv_heads, groups, tokens, head_dim].
        query = query.swapaxes(0, 1).reshape(heads, groups, tokens, head_dim)
        scores = query @ keys.swapaxes(-1, -2) * np.float32(head_dim**-0.5)
        future = np.arange(end) > np.arange(cache.length, end)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        weights: F32 = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: F32 = (weights @ values).reshape(-1, tokens, head_dim)
        return mixed.swapaxes(0, 1).reshape(tokens, -1)
