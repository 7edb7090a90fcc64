"""Programs of a decoder's blocks for the vector unit.

`decoder_program` makes a program that keeps the hidden vector on the device: only attention is
computed elsewhere. `feed_forward_program` needs fewer vector words and steps, and `mlp_program` is
for models that compute norms and residuals themselves. The bits are those of the functions in
`numerics`, in the order in which `BitNetModel` uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tritloom.host.layer import TernaryLayer
from tritloom.host.linear_program import runs_of_scales
from tritloom.host.models.decoder import Block, Decoder, Mlp
from tritloom.host.program import Program, Routine, Vector
from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import WORDS, WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_operations import SUM_WORDS, ProgramBuilder
from tritloom.rtl.spec.vector_program import Factor, Operation, Step

__all__ = ["decoder_program", "feed_forward_program", "mlp_program"]

F32 = NDArray[np.float32]
UP_PIECES = (1, 2, 4, 8)
"""In how many pieces the outputs of `up` may come from the core: more take fewer vector words."""


class _TooFewWords(CapacityError):
    """The vector memory has no room; a program with more pieces may find it."""


@dataclass(slots=True)
class _Maker:
    """Makes the routines of a program.

    The hidden vector lies at address 0, and behind it the words for work. Norms write their results
    to the beginning of the work, where the attention's output, the results of the core and `gate`
    lie too: each is used up before the next one comes.
    """

    config: VectorConfig
    decoder: Decoder
    work_words: int
    up_rows: int
    norms: Sequence[F32 | None]
    builder: ProgramBuilder = field(init=False)
    work: int = field(init=False)
    s: int = field(init=False)
    constants_at: int = field(init=False)
    routines: dict[str, Routine] = field(init=False, default_factory=dict)
    shapes: list[tuple[int, int]] = field(init=False, default_factory=list)
    norm_words: int = field(init=False, default=0)
    _placed: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        decoder = self.decoder
        # The most words that a step can name; `_require` compares with the device's.
        unlimited = replace(self.config, words=WORDS[1])
        self.builder = ProgramBuilder(unlimited, bfloat16=decoder.bfloat16)
        self.builder.reserve(decoder.hidden)
        self.work = self.builder.reserve(self.work_words, WRAP_WORDS)
        longest = max(decoder.hidden, decoder.inner, decoder.queries)
        self.builder.place_sums(self.work + _aligned(longest))
        self.s = self.builder.reserve(1)
        self.constants_at = self.builder.words
        norms = {id(norm): norm for norm in self.norms if norm is not None}
        self.norm_words = sum(map(len, norms.values()))
        self._require(self.builder.words + self.norm_words)
        for norm in norms.values():
            self._place(norm)

    def routine(self, name: str) -> None:
        """End a routine that began behind the last one."""
        first = sum(routine.count for routine in self.routines.values())
        count = len(self.builder.end()) - first
        self.routines[name] = Routine(first=first, count=count)

    def norm(self, x: int, weight: F32, to: int) -> None:
        """`numerics.rms_norm`."""
        self.builder.rms_norm(x, len(weight), self._place(weight), self.decoder.eps, to)

    def run(self, layer: TernaryLayer, x: int, *, measured: bool) -> None:
        """Quantize the features at `x`, and compute the layer."""
        self.builder.quantize(x, layer.in_features, self.s, measured=measured)
        self.run_again(layer)

    def run_again(self, layer: TernaryLayer) -> None:
        """Compute the layer with the codes that the core got."""
        self.builder.run(len(self.shapes))
        self.shapes.append((layer.out_features, layer.in_features))

    def results(
        self, layer: TernaryLayer, first: int, rows: int, to: int, residual: int | None = None
    ) -> None:
        """`numerics.rescale` of the next rows of the layer that runs; they begin at row `first`.

        With a scale per row that divides, each run of rows with one scale is rescaled by itself,
        because the unit makes the reciprocal of a divisor before the results come.
        """
        if layer.scale_divides:
            for start, count in runs_of_scales(layer, first, rows):
                place = start - first
                at = None if residual is None else residual + place
                self._results(layer, start, count, to + place, at)
        else:
            self._results(layer, first, rows, to, residual)

    def _results(
        self, layer: TernaryLayer, first: int, rows: int, to: int, residual: int | None
    ) -> None:
        scale = self._scalar_scale(layer, first, rows)
        same = scale is not None
        if scale is None:
            scale = self._place(layer.scale) + first
        self.builder.rescale(
            rows,
            self.s,
            scale,
            to,
            scale_divides=layer.scale_divides,
            scale_per_row=not same,
            bias=None if layer.bias is None else self._place(layer.bias) + first,
            residual=residual,
        )

    def _scalar_scale(self, layer: TernaryLayer, first: int, rows: int) -> int | None:
        """The address of the scale of some rows; None if they have several."""
        scales = np.broadcast_to(layer.scale, layer.out_features)[first : first + rows]
        if not (scales == scales[0]).all():
            return None
        return self.builder.constant(round_to(scales[:1], self.decoder.bfloat16)[0])

    def _multiplies_again(self, layer: TernaryLayer, scale: int | None) -> bool:
        """Whether the results of a layer can be rescaled, and squared or multiplied, in one step.

        The unit must have two multipliers, and the outputs one scale, which divides, and no bias.
        """
        two = self.config.multipliers == 2
        return two and layer.scale_divides and layer.bias is None and scale is not None

    def _place(self, values: F32) -> int:
        """The address of a vector of constants."""
        key = id(values)
        if key not in self._placed:
            self._require(self.builder.words + len(values))
            self._placed[key] = self.builder.place(round_to(values, self.decoder.bfloat16))
        return self._placed[key]

    def begin_attention(self, block: Block) -> None:
        """From the hidden vector to query, key and value, at the beginning of the work."""
        self.norm(0, block.input_norm, self.work)
        self.run(block.qkv, self.work, measured=True)
        first = 0
        for rows in self.decoder.qkv_rows:
            self.results(block.qkv, first, rows, self.work + first)
            first += rows

    def end_attention(self, block: Block) -> None:
        """From the attention's output, at the beginning of the work, to the hidden vector."""
        if block.attention_norm is not None:
            self.norm(self.work, block.attention_norm, self.work)
        self.run(block.o, self.work, measured=block.attention_norm is not None)
        self._to_hidden(block.o)

    def gate_up(self, block: Block) -> None:
        """From the hidden vector to gate and up, at the beginning of the work."""
        self._gate(block)
        inner = self.decoder.inner
        self.results(block.gate_up, inner, inner, self.work + inner)

    def feed_forward(self, block: Block) -> None:
        """From the hidden vector to relu(gate)² · up, at the beginning of the work."""
        inner, up = self.decoder.inner, self.work + self.decoder.inner
        layer = block.gate_up
        scales = self._scalar_scale(layer, 0, inner), self._scalar_scale(layer, inner, inner)
        if all(self._multiplies_again(layer, scale) for scale in scales):
            assert scales[0] is not None
            assert scales[1] is not None
            self.norm(0, block.post_norm, self.work)
            self.run(layer, self.work, measured=True)
            self.builder.rescale_gated(inner, self.s, scales[0], scales[1], self.work, up)
            return
        self._gate(block)
        for first in range(0, inner, self.up_rows):
            rows = min(self.up_rows, inner - first)
            self.results(block.gate_up, inner + first, rows, up)
            self.builder.relu2_times(self.work + first, up, rows)

    def mlp(self, mlp: Mlp) -> None:
        """From the input at address 0 to the output, at the beginning of the work."""
        inner, up = self.decoder.inner, self.work + self.decoder.inner
        self.run(mlp.gate, 0, measured=False)
        gate, up_scale = (self._scalar_scale(each, 0, inner) for each in (mlp.gate, mlp.up))
        gated = self._multiplies_again(mlp.gate, gate) and self._multiplies_again(mlp.up, up_scale)
        if gated:
            assert gate is not None
            self.builder.rescale_squared(inner, self.s, gate, self.work, up)
        else:
            self.results(mlp.gate, 0, inner, self.work)
        # `up` gets the same codes again.
        self.builder.step(
            *(Operation.PRODUCT, Factor.SCALAR),
            a=0,
            b=self.s,
            count=self.decoder.hidden,
            codes=True,
        )
        self.run_again(mlp.up)
        if gated:
            assert up_scale is not None
            self.builder.rescale_times(inner, self.s, up_scale, self.work, up)
        for first in range(0, 0 if gated else inner, self.up_rows):
            rows = min(self.up_rows, inner - first)
            self.results(mlp.up, first, rows, up)
            self.builder.relu2_times(self.work + first, up, rows)
        if mlp.inner_norm is not None:
            self.norm(self.work, mlp.inner_norm, self.work)
        measured = mlp.inner_norm is not None or gated or self.up_rows == inner
        self.run(mlp.down, self.work, measured=measured)
        self.results(mlp.down, 0, self.decoder.hidden, self.work)

    def end_feed_forward(self, block: Block, *, measured: bool) -> None:
        """From `inner`, at the beginning of the work, to the hidden vector."""
        if block.inner_norm is not None:
            self.norm(self.work, block.inner_norm, self.work)
        self.run(block.down, self.work, measured=measured or block.inner_norm is not None)
        self._to_hidden(block.down)

    def _gate(self, block: Block) -> None:
        self.norm(0, block.post_norm, self.work)
        self.run(block.gate_up, self.work, measured=True)
        self.results(block.gate_up, 0, self.decoder.inner, self.work)

    def _to_hidden(self, layer: TernaryLayer) -> None:
        self.results(layer, 0, self.decoder.hidden, self.work, residual=0)

    def program(self, vectors: dict[str, Vector]) -> Program:
        """The program, if it fits the device."""
        self._require(self.builder.words)
        words = np.zeros(self.builder.words, np.uint32)
        for address, patterns in self.builder.contents.items():
            words[address : address + len(patterns)] = patterns
        program = Program(
            steps=tuple[Step, ...](self.builder.steps),
            routines=self.routines,
            vectors=vectors,
            constants=words[self.constants_at :].view(np.float32),
            constants_at=self.constants_at,
            words=self.builder.words,
            layers=tuple(self.shapes),
        )
        program.check(self.config)
        return program

    def _require(self, needed: int) -> None:
        """`_TooFewWords` if the device has fewer words."""
        if needed <= self.config.words:
            return
        raise _TooFewWords(
            f"the vector memory has {self.config.words:,} words, but at least {needed:,} are "
            f"needed: {self.decoder.hidden:,} for the hidden vector, {self.norm_words:,} for "
            f"weights of norms, {self.work_words:,} for work, and "
            f"{needed - self.decoder.hidden - self.norm_words - self.work_words:,} for scales and "
            "other constants; build the device with more vector words"
        )


def decoder_program(config: VectorConfig, decoder: Decoder) -> Program:
    """The blocks of a decoder, with the hidden vector on the device.

    Routines, by name, and the vectors that they read and write:

    | routine | computes | from | to |
    |---|---|---|---|
    | `begin` | norm, q/k/v of block 0 | `x` | `qkv` |
    | `block N` | o to down of block N, q/k/v of the next block | `attention` | `qkv` |
    | the last one | o to down of the last block, final norm | `attention` | `hidden` |

    `x` holds the hidden vector all the time. If the decoder has another activation than relu²,
    `block N` ends with `gate_up`, and `feed_forward N` goes on from `inner`. If the weights of the
    final norm find no room, there is no `hidden`, and the caller computes the final norm of `x`.

    Parameters
    ----------
    config : of the vector unit
    decoder : of any number of blocks

    Raises
    ------
    CapacityError : the vector memory or the program memory has no room
    InputError : an operation that the unit does not compute
    """
    for final_norm in (True, False):
        for pieces in UP_PIECES:
            try:
                return _decoder_program(config, decoder, final_norm, pieces)
            except _TooFewWords as error:
                reason = error
    raise reason


def _decoder_program(
    config: VectorConfig, decoder: Decoder, final_norm: bool, pieces: int
) -> Program:
    up_rows = -(-decoder.inner // pieces)
    qkv = sum(decoder.qkv_rows)
    norms = [
        norm
        for block in decoder.blocks
        for norm in (block.input_norm, block.attention_norm, block.post_norm, block.inner_norm)
    ]
    norms += [decoder.final_norm] * final_norm
    maker = _Maker(config, decoder, _work_words(decoder, qkv, up_rows), up_rows, norms)
    last = len(decoder.blocks) - 1
    maker.begin_attention(decoder.blocks[0])
    maker.routine("begin")
    for index, block in enumerate(decoder.blocks):
        maker.end_attention(block)
        if decoder.relu2:
            maker.feed_forward(block)
        else:
            maker.gate_up(block)
            maker.routine(f"block {index}")
        maker.end_feed_forward(block, measured=decoder.relu2 and pieces == 1)
        if index < last:
            maker.begin_attention(decoder.blocks[index + 1])
        elif final_norm:
            maker.norm(0, decoder.final_norm, maker.work)
        maker.routine(f"block {index}" if decoder.relu2 else f"feed_forward {index}")
    vectors = {
        "x": Vector(address=0, count=decoder.hidden),
        "qkv": Vector(address=maker.work, count=qkv),
        "attention": Vector(address=maker.work, count=decoder.queries),
    }
    if not decoder.relu2:
        vectors["gate_up"] = Vector(address=maker.work, count=2 * decoder.inner)
        vectors["inner"] = Vector(address=maker.work, count=decoder.inner)
    if final_norm:
        vectors["hidden"] = Vector(address=maker.work, count=decoder.hidden)
    return maker.program(vectors)


def feed_forward_program(
    config: VectorConfig, decoder: Decoder, blocks: Sequence[int] | None = None
) -> Program:
    """The feed-forward of some blocks, from the hidden vector to the hidden vector.

    The routine `feed_forward N` computes norm, gate and up, relu² · up, norm, down and residual of
    block N, from the vector `x` to the vector `x`.

    Parameters
    ----------
    config : of the vector unit
    decoder : with the activation relu²
    blocks : numbers of the blocks, all by default

    Raises
    ------
    CapacityError : the vector memory or the program memory has no room
    InputError : another activation than relu², or an operation that the unit does not compute
    """
    if not decoder.relu2:
        raise InputError("the vector unit computes no activation but relu²; leave it to the host")
    for pieces in UP_PIECES:
        try:
            return _feed_forward_program(config, decoder, blocks, pieces)
        except _TooFewWords as error:
            reason = error
    raise reason


def _feed_forward_program(
    config: VectorConfig, decoder: Decoder, blocks: Sequence[int] | None, pieces: int
) -> Program:
    up_rows = -(-decoder.inner // pieces)
    chosen = range(len(decoder.blocks)) if blocks is None else blocks
    norms = [
        norm
        for index in chosen
        for norm in (decoder.blocks[index].post_norm, decoder.blocks[index].inner_norm)
    ]
    work_words = _work_words(decoder, decoder.hidden, up_rows)
    maker = _Maker(config, decoder, work_words, up_rows, norms)
    for index in chosen:
        maker.feed_forward(decoder.blocks[index])
        maker.end_feed_forward(decoder.blocks[index], measured=pieces == 1)
        maker.routine(f"feed_forward {index}")
    return maker.program({"x": Vector(address=0, count=decoder.hidden)})


def mlp_program(
    config: VectorConfig, mlps: Mapping[str, Mlp], *, eps: float, bfloat16: bool = False
) -> Program:
    """The part of some feed-forwards that is between their norm and their residual.

    The routine of each name computes gate and up, relu(gate)² · up, norm and down, from the vector
    `x` to the vector `y`. Gate, up and down are layers of their own.

    Parameters
    ----------
    config : of the vector unit
    mlps : by name; all have the same features
    eps : of the norms
    bfloat16 : whether the model rounds each operation to bfloat16

    Raises
    ------
    CapacityError : the vector memory or the program memory has no room
    InputError : an operation that the unit does not compute
    """
    first = next(iter(mlps.values()))
    decoder = Decoder(
        blocks=(),
        hidden=first.down.out_features,
        inner=first.down.in_features,
        queries=0,
        keys=0,
        final_norm=np.zeros(0, np.float32),
        eps=eps,
        bfloat16=bfloat16,
    )
    for pieces in UP_PIECES:
        up_rows = -(-decoder.inner // pieces)
        work_words = _work_words(decoder, decoder.hidden, up_rows)
        try:
            norms = [mlp.inner_norm for mlp in mlps.values()]
            maker = _Maker(config, decoder, work_words, up_rows, norms)
            for name, mlp in mlps.items():
                maker.mlp(mlp)
                maker.routine(name)
            return maker.program(
                {
                    "x": Vector(address=0, count=decoder.hidden),
                    "y": Vector(address=maker.work, count=decoder.hidden),
                }
            )
        except _TooFewWords as error:
            reason = error
    raise reason


def _work_words(decoder: Decoder, least: int, up_rows: int) -> int:
    """Words for gate and up, for a norm and its sums, and at least `least`."""
    longest = max(decoder.hidden, decoder.inner, decoder.queries)
    return max(least, decoder.inner + up_rows, _aligned(longest) + SUM_WORDS)


def _aligned(count: int) -> int:
    """`count` words, up to the next row of interleaved sums."""
    return -(-count // WRAP_WORDS) * WRAP_WORDS
