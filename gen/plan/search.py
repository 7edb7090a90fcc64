"""The search for the best geometry of an engine and encoding on a part."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf, log
from typing import Any

from tritloom.gen.plan.cost import Cost, CostModel, weight_blocks
from tritloom.gen.plan.records import Candidate
from tritloom.gen.workloads import Layer, layer_cycles
from tritloom.rtl.spec.config import GROUP_SUMS_LIMIT, OVERHEAD_BYTES, AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import MAX_MEMORY_WORDS, Link, Memory, engines
from tritloom.rtl.spec.scale_facts import SCALE_BITS, ScaleConfig

__all__ = ["Search", "useful_tokens"]

FILLING = 0.1
"""Share of the cycles that filling must cost to be what bounds a candidate."""
FULL = 0.85
"""Share of its budget from which a resource is what bounds a candidate."""
SAME_RATE = 0.01
"""Rates that differ by less than this share are a tie: placement changes a clock by more."""
MOST_PADDING = 0.016
"""Greatest share of padding in groups of inputs that is little: 65 lanes for a group of 64."""
PADDING_WORTH = 0.02
"""Share of the MAC/s that little padding is worth: padding also takes memory, and bandwidth of a
memory outside the chip."""
LEAST_PIECE = 64
"""Fewest outputs of a layer's piece, where partial sums do not hold all outputs."""
MAX_LAYERS = 256
RESULT_BYTES = 4
MAX_CODES, MAX_ROWS, MAX_TOKENS = 1024, 256, 16
"""Largest lanes in codes, rows and tokens that are tried."""
SMALL, MEDIUM = 12, 64
MEDIUM_STEP, LARGE_STEP = 4, 16
"""Numbers up to `SMALL` are all tried, up to `MEDIUM` every fourth, then every sixteenth."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for, and how it is found.

    Members
    -------
    model : predicts what a configuration takes
    part : the part's name
    layers, tokens : the work
    act_bits, alphabet : as in the configuration
    budget : what the accelerator may take
    word_limit : bits of a weight word that the weight memory can deliver; `None` without a limit
    memory, link : plug-ins of the configuration; the search sets the memory's words
    memory_words : words of the weight memory; 0 if the search chooses them
    core_only : whether only the core counts
    inside : whether the weights lie in the part
    whole : whether the weights of all layers must lie in the part
    clock_hz : the board's clock; `None` without a board
    base : other keys of the configuration
    scale : kind of the scales with which the device multiplies the sums of groups; `None`: without
    """

    model: CostModel
    part: str
    layers: tuple[Layer, ...]
    tokens: int
    act_bits: int
    alphabet: str
    budget: Cost
    word_limit: int | None
    memory: Memory
    link: Link
    memory_words: int
    core_only: bool
    inside: bool
    whole: bool
    clock_hz: int | None
    base: dict[str, Any]
    scale: str | None = None

    @cached_property
    def max_in(self) -> int:
        return max(layer.in_features for layer in self.layers)

    @cached_property
    def group(self) -> int:
        """Inputs of the smallest groups of the layers; 0 if all have one sum a row."""
        return min((layer.group for layer in self.layers if layer.group), default=0)

    def _features(self, lanes: int, rows: int, most: int) -> dict[str, Any]:
        """The limits of features of a geometry, of which a layer's piece has `most` outputs.

        Each group of inputs is filled up to whole tiles, and each row has a sum for each group.
        """
        groups = [layer.in_features // (layer.group or layer.in_features) for layer in self.layers]
        limits: dict[str, Any] = {"max_in_features": self.max_in, "max_out_features": most}
        if self.group:
            limits["max_in_features"] = max(
                number * -(-(layer.group or layer.in_features) // lanes) * lanes
                for number, layer in zip(groups, self.layers, strict=True)
            )
            if self.scale is not None:
                longest = max(layer.group for layer in self.layers)
                return limits | {"scale": ScaleConfig(kind=self.scale, group=longest)}
            sums = max(
                number * -(-min(most, layer.out_features) // rows) * rows
                for number, layer in zip(groups, self.layers, strict=True)
            )
            limits["max_group_sums"] = min(max(sums, most), GROUP_SUMS_LIMIT)
        return limits

    def _steps(self, rate: float, lanes: int) -> int:
        """A rate on a scale where rates that differ by less than about `SAME_RATE` are equal.

        Where layers have groups of inputs, little padding counts as a faster rate.
        """
        padded = sum(
            layer.weights // size * -(-size // lanes) * lanes
            for layer in self.layers
            for size in [layer.group or layer.in_features]
        )
        little = self.group and padded <= (1 + MOST_PADDING) * self.weights
        return round(log(rate * (1 + PADDING_WORTH if little else 1)) / SAME_RATE)

    @cached_property
    def max_out(self) -> int:
        return max(layer.out_features for layer in self.layers)

    @cached_property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @cached_property
    def _one_word(self) -> Memory:
        return replace(self.memory, words=1)

    def config(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int, most: int
    ) -> AcceleratorConfig | None:
        """A geometry with a weight memory of one word; `None` if no engine can have it."""
        word = rows * lanes // encodings[encoding].trits_per_code * encodings[encoding].code_bits
        word += SCALE_BITS * rows if self.scale is not None else 0
        # A packet must hold a weight word, a fill of activations, and the results of a row group.
        needed = max(word // 8 + 1, fill, RESULT_BYTES * rows) + OVERHEAD_BYTES
        packet_bytes = max(self.base["packet_bytes"], 1 << (needed - 1).bit_length())
        try:
            return AcceleratorConfig(
                **self.base | {"packet_bytes": packet_bytes} | self._features(lanes, rows, most),
                engine=engine,
                encoding=encoding,
                lanes=lanes,
                rows=rows,
                tokens=tokens,
                fill=fill,
                act_bits=self.act_bits,
                alphabet=self.alphabet,
                memory=self._one_word,
            )
        except ConfigError:
            return None

    def words(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Weight words of all layers, and the number of pieces that they are loaded in."""
        words = pieces = 0
        for layer in self.layers:
            whole, rest = divmod(layer.out_features, config.max_out_features)
            for out_features, times in ((config.max_out_features, whole), (rest, 1)):
                if out_features and times:
                    shape = LayerShape.of(config, out_features, layer.in_features, layer.group)
                    words += config.stored_words(shape.words) * times * layer.count
                    pieces += times * layer.count
        return words, pieces

    def cycles(self, config: AcceleratorConfig) -> int | None:
        """Cycles of all layers for all tokens; `None` if no row group fits the weight memory."""
        passes = ceil(self.tokens / config.tokens)
        total = 0
        for layer in self.layers:
            most = None
            if self.inside and not self.whole:
                tiles = LayerShape.of(config, 1, layer.in_features, layer.group).tiles
                row_groups = config.memory_words // tiles
                most = row_groups * config.rows
                if not row_groups:
                    return None
            shape = (layer.in_features, layer.out_features)
            total += layer.count * layer_cycles(config, *shape, most, layer.group)
        return total * passes

    def cost(self, config: AcceleratorConfig) -> Cost:
        """What the accelerator takes, with its link."""
        config = replace(config, link=self.link)
        core = self.model.core(config)
        return core if self.core_only else core + self.model.around(config, weights=self.inside)

    def placed(self, config: AcceleratorConfig) -> tuple[AcceleratorConfig, Cost] | None:
        """The configuration with its weight memory, and its cost; `None` if it does not fit."""
        if self.core_only:
            cost = self.cost(config)
            return (config, cost) if self.fits(cost) else None
        words, pieces = self.words(config)
        layers = min(max(config.max_layers, pieces), MAX_LAYERS)
        if self.inside and self.whole and pieces > layers:
            return None
        words = self.memory_words or min(words, MAX_MEMORY_WORDS)
        memory = replace(config.memory, words=words)
        config = replace(config, memory=memory, max_layers=layers)
        if self.inside:
            free = self.budget.block_rams - self.model.blocks(replace(config, link=self.link))
            if not self.whole and not self.memory_words:
                words = min(words, self._held(config, free))
                if words == 0:
                    return None
                config = config.with_words(words)
            elif weight_blocks(self.model.family, config.memory, config) > free:
                return None
        cost = self.cost(config)
        return (config, cost) if self.fits(cost) else None

    def _held(self, config: AcceleratorConfig, blocks: int) -> int:
        """Most words, of those that leave little RAM unused, that fit into a number of blocks."""
        sizes = self.memory.full_sizes(config, MAX_MEMORY_WORDS)

        def needed(words: int) -> int:
            # Only the memory changes: to check the whole configuration again would take long.
            return weight_blocks(self.model.family, replace(config.memory, words=words), config)

        fitting = bisect_right(sizes, blocks, key=needed)
        return sizes[fitting - 1] if fitting else 0

    def fits(self, cost: Cost) -> bool:
        return self.crowding(cost) <= 1

    def crowding(self, cost: Cost) -> float:
        return max(self.shares(cost).values())

    def shares(self, cost: Cost) -> dict[str, float]:
        """The share of the budget that a cost takes, by resource. More than 1 does not fit."""
        return {
            "LUTs": cost.luts / self.budget.luts,
            "flip-flops": cost.ffs / self.budget.ffs,
            "block RAM": cost.block_rams / self.budget.block_rams,
            "multipliers": _share(cost.multipliers, self.budget.multipliers),
        }

    def fills_block_ram(self, candidate: Candidate) -> bool:
        """Whether block RAM may be what bounds it."""
        return self.shares(candidate.cost)["block RAM"] > FULL

    def mhz(self, config: AcceleratorConfig) -> float | None:
        """The board's clock if the engine reaches it, else the nearest measured clock."""
        reached = self.model.mhz(config)
        if self.clock_hz is None:
            return reached
        wanted = self.clock_hz / 1e6
        return wanted if reached is None else min(wanted, reached)

    def candidate(self, config: AcceleratorConfig, cost: Cost) -> Candidate | None:
        cycles = self.cycles(config)
        if cycles is None:
            return None
        useful = self.weights * self.tokens / cycles
        return Candidate(
            config,
            cost,
            cycles,
            useful,
            useful / config.macs_per_cycle,
            self.mhz(config),
            "",
        )

    def bound(self, candidate: Candidate) -> str:
        """What keeps a candidate from being faster."""
        config = candidate.config
        engine = engines[config.engine]
        filling = 0
        for layer in self.layers:
            shape = LayerShape.of(config, layer.out_features, layer.in_features, layer.group)
            later = (shape.tiles - 1) * (config.tile_cycles(shape.row_groups) - shape.row_groups)
            filling += layer.count * (engine.fill_cycles(config) + later)
        filling *= ceil(self.tokens / config.tokens)
        if filling > FILLING * candidate.cycles:
            return f"filling, {filling / candidate.cycles:.0%} of the cycles"
        limit = self.word_limit
        if limit is not None and config.word_bits > FULL * limit:
            return f"weight bandwidth, {config.word_bits} of {limit} bits a cycle"
        shares = self.shares(candidate.cost)
        scarcest = max(shares, key=lambda name: shares[name])
        if shares[scarcest] > FULL:
            return f"{scarcest}, {shares[scarcest]:.0%} of what it may take"
        # No resource is full, but one may be too full for the next larger geometry.
        group = encodings[config.encoding].trits_per_code
        for lanes, rows in (
            (config.lanes, 2 * config.rows),
            (config.lanes + group * config.fill, config.rows),
        ):
            try:
                larger = replace(config, lanes=lanes, rows=rows)
            except ConfigError:
                continue
            if not self.model.within(larger, self.model.core(larger).luts):
                return "the measured table: nothing much larger was routed"
            more = self.shares(self.cost(larger))
            for name, share in more.items():
                if share > 1:
                    return f"{name}, {shares[name]:.0%} of what it may take"
        return "the layers' shapes"

    def rate(self, candidate: Candidate) -> tuple[int, float, float]:
        """Greater is better: MAC/s in `_steps`, then fewer LUTs, then fewer bits a weight."""
        encoding = encodings[candidate.config.encoding]
        speed = self._steps(candidate.speed, candidate.config.lanes)
        return speed, -candidate.cost.luts, -encoding.code_bits / encoding.trits_per_code

    def best(self, engine: str, encoding: str) -> Candidate | None:
        """The best geometry of an engine and encoding; `None` if none fits."""
        best: Candidate | None = None
        geometries = []
        for lanes, rows, tokens in self._geometries(engine, encoding):
            fill = self._fills(engine, encoding, lanes, tokens)[-1]
            ideal = self._ideal(engine, encoding, lanes, rows, tokens, fill)
            if ideal is not None:
                geometries.append((-ideal, lanes, rows, tokens))
        for ideal, lanes, rows, tokens in sorted(geometries):
            if best is not None and -ideal < self.rate(best)[0]:
                break
            for fill in self._fills(engine, encoding, lanes, tokens):
                speed = self._ideal(engine, encoding, lanes, rows, tokens, fill)
                if speed is None or (best is not None and speed < self.rate(best)[0]):
                    continue
                placed = self._placed(engine, encoding, lanes, rows, tokens, fill)
                new = placed and self.candidate(*placed)
                if new and (best is None or self.rate(new) > self.rate(best)):
                    best = new
                if new and speed == -ideal:
                    break  # faster filling cannot help
        return best

    def _ideal(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int
    ) -> int | None:
        """The rate of a geometry if all that it needs had room; no real rate is greater."""
        config = self.config(engine, encoding, lanes, rows, tokens, fill, self.max_out)
        if config is None:
            return None
        cycles = sum(
            layer.count
            * layer_cycles(config, layer.in_features, layer.out_features, group=layer.group)
            for layer in self.layers
        )
        passes = ceil(self.tokens / tokens)
        rate = self.weights * self.tokens / (cycles * passes) * (self.mhz(config) or 1.0)
        return self._steps(rate, lanes)

    def _placed(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int
    ) -> tuple[AcceleratorConfig, Cost] | None:
        """The geometry with as many outputs as block RAM holds; `None` if it does not fit."""
        most = self.max_out
        while True:
            config = self.config(engine, encoding, lanes, rows, tokens, fill, most)
            placed = None if config is None else self.placed(config)
            if placed or most < 2 * max(LEAST_PIECE, rows):
                return placed
            most = -(-most // 2)

    def _fills(self, engine: str, encoding: str, lanes: int, tokens: int) -> list[int]:
        """The values of `fill` that the engine and the measured table allow, ascending."""
        config = self.config(engine, encoding, lanes, 1, tokens, 1, min(LEAST_PIECE, self.max_out))
        units = 1 if config is None else engines[engine].fill_units(config)
        most = max(1, self.model.most_filled(engine) // tokens)
        return [fill for fill in range(1, min(units, most) + 1) if units % fill == 0]

    def _geometries(self, engine: str, encoding: str) -> Iterator[tuple[int, int, int]]:
        """Lanes, rows and tokens whose core fits if it is filled as slowly as possible."""
        group, code_bits = encodings[encoding].trits_per_code, encodings[encoding].code_bits
        most_codes = min(MAX_CODES, -(-self.max_in // group) * group) // group
        fitting = {-(-layer.in_features // group) for layer in self.layers}
        if self.group:  # the codes of which whole tiles hold a group with the least padding
            most_codes = min(most_codes, -(-self.group // group))
            fitting |= {-(-self.group // (group * tiles)) for tiles in range(1, SMALL + 1)}
        all_rows = _thinned(
            min(MAX_ROWS, self.max_out), {layer.out_features for layer in self.layers}
        )
        for codes in _thinned(most_codes, fitting):
            lanes = codes * group
            rows = all_rows
            if self.word_limit is not None:
                row_bits = codes * code_bits + (0 if self.scale is None else SCALE_BITS)
                rows = [row for row in rows if row * row_bits <= self.word_limit]
            for tokens in useful_tokens(self.tokens):

                def too_large(row: int, lanes: int = lanes, tokens: int = tokens) -> bool:
                    config = self.config(
                        engine, encoding, lanes, row, tokens, 1, min(LEAST_PIECE, self.max_out)
                    )
                    if config is None:
                        return True
                    cost = self.model.core(config)
                    fits = cost.luts <= self.budget.luts and cost.ffs <= self.budget.ffs
                    fits = fits and cost.multipliers <= self.budget.multipliers
                    return not (fits and self.model.within(config, cost.luts))

                fitting_rows = bisect_left(rows, True, key=too_large)
                for row in rows[:fitting_rows]:
                    yield lanes, row, tokens

    def smallest(self) -> tuple[str, Cost]:
        """The smallest accelerator of any engine, and its cost."""
        candidates: list[tuple[float, str, Cost]] = []
        for engine, encoding in self.model.encodings:
            if encodings[encoding].alphabet != self.alphabet:
                continue
            for codes in range(1, 9):
                lanes = codes * encodings[encoding].trits_per_code
                most = min(LEAST_PIECE, self.max_out)
                config = self.config(engine, encoding, lanes, 1, 1, 1, most)
                if config is None or (self.word_limit or config.word_bits) < config.word_bits:
                    continue
                if self.inside and not self.core_only:
                    words = self.words(config)[0] if self.whole else 256
                    config = replace(
                        config, memory=replace(config.memory, words=self.memory_words or words)
                    )
                cost = self.cost(config)
                candidates.append((self.crowding(cost), f"{engine} {encoding} {lanes} × 1", cost))
        if not candidates:
            raise ConfigError(
                f"no engine has weight words of {self.word_limit} bits or fewer; "
                "give more bits a cycle"
            )
        _, name, cost = min(candidates, key=lambda each: each[0])
        return name, cost


def _share(used: int, available: int) -> float:
    """The share that is used; a part may have none."""
    if not available:
        return inf if used else 0.0
    return used / available


def _thinned(most: int, special: set[int]) -> list[int]:
    """Numbers up to `most`, ever fewer, with `most` and all divisors of the special ones."""
    counts = {
        n
        for n in range(1, most + 1)
        if n <= SMALL
        or (n <= MEDIUM and n % MEDIUM_STEP == 0)
        or n % LARGE_STEP == 0
        or any(s % n == 0 for s in special)
    }
    return sorted(counts | {most})


def useful_tokens(tokens: int) -> list[int]:
    """Numbers of tokens at once; each is the smallest that needs its number of weight passes."""
    return sorted(
        {ceil(tokens / ceil(tokens / most)) for most in range(1, min(tokens, MAX_TOKENS) + 1)}
    )
