"""Programs of decoders for tests: random decoders, what they must give, and a played device."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tests.support.vector_programs import random_vector
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.decoder import Block, Decoder
from tritloom.host.program import Program
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_interpreter import VectorInterpreter
from tritloom.rtl.spec.vector_program import check_program

__all__ = ["PlayedProgram", "layers_of", "random_decoder", "same_bits"]

Attend = Callable[[int, list[np.ndarray]], np.ndarray]


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(
        np.asarray(left, np.float32).view(np.uint32), np.asarray(right, np.float32).view(np.uint32)
    )


def layers_of(decoder: Decoder, names: str = "qkv o gate_up down") -> list[TernaryLayer]:
    """The layers of all blocks in the order of use."""
    return [getattr(block, name) for block in decoder.blocks for name in names.split()]


class PlayedProgram:
    """A program on an interpreted unit, at some place, beside a core that has its layers."""

    def __init__(
        self,
        config: VectorConfig,
        program: Program,
        layers: Sequence[TernaryLayer],
        base: int = 0,
        indices: Sequence[int] | None = None,
    ) -> None:
        indices = range(len(layers)) if indices is None else indices
        self.program, self.base = program, base
        self.steps = program.moved(base, indices)
        shapes = {index: layer.trits.shape for index, layer in zip(indices, layers, strict=True)}
        for routine in program.routines.values():
            check_program(self.steps[routine.first :][: routine.count], config, shapes)
        trits = {index: layer.trits for index, layer in zip(indices, layers, strict=True)}
        self.unit = VectorInterpreter(
            config, lambda index, codes: numerics.matmul(trits[index], codes[None])[0]
        )
        at = base + program.constants_at
        self.unit.memory[:] = 0xFFFF_FFFF  # NaN: what no step has written must not be read
        self.unit.memory[at : at + len(program.constants)] = program.constants.view(np.uint32)

    def run(
        self, routine: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        place, vectors = self.program.routines[routine], self.program.vectors
        given = [np.asarray(values, np.float32) for values in inputs.values()]
        results: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        for token in range(len(given[0])):
            for name, values in zip(inputs, given, strict=True):
                self._words(name)[:] = values[token].view(np.uint32)
            assert not self.unit.run(self.steps[place.first :][: place.count])
            for name in outputs:
                results[name].append(self._words(name).view(np.float32).copy())
        assert set(outputs) <= set(vectors)
        return {name: np.stack(rows) for name, rows in results.items()}

    def _words(self, name: str) -> np.ndarray:
        vector = self.program.vectors[name]
        return self.unit.memory[self.base + vector.address :][: vector.count]


def random_decoder(
    seed: int,
    *,
    blocks: int = 2,
    hidden: int = 64,
    inner: int = 96,
    queries: int = 64,
    keys: int = 32,
    sub_norms: bool = True,
    divides: bool = False,
    per_row: bool = False,
    bias: bool = False,
    relu2: bool = True,
    bfloat16: bool = False,
) -> Decoder:
    """A decoder with random weights."""
    rng = np.random.default_rng(seed)

    def vector(count: int) -> np.ndarray:
        return random_vector(rng, count, False, 0.5)  # each operation rounds its weights

    def layer(rows: Sequence[int], in_features: int) -> TernaryLayer:
        total = sum(rows)
        scale = np.abs(vector(total)) / 8
        if not per_row:
            scale = np.repeat(np.abs(vector(len(rows))) / 8, rows)
        return TernaryLayer.from_trits(
            rng.integers(-1, 2, (total, in_features), np.int8),
            1 / scale if divides else scale,
            scale_divides=divides,
            bias=vector(total) if bias else None,
        )

    return Decoder(
        blocks=tuple(
            Block(
                qkv=layer((queries, keys, keys), hidden),
                o=layer((hidden,), queries),
                gate_up=layer((inner, inner), hidden),
                down=layer((hidden,), inner),
                input_norm=vector(hidden),
                post_norm=vector(hidden),
                attention_norm=vector(queries) if sub_norms else None,
                inner_norm=vector(inner) if sub_norms else None,
            )
            for _ in range(blocks)
        ),
        hidden=hidden,
        inner=inner,
        queries=queries,
        keys=keys,
        final_norm=vector(hidden),
        eps=1e-5,
        relu2=relu2,
        bfloat16=bfloat16,
    )
