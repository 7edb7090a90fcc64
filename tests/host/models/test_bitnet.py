"""The decoder against what transformers computed, and its parts against each other."""

import importlib.util
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support import ROOT
from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.checkpoints.npz import load_npz
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.bitnet import BitNetModel, golden_linear
from tritloom.host.models.tokenizer import load_tokenizer, stream_text
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import CheckpointError, InputError, ToolError

MODELS = ROOT / "models"
TINYLM = MODELS / "tinylm"
DATA = ROOT / "tests" / "data"

_spec = importlib.util.spec_from_file_location("make_hf", DATA / "make_hf_bitlinear.py")
assert _spec is not None
assert _spec.loader is not None
make_hf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_hf)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(TINYLM)


@pytest.fixture(scope="module")
def decoder(checkpoint: Checkpoint) -> BitNetModel:
    return BitNetModel(checkpoint)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(MODELS / "tinylm_reference.npz", allow_pickle=False) as archive:
        return dict(archive)


def changed(checkpoint: Checkpoint, **config: Any) -> Checkpoint:
    """The checkpoint with other values in config.json; None takes a key away."""
    merged = {
        key: value for key, value in (checkpoint.config | config).items() if value is not None
    }
    return Checkpoint(checkpoint.path, merged, None, checkpoint.layers, checkpoint.tensors)


@pytest.mark.parametrize("prompt", range(8))
def test_greedy_ids_equal_transformers(
    decoder: BitNetModel, reference: dict[str, np.ndarray], prompt: int
) -> None:
    ids = reference[f"p{prompt}.ids"]
    expected = reference[f"p{prompt}.greedy_bitlinear"]
    assert (expected == reference[f"p{prompt}.greedy_autobitlinear"]).all()
    assert [*ids, *decoder.generate(ids, 64)] == expected.tolist()


@pytest.mark.parametrize("prompt", range(8))
def test_logits_equal_transformers(
    checkpoint: Checkpoint, reference: dict[str, np.ndarray], prompt: int
) -> None:
    """Only attention and head may differ in the last bits: they sum in another order.

    The reference has `BitLinear` layers, whose scales divide. With scales that multiply, a last bit
    differs here and there, and may flip a code: the logits of prompt 2 then differ by 0.002.
    """

    def divide(name: str, layer: TernaryLayer, x: np.ndarray) -> np.ndarray:
        return numerics.bitlinear(x, layer.trits, np.float32(1) / np.float32(layer.scale), True)

    model = BitNetModel(checkpoint, divide, fuse=False)
    logits = model.logits(reference[f"p{prompt}.ids"])
    assert logits.dtype == np.float32
    assert np.allclose(logits, reference[f"p{prompt}.logits_bitlinear"], rtol=0, atol=2e-5)


@pytest.mark.sim
def test_nll_equals_transformers(decoder: BitNetModel, reference: dict[str, np.ndarray]) -> None:
    text = (MODELS / "heldout.txt").read_text(encoding="utf-8")
    windows, tokens = reference["nll_windows"]
    nll = decoder.nll(load_tokenizer(TINYLM).encode(text).ids, windows, tokens)
    assert abs(nll - reference["nll_bitlinear"]) < 1e-3
    assert abs(nll - reference["nll_autobitlinear"]) < 1e-3


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", ["packed", "normed"])
def test_llama_shapes_equal_transformers(tmp_path: Path, name: str, fuse: bool) -> None:
    with np.load(DATA / "hf_bitlinear.npz", allow_pickle=False) as archive:
        case = make_hf.cases(dict(archive), "model")[name]
    make_hf.write_model(tmp_path, name, case)
    decoder = BitNetModel(load_checkpoint(tmp_path), fuse=fuse)
    assert np.allclose(decoder.logits(case["ids"]), case["logits"], rtol=0, atol=1e-4)
    assert ("model.layers.0.mlp.gate_up_proj" in decoder.layers) == (fuse and name == "packed")
    assert decoder.config.eos_token_ids == (1, 2)


def test_digits_accuracy_on_the_integer_path() -> None:
    layers, data = load_npz(MODELS / "digits_ternary.npz")
    x = data["x_test"]
    for name, layer in layers.items():
        x = golden_linear(name, layer, x)
        if name != "l3":
            x = np.maximum(x, 0)
    right = (x[:, :10].argmax(axis=1) == data["y_test"]).sum()
    assert (right, len(x)) == (439, 450)


def test_generation_goes_on_from_its_cache(decoder: BitNetModel) -> None:
    """Each greedy token is also the most likely one of a fresh pass over all before it."""
    prompt = load_tokenizer(TINYLM).encode("It is a truth").ids
    ids = [*prompt, *decoder.generate(prompt, 12)]
    best = decoder.logits(ids).argmax(axis=1)
    assert best[len(prompt) - 1 : -1].tolist() == ids[len(prompt) :]


def test_fused_layers_are_the_same_bit_for_bit(
    checkpoint: Checkpoint, decoder: BitNetModel
) -> None:
    plain = BitNetModel(checkpoint, fuse=False)
    assert list(plain.layers)[:7] == [
        f"model.layers.0.{name}_proj"
        for name in (
            "self_attn.q",
            "self_attn.k",
            "self_attn.v",
            "self_attn.o",
            "mlp.gate",
            "mlp.up",
            "mlp.down",
        )
    ]
    assert list(decoder.layers)[4:] == [
        f"model.layers.1.{name}_proj"
        for name in ("self_attn.qkv", "self_attn.o", "mlp.gate_up", "mlp.down")
    ]
    assert decoder.layers["model.layers.0.self_attn.qkv_proj"].trits.shape == (512, 256)
    ids = [3, 400, 77, 12, 500]
    assert plain.logits(ids).tobytes() == decoder.logits(ids).tobytes()


def test_every_layer_goes_through_linear_in_order(checkpoint: Checkpoint) -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def linear(name: str, layer: TernaryLayer, x: np.ndarray) -> np.ndarray:
        assert layer is decoder.layers[name]
        assert x.dtype == np.float32
        calls.append((name, x.shape))
        return golden_linear(name, layer, x)

    decoder = BitNetModel(checkpoint, linear)
    stream = decoder.generate([5, 6, 7], 3)
    assert calls == []
    next(stream)
    assert [name for name, _ in calls] == list(decoder.layers)
    assert {shape for _, shape in calls} == {(3, 256), (3, 512)}
    calls.clear()
    next(stream)
    assert [name for name, _ in calls] == list(decoder.layers)
    assert {shape for _, shape in calls} == {(1, 256), (1, 512)}


@pytest.mark.parametrize("layer", range(8))
def test_every_layer_matters(checkpoint: Checkpoint, decoder: BitNetModel, layer: int) -> None:
    broken = list(decoder.layers)[layer]

    def linear(name: str, layer: TernaryLayer, x: np.ndarray) -> np.ndarray:
        y = golden_linear(name, layer, x)
        return -y if name == broken else y

    ids = [5, 6, 7]
    assert not np.allclose(
        BitNetModel(checkpoint, linear).logits(ids), decoder.logits(ids), atol=0.1
    )


def test_generation_ends_with_an_end_of_sequence_id(
    checkpoint: Checkpoint, decoder: BitNetModel
) -> None:
    ids = list(decoder.generate([28, 64], 9))
    stop = ids[4]
    expected = ids[: ids.index(stop) + 1]
    for eos in (stop, [511, stop]):
        early = BitNetModel(changed(checkpoint, eos_token_id=eos))
        assert list(early.generate([28, 64], 9)) == expected
    endless = BitNetModel(changed(checkpoint, eos_token_id=None))
    assert list(endless.generate([28, 64], 9)) == ids


def test_generation_config_overrides_the_end(checkpoint: Checkpoint) -> None:
    other = Checkpoint(
        TINYLM, checkpoint.config, {"eos_token_id": [7]}, checkpoint.layers, checkpoint.tensors
    )
    assert BitNetModel(other).config.eos_token_ids == (7,)


def test_sampling(decoder: BitNetModel) -> None:
    def draw(temperature: float, seed: int) -> list[int]:
        return list(decoder.generate([28, 64, 491], 20, temperature=temperature, seed=seed))

    assert draw(1.0, 1) == draw(1.0, 1)
    assert draw(1.0, 1) != draw(1.0, 2)
    assert draw(1e-4, 1) == draw(0, 2)
    assert len(set(draw(100.0, 1))) > 15


def test_sampling_follows_the_distribution(decoder: BitNetModel) -> None:
    logits = decoder.logits([28])[0].astype(np.float64) / 0.7
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    drawn = [next(decoder.generate([28], 1, temperature=0.7, seed=seed)) for seed in range(400)]
    top = int(expected.argmax())
    assert abs(drawn.count(top) / 400 - expected[top]) < 0.08


def test_stream_text_is_the_decoded_text(decoder: BitNetModel) -> None:
    tokenizer = load_tokenizer(TINYLM)
    prompt = tokenizer.encode("Emma was").ids
    ids = list(decoder.generate(prompt, 30))
    pieces = list(stream_text(tokenizer, ids, prompt))
    assert len(pieces) > 20
    assert tokenizer.decode(prompt) + "".join(pieces) == tokenizer.decode(prompt + ids)


@pytest.fixture
def byte_tokenizer() -> Any:
    """One token a byte: every character beyond ASCII comes in parts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("text", ["naïve — “tea” 日本語 🙂!", "🙂", "ends in £"])
def test_stream_text_never_gives_half_a_character(byte_tokenizer: Any, text: str) -> None:
    ids = byte_tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    pieces = list(stream_text(byte_tokenizer, ids))
    assert pieces == list(text)
    for length in range(len(text)):
        prompt = byte_tokenizer.encode(text[:length]).ids
        assert list(stream_text(byte_tokenizer, ids[len(prompt) :], prompt)) == list(text[length:])


def test_stream_text_of_a_broken_end(byte_tokenizer: Any) -> None:
    ids = byte_tokenizer.encode("a🙂").ids[:-1]
    assert list(stream_text(byte_tokenizer, ids)) == ["a", "\ufffd"]


def test_stream_text_takes_ids_one_by_one() -> None:
    tokenizer = load_tokenizer(TINYLM)
    ids = iter(tokenizer.encode("one two three").ids)
    stream = stream_text(tokenizer, itertools.chain([next(ids)], ids))
    assert next(stream)
    assert next(ids) is not None


@pytest.mark.parametrize(
    ("prompt", "tokens", "options", "message"),
    [
        ([], 1, {}, "the prompt must have at least one token, not none; give some text"),
        ([1], 0, {}, "max_new_tokens must be at least 1, not 0"),
        ([1], 1, {"temperature": -0.5}, "temperature must be 0 or more, not -0.5"),
        ([1], 1, {"temperature": float("nan")}, "temperature must be 0 or more, not nan"),
        (
            [1, 512],
            1,
            {},
            "token ids must be below 512, not 512; use the model's own tokenizer",
        ),
        ([-1], 1, {}, "token ids must be below 512, not -1; use the model's own tokenizer"),
        (
            [1, 2],
            511,
            {},
            "2 + 511 tokens exceed the model's context of 512; shorten the prompt or the output",
        ),
    ],
)
def test_generate_refuses_at_once(
    decoder: BitNetModel, prompt: list[int], tokens: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        decoder.generate(prompt, tokens, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("windows", "tokens"), [(2, 6), (0, 4), (1, 1)])
def test_nll_refuses(decoder: BitNetModel, windows: int, tokens: int) -> None:
    message = f"nll needs {windows} windows of {tokens} tokens, there are 11; give a longer"
    with pytest.raises(InputError, match=message):
        decoder.nll(range(11), windows, tokens)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "model_type must be bitnet or llama, not 'gpt2'"),
        ({"model_type": None}, "config.json has no model_type; copy the model again"),
        ({"hidden_act": "gelu"}, "hidden_act must be relu2 or silu, not 'gelu'"),
        ({"hidden_size": None}, "config.json has no hidden_size; copy the model again"),
        ({"hidden_size": -3}, "hidden_size must be a positive integer, not -3"),
        ({"rms_norm_eps": None}, "config.json has no rms_norm_eps; copy the model again"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}},
            "rope_type must be default, not 'llama3'",
        ),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}},
            "rope_type must be default, not 'linear'",
        ),
        ({"hidden_size": "x"}, "hidden_size must be a positive integer, not 'x'"),
        ({"vocab_size": True}, "vocab_size must be a positive integer, not True"),
        ({"vocab_size": 512.0}, "vocab_size must be a positive integer, not 512.0"),
        ({"num_hidden_layers": [2]}, "num_hidden_layers must be a positive integer, not [2]"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps must be a positive number, not 'x'"),
        ({"rms_norm_eps": True}, "rms_norm_eps must be a positive number, not True"),
        ({"rms_norm_eps": 10**400}, f"rms_norm_eps must be a positive number, not 1{'0' * 59}…"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number, not nan"),
        ({"rms_norm_eps": -1}, "rms_norm_eps must be a positive number, not -1"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object, not [1]"),
        ({"rope_parameters": "x"}, "rope_parameters must be an object, not 'x'"),
        ({"rope_parameters": {"rope_type": 3}}, "rope_type must be default, not 3"),
        (
            {"rope_parameters": {"rope_theta": "x"}},
            "rope_theta must be a positive number, not 'x'",
        ),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta must be a positive number, not 0"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
            "rope_parameters must be the same for all layers, not by full_attention",
        ),
        ({"hidden_act": ["silu"]}, "hidden_act must be relu2 or silu, not ['silu']"),
        ({"hidden_act": None}, "hidden_act must be relu2 or silu, not None"),
        ({"model_type": {}}, "model_type must be bitnet or llama, not {}"),
        ({"attention_bias": "no"}, "attention_bias must be true or false, not 'no'"),
        ({"head_dim": 33}, "head_dim must be even, not 33"),
        (
            {"head_dim": 32},
            (
                "hidden_size of a bitnet model must be num_attention_heads · head_dim, not 256 for "
                "4 · 32"
            ),
        ),
        (
            {"sliding_window": 4},
            (
                "sliding_window is 4, but each token attends to all before it here; "
                "set it to null if the model was trained so"
            ),
        ),
        (
            {"attention_chunk_size": 4},
            (
                "attention_chunk_size is 4, but each token attends to all before it here; "
                "set it to null if the model was trained so"
            ),
        ),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types must all be full_attention, not ['full_attention', 'sliding_attention']",
        ),
        ({"layer_types": 7}, "layer_types must all be full_attention, not 7"),
        ({"eos_token_id": "2"}, "eos_token_id must be a token id or a list, not '2'"),
        ({"eos_token_id": [1, "2"]}, "eos_token_id must be a token id or a list, not [1, '2']"),
        ({"eos_token_id": True}, "eos_token_id must be a token id or a list, not True"),
        ({"eos_token_id": -1}, "eos_token_id must be a token id or a list, not -1"),
        (
            {"num_key_value_heads": 3},
            "num_attention_heads must be a multiple of num_key_value_heads, not 4 and 3",
        ),
        (
            {"num_hidden_layers": 3},
            "the checkpoint has no model.layers.2.self_attn.q_proj.weight; copy the model again",
        ),
        (
            {"intermediate_size": 500},
            "model.layers.0.mlp.gate_proj has shape (512, 256), config.json asks for (500, 256)",
        ),
        (
            {"vocab_size": 513},
            "model.embed_tokens.weight has shape (512, 256), config.json asks for (513, 256)",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(
    checkpoint: Checkpoint, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        BitNetModel(changed(checkpoint, **config))
    assert str(caught.value) == message


def test_projections_left_as_floats(checkpoint: Checkpoint, decoder: BitNetModel) -> None:
    """A float projection is computed here; with the same weights the result is close."""
    name = "model.layers.1.self_attn.o_proj"
    layer = checkpoint.layers[name]
    tensors = checkpoint.tensors | {f"{name}.weight": layer.trits * layer.scale}
    layers = {key: value for key, value in checkpoint.layers.items() if key != name}
    mixed = BitNetModel(Checkpoint(TINYLM, checkpoint.config, None, layers, tensors))
    assert name not in mixed.layers
    ids = [28, 64, 491]
    assert np.allclose(mixed.logits(ids), decoder.logits(ids), atol=0.5)
    config = checkpoint.config | {"attention_bias": True}
    for key, other in layers.items():
        if "self_attn" in key:
            zeros = np.zeros(other.out_features, np.float32)
            layers[key] = TernaryLayer.from_trits(other.trits, other.scale, bias=zeros)
    bias = np.linspace(-9, 9, 256, dtype=np.float32)
    biased = TernaryLayer.from_trits(layer.trits, layer.scale, bias=bias)
    floats = Checkpoint(TINYLM, config, None, layers, tensors | {f"{name}.bias": bias})
    ternary = Checkpoint(TINYLM, config, None, layers | {name: biased}, checkpoint.tensors)
    expected = BitNetModel(ternary).logits(ids)
    assert np.allclose(BitNetModel(floats).logits(ids), expected, atol=0.5)
    assert not np.allclose(mixed.logits(ids), expected, atol=0.5)


def test_config_keys_that_say_nothing_new(checkpoint: Checkpoint) -> None:
    """Full attention by another name, and a rotary base in each of its places."""
    for config in (
        {"layer_types": ["full_attention"] * 2, "head_dim": None},
        {"rope_parameters": {"rope_theta": 500_000}},
        {"rope_parameters": None, "rope_theta": 500_000},
        {"rope_parameters": None, "rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_parameters": None},
    ):
        theta = BitNetModel(changed(checkpoint, **config)).config.rope_theta
        assert theta == (10_000 if "layer_types" in config else 500_000)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.layers.0.mlp.up_proj.bias", np.ones(512, np.float32), "up_proj has a bias, but"),
        ("model.layers.0.self_attn.q_proj.bias", np.ones(256), "q_proj has a bias, but config"),
    ],
)
def test_biases_that_transformers_would_ignore(
    tmp_path: Path, key: str, value: np.ndarray, message: str
) -> None:
    folder = edited(tmp_path, tensors={key: value})
    with pytest.raises(CheckpointError, match=message):
        BitNetModel(load_checkpoint(folder))


def test_biases_that_are_missing(tmp_path: Path) -> None:
    folder = edited(tmp_path, attention_bias=True)
    with pytest.raises(CheckpointError, match="q_proj has no bias, but config"):
        BitNetModel(load_checkpoint(folder))


def edited(
    folder: Path, *, tensors: dict[str, np.ndarray | None] | None = None, **config: Any
) -> Path:
    """A copy of tinylm with other tensors and other values in config.json; None removes one."""
    shutil.copytree(TINYLM, folder / "m")
    file = folder / "m" / "config.json"
    merged = json.loads(file.read_text()) | config
    file.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))
    weights = folder / "m" / "model.safetensors"
    merged = load_file(weights) | (tensors or {})
    save_file({k: v for k, v in merged.items() if v is not None}, weights)
    return folder / "m"


class TestHead:
    """Which weights the head has: those that transformers gives it."""

    embedding = "model.embed_tokens.weight"

    def test_tied(self, tmp_path: Path, checkpoint: Checkpoint, decoder: BitNetModel) -> None:
        """With either name in the files."""
        table = checkpoint.tensors[self.embedding]
        assert checkpoint.tensors["lm_head.weight"] is table
        folder = edited(tmp_path, tensors={self.embedding: None, "lm_head.weight": table})
        model = BitNetModel(load_checkpoint(folder))
        assert model.logits([5, 6]).tobytes() == decoder.logits([5, 6]).tobytes()

    @pytest.mark.parametrize("tie", [True, False, None])
    def test_own(
        self, tmp_path: Path, checkpoint: Checkpoint, decoder: BitNetModel, tie: bool | None
    ) -> None:
        head = -checkpoint.tensors[self.embedding]
        folder = edited(tmp_path, tensors={"lm_head.weight": head}, tie_word_embeddings=tie)
        own = BitNetModel(load_checkpoint(folder))
        assert np.allclose(own.logits([5, 6]), -decoder.logits([5, 6]))

    @pytest.mark.parametrize("tie", [False, None])
    def test_missing(self, tmp_path: Path, tie: bool | None) -> None:
        """Without a word on it the head is its own, and transformers would make one at random."""
        folder = edited(tmp_path, tie_word_embeddings=tie)
        with pytest.raises(CheckpointError, match=r"has no lm_head.weight; copy the model again"):
            BitNetModel(load_checkpoint(folder))

    def test_wrong_type(self, tmp_path: Path) -> None:
        folder = edited(tmp_path, tie_word_embeddings="yes")
        with pytest.raises(CheckpointError, match="tie_word_embeddings must be true or false, not"):
            load_checkpoint(folder)


def test_nll_of_the_shortest_windows(decoder: BitNetModel) -> None:
    """Two windows of two tokens: the mean of two surprises."""
    ids = [28, 64, 300, 10]
    surprises = []
    for first, second in (ids[:2], ids[2:]):
        scores = decoder.logits([first])[0].astype(np.float64)
        surprises.append(np.log(np.exp(scores).sum()) - scores[second])
    assert np.isclose(decoder.nll(ids, 2, 2), np.mean(surprises), rtol=1e-5)
    assert np.isclose(decoder.nll([*ids, 9], 1, 2), surprises[0], rtol=1e-5)


def test_tokenizer_of_a_model(reference: dict[str, np.ndarray]) -> None:
    tokenizer = load_tokenizer(str(TINYLM))
    for prompt in range(8):
        text = str(reference[f"p{prompt}.prompt"])
        assert tokenizer.encode(text).ids == reference[f"p{prompt}.ids"].tolist()


def test_tokenizer_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"no tokenizer.json in {tmp_path}; copy the whole model directory"
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not a tokenizer; copy it again"):
        load_tokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ToolError, match=r"run pip install .*\[models\]"):
        load_tokenizer(TINYLM)


def test_a_model_with_its_scale_read_the_wrong_way_is_wrong(tmp_path: Path) -> None:
    """The class alone tells the conventions apart: the trap that the loader must not fall in."""
    shutil.copytree(TINYLM, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["quantization_config"]["linear_class"] = "bitlinear"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    layers = load_checkpoint(tmp_path / "m").layers
    right = load_checkpoint(TINYLM).layers
    x = np.linspace(-1, 1, 256, dtype=np.float32)[None]
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"):
        ratio = numerics.bitlinear(x, layers[name].trits, layers[name].scale, True)
        ratio /= golden_linear(name, right[name], x)
        assert np.allclose(ratio, 1 / right[name].scale ** 2, rtol=1e-5)


def test_a_cache_that_grows(
    checkpoint: Checkpoint, decoder: BitNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(decoder.generate([5, 6, 7], 20))
    monkeypatch.setattr("tritloom.host.models.bitnet.FIRST_CACHE_TOKENS", 2)
    assert list(BitNetModel(checkpoint).generate([5, 6, 7], 20)) == expected


def test_what_is_saved_with_a_tokenizer(tmp_path: Path) -> None:
    """Truncation and padding are off; a token that only the other file lists is added."""
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    prompt = "It was a very fine day, and Emma"
    expected = load_tokenizer(folder).encode(prompt).ids
    assert len(expected) == 13
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<eos>",
    }
    file.write_text(json.dumps(content))
    assert load_tokenizer(folder).encode(prompt).ids == expected
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token": "Emma"}))
    assert load_tokenizer(folder).encode(prompt).ids[-1] == 512
