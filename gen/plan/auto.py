"""Chooses engine, encoding and geometry for a part and a model's layers.

Every geometry that passes the configuration's checks is a candidate. What it takes is predicted
from the measured table (``tritloom.gen.plan.cost``), its cycles are
``AcceleratorConfig.run_cycles`` over the layers, its clock is that of the nearest point which was
routed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, log
from pathlib import Path
from typing import Any

from tritloom.boards.board import Board, board_names, load_board
from tritloom.boards.families.family import Part, family_names, load_family
from tritloom.gen.measure.table import read_table
from tritloom.gen.plan.cost import Cost, CostModel, weight_blocks
from tritloom.gen.workloads import MIXES, layer_cycles
from tritloom.host.models.run import find_model
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import FEATURES_LIMIT, AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines

__all__ = [
    "Candidate",
    "Layer",
    "Plan",
    "choose",
    "model_layers",
    "utilization",
]

FILLING = 0.1
"""Share of the cycles that filling must cost to be what bounds a candidate."""
FULL = 0.85
"""Share of its budget from which a resource is what bounds a candidate."""
SAME_RATE = 0.01
"""Of rates: less is no difference, a clock differs by more from one placement to another."""
LEAST_PART = 64
"""Outputs that a part of a layer has at least, where partial sums do not hold all of them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """``count`` layers of one shape."""

    name: str
    in_features: int
    out_features: int
    count: int = 1

    @property
    def weights(self) -> int:
        return self.in_features * self.out_features * self.count


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration with what is predicted of it.

    Members
    -------
    cost : LUTs, flip-flops and block RAMs: of all that counts against the budget
    cycles : of all layers, for all tokens
    mac_per_cycle : useful ones, over the layers
    utilization : of the geometry's peak
    mhz : clock, ``None`` where none of the family was routed
    bound : what keeps it from more, in words
    """

    config: AcceleratorConfig
    cost: Cost
    cycles: int
    mac_per_cycle: float
    utilization: float
    mhz: float | None
    bound: str

    @property
    def gmac_per_s(self) -> float | None:
        return None if self.mhz is None else self.mac_per_cycle * self.mhz / 1e3

    def to_dict(self) -> dict[str, Any]:
        rate = self.gmac_per_s
        return {
            "engine": self.config.engine,
            "encoding": self.config.encoding,
            "lanes": self.config.lanes,
            "rows": self.config.rows,
            "tokens": self.config.tokens,
            "fill": self.config.fill,
            "word_bits": self.config.word_bits,
            "memory_words": self.config.memory_words,
            "luts": round(self.cost.luts),
            "ffs": round(self.cost.ffs),
            "block_rams": self.cost.block_rams,
            "cycles": self.cycles,
            "mac_per_cycle_peak": self.config.macs_per_cycle,
            "mac_per_cycle": round(self.mac_per_cycle, 2),
            "utilization": round(self.utilization, 4),
            "mhz": self.mhz,
            "gmac_per_s": None if rate is None else round(rate, 3),
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The choice for a part: ``ranked`` has the best of each engine and encoding, best first.

    ``budget``: what the whole may take. ``notes``: what the reader must know, a line each.
    """

    family: str
    part: str
    budget: Cost
    ranked: tuple[Candidate, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Candidate:
        return self.ranked[0]

    @property
    def config(self) -> AcceleratorConfig:
        return self.best.config

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "part": self.part,
            "budget": {
                "luts": int(self.budget.luts),
                "ffs": int(self.budget.ffs),
                "block_rams": self.budget.block_rams,
            },
            "notes": list(self.notes),
            "candidates": [each.to_dict() for each in self.ranked],
            "config": self.config.to_dict(),
        }


def model_layers(model: str) -> list[Layer]:
    """The ternary layers of a model, those of one shape together.

    ``model``: a name of ``MIXES``, else a folder as ``tritloom run`` takes it, with the layers that
    it runs (q/k/v, and gate/up, as one). ``CheckpointError`` if there is none of that name.
    """
    if model in MIXES:
        return [Layer(*layer) for layer in MIXES[model][1]]
    from tritloom.host.checkpoints.huggingface import load_checkpoint
    from tritloom.host.models.bitnet import BitNetModel

    path = find_model(model)
    found = BitNetModel(load_checkpoint(path)).layers
    names: dict[tuple[int, int], str] = {}
    counts = Counter[tuple[int, int]]()
    for name, layer in found.items():
        shape = layer.in_features, layer.out_features
        names.setdefault(shape, name.rpartition(".")[2])
        counts[shape] += 1
    return [Layer(names[shape], *shape, count) for shape, count in counts.items()]


def utilization(config: AcceleratorConfig, layers: Sequence[Layer]) -> float:
    """Useful MACs of the layers ÷ the peak of the cycles that they take by the formula."""
    cycles = sum(
        layer.count * layer_cycles(config, layer.in_features, layer.out_features)
        for layer in layers
    )
    macs = sum(layer.weights for layer in layers) * config.tokens
    return macs / (cycles * config.macs_per_cycle)


def board_part(board: Board) -> tuple[str, Part]:
    """The measured part that a board has; ``ConfigError`` if it is none."""
    families = [load_family(name) for name in family_names()]
    for family in families:
        if family.name == board.family and (known := family.part_of(board.part)):
            return known
    raise ConfigError(
        f"the {board.part} of {board.name} is not among the parts that are known: "
        f"{', '.join(name for family in families for name in family.parts)}"
    )


def _like(part: str) -> AcceleratorConfig | None:
    """The accelerator of a board with that part, for the packets and layers that suit it."""
    for name in board_names():
        board = load_board(name)
        if board.part.startswith(part):
            return board.config
    return None


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What is asked; ``word_limit`` is in bits, ``memory_words`` 0 where it follows."""

    model: CostModel
    part: str
    layers: tuple[Layer, ...]
    tokens: int
    act_bits: int
    alphabet: str
    budget: Cost
    word_limit: int | None
    memory_words: int
    core_only: bool
    inside: bool
    whole: bool
    clock_hz: int | None
    base: dict[str, Any]

    @cached_property
    def max_in(self) -> int:
        return max(layer.in_features for layer in self.layers)

    @cached_property
    def max_out(self) -> int:
        return max(layer.out_features for layer in self.layers)

    @cached_property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    def config(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int, most: int
    ) -> AcceleratorConfig | None:
        """A geometry with its weight memory not yet known; ``None`` if it is none."""
        word = rows * lanes // encodings[encoding].trits_per_code * encodings[encoding].code_bits
        # Bytes of the widest thing in a packet, at most; its header and checksum are 20.
        needed = max(word // 8 + 1, fill, 4 * rows) + 20
        packet_bytes = max(self.base["packet_bytes"], 1 << (needed - 1).bit_length())
        try:
            return AcceleratorConfig(
                **self.base | {"packet_bytes": packet_bytes},
                engine=engine,
                encoding=encoding,
                lanes=lanes,
                rows=rows,
                tokens=tokens,
                fill=fill,
                act_bits=self.act_bits,
                alphabet=self.alphabet,
                memory=BlockRam(words=1),
                max_in_features=self.max_in,
                max_out_features=most,
            )
        except ConfigError:
            return None

    def words(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Weight words of all layers, and in how many pieces the device has them."""
        words = pieces = 0
        for layer in self.layers:
            whole, rest = divmod(layer.out_features, config.max_out_features)
            for out_features, times in ((config.max_out_features, whole), (rest, 1)):
                if out_features and times:
                    shape = LayerShape.of(config, out_features, layer.in_features)
                    words += shape.words * times * layer.count
                    pieces += times * layer.count
        return words, pieces

    def cycles(self, config: AcceleratorConfig) -> int | None:
        """Of all layers for all tokens; ``None`` if the weight memory does not hold one group."""
        passes = ceil(self.tokens / config.tokens)
        total = 0
        for layer in self.layers:
            most = None
            if self.inside and not self.whole:
                groups = config.memory_words // -(-layer.in_features // config.lanes)
                most = groups * config.rows
                if not groups:
                    return None
            total += layer.count * layer_cycles(config, layer.in_features, layer.out_features, most)
        return total * passes

    def cost(self, config: AcceleratorConfig) -> Cost:
        core = self.model.core(config)
        return core if self.core_only else core + self.model.around(config, weights=self.inside)

    def placed(self, config: AcceleratorConfig) -> tuple[AcceleratorConfig, Cost] | None:
        """With its weight memory and what it takes; ``None`` if it does not fit."""
        if self.core_only:
            cost = self.cost(config)
            return (config, cost) if self.fits(cost) else None
        words, pieces = self.words(config)
        layers = min(max(config.max_layers, pieces), 256)
        if self.inside and self.whole and pieces > layers:
            return None
        words = self.memory_words or min(words, 1 << 24)
        config = replace(config.with_words(words), max_layers=layers)
        if self.inside:
            free = self.budget.block_rams - self.model.blocks(config)
            if not self.whole and not self.memory_words:
                words = min(words, self._held(config, free))
                if words == 0:
                    return None
                config = config.with_words(words)
            elif weight_blocks(self.model.family, config) > free:
                return None
        cost = self.cost(config)
        return (config, cost) if self.fits(cost) else None

    def _held(self, config: AcceleratorConfig, blocks: int) -> int:
        """Most words that so many blocks hold: whole banks, else a half or a quarter of one."""
        bank = BlockRam.BANK_WORDS
        one = weight_blocks(self.model.family, config.with_words(bank))
        if blocks >= one:
            return blocks // one * bank
        for words in (bank // 2, bank // 4):
            if weight_blocks(self.model.family, config.with_words(words)) <= blocks:
                return words
        return 0

    def fits(self, cost: Cost) -> bool:
        return self.crowding(cost) <= 1

    def crowding(self, cost: Cost) -> float:
        return max(self.shares(cost).values())

    def shares(self, cost: Cost) -> dict[str, float]:
        """Of the budget, by resource; more than 1 does not fit."""
        return {
            "LUTs": cost.luts / self.budget.luts,
            "flip-flops": cost.ffs / self.budget.ffs,
            "block RAM": cost.block_rams / self.budget.block_rams,
        }

    def mhz(self, config: AcceleratorConfig) -> float | None:
        """The board's clock, where the engine reaches it; else the nearest measured one."""
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
        """What keeps a candidate from more."""
        config = candidate.config
        engine = engines[config.engine]
        filling = 0
        for layer in self.layers:
            shape = LayerShape.of(config, layer.out_features, layer.in_features)
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
        # Not full, but perhaps too full for the next step.
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
        """The greater the better: MAC/s, then fewer LUTs, then fewer bits a weight."""
        encoding = encodings[candidate.config.encoding]
        speed = _steps(candidate.mac_per_cycle * (candidate.mhz or 1.0))
        return speed, -candidate.cost.luts, -encoding.code_bits / encoding.trits_per_code

    def best(self, engine: str, encoding: str) -> Candidate | None:
        """The best geometry of an engine and encoding; ``None`` if none fits."""
        found: Candidate | None = None
        geometries = []
        for lanes, rows, tokens in self._geometries(engine, encoding):
            fill = self._fills(engine, encoding, lanes, tokens)[-1]
            ideal = self._ideal(engine, encoding, lanes, rows, tokens, fill)
            if ideal is not None:
                geometries.append((-ideal, lanes, rows, tokens))
        for ideal, lanes, rows, tokens in sorted(geometries):
            if found is not None and -ideal < self.rate(found)[0]:
                break
            for fill in self._fills(engine, encoding, lanes, tokens):
                speed = self._ideal(engine, encoding, lanes, rows, tokens, fill)
                if speed is None or (found is not None and speed < self.rate(found)[0]):
                    continue
                placed = self._placed(engine, encoding, lanes, rows, tokens, fill)
                new = placed and self.candidate(*placed)
                if new and (found is None or self.rate(new) > self.rate(found)):
                    found = new
                if new and speed == -ideal:
                    break  # faster filling is of no use
        return found

    def _ideal(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int
    ) -> int | None:
        """More than this the rate of a geometry cannot be: with room for all that it needs."""
        config = self.config(engine, encoding, lanes, rows, tokens, fill, self.max_out)
        if config is None:
            return None
        cycles = sum(
            layer.count * layer_cycles(config, layer.in_features, layer.out_features)
            for layer in self.layers
        )
        passes = ceil(self.tokens / tokens)
        return _steps(self.weights * self.tokens / (cycles * passes) * (self.mhz(config) or 1.0))

    def _placed(
        self, engine: str, encoding: str, lanes: int, rows: int, tokens: int, fill: int
    ) -> tuple[AcceleratorConfig, Cost] | None:
        """With as many outputs at once as block RAM holds; ``None`` if it does not fit."""
        most = self.max_out
        while True:
            config = self.config(engine, encoding, lanes, rows, tokens, fill, most)
            placed = None if config is None else self.placed(config)
            if placed or most < 2 * max(LEAST_PART, rows):
                return placed
            most = -(-most // 2)

    def _fills(self, engine: str, encoding: str, lanes: int, tokens: int) -> list[int]:
        units = lanes // encodings[encoding].trits_per_code if engine == "table" else lanes
        most = max(1, self.model.most_filled(engine) // tokens)
        return [fill for fill in range(1, min(units, most) + 1) if units % fill == 0]

    def _geometries(self, engine: str, encoding: str) -> Iterator[tuple[int, int, int]]:
        """Lanes, rows and tokens of which the core's logic fits with the slowest filling."""
        group, code_bits = encodings[encoding].trits_per_code, encodings[encoding].code_bits
        most_codes = min(1024, -(-self.max_in // group) * group) // group
        fitting = {-(-layer.in_features // group) for layer in self.layers}
        all_rows = _thinned(min(256, self.max_out), {layer.out_features for layer in self.layers})
        for codes in _thinned(most_codes, fitting):
            lanes = codes * group
            rows = all_rows
            if self.word_limit is not None:
                rows = [row for row in rows if row * codes * code_bits <= self.word_limit]
            for tokens in _useful_tokens(self.tokens):

                def too_large(row: int, lanes: int = lanes, tokens: int = tokens) -> bool:
                    config = self.config(
                        engine, encoding, lanes, row, tokens, 1, min(LEAST_PART, self.max_out)
                    )
                    if config is None:
                        return True
                    cost = self.model.core(config)
                    fits = cost.luts <= self.budget.luts and cost.ffs <= self.budget.ffs
                    return not (fits and self.model.within(config, cost.luts))

                fitting_rows = bisect_left(rows, True, key=too_large)
                for row in rows[:fitting_rows]:
                    yield lanes, row, tokens

    def smallest(self) -> tuple[str, Cost]:
        """What is nearest to fitting, and what it takes."""
        found: list[tuple[float, str, Cost]] = []
        for engine, encoding in self.model.encodings:
            if encodings[encoding].alphabet != self.alphabet:
                continue
            for codes in range(1, 9):
                lanes = codes * encodings[encoding].trits_per_code
                most = min(LEAST_PART, self.max_out)
                config = self.config(engine, encoding, lanes, 1, 1, 1, most)
                if config is None or (self.word_limit or config.word_bits) < config.word_bits:
                    continue
                if self.inside and not self.core_only:
                    words = self.words(config)[0] if self.whole else 256
                    config = replace(
                        config, memory=replace(config.memory, words=self.memory_words or words)
                    )
                cost = self.cost(config)
                found.append((self.crowding(cost), f"{engine} {encoding} {lanes} × 1", cost))
        if not found:
            raise ConfigError(
                f"no engine has weight words of {self.word_limit} bits or fewer; "
                "give more bits a cycle"
            )
        _, name, cost = min(found, key=lambda each: each[0])
        return name, cost


def _steps(rate: float) -> int:
    """Rates that differ by less than about ``SAME_RATE`` are one: a tie."""
    return round(log(rate) / SAME_RATE)


def _thinned(most: int, special: set[int]) -> list[int]:
    """Numbers up to ``most``: all small ones, then ever fewer; and what divides ``special``."""
    kept = {
        n
        for n in range(1, most + 1)
        if n <= 12 or (n <= 64 and n % 4 == 0) or n % 16 == 0 or any(s % n == 0 for s in special)
    }
    return sorted(kept | {most})


def _useful_tokens(tokens: int) -> list[int]:
    """Tokens at once, each the least for a number of passes."""
    return sorted({ceil(tokens / ceil(tokens / most)) for most in range(1, min(tokens, 16) + 1)})


def choose(
    family: str,
    layers: Sequence[Layer],
    *,
    part: str | None = None,
    board: Board | None = None,
    weight_bits: int | None = None,
    memory_words: int | None = None,
    tokens: int = 1,
    act_bits: int = 8,
    alphabet: str = "ternary",
    share: int | None = None,
    core_only: bool = False,
    table: Path | None = None,
) -> Plan:
    """The accelerator that does the most useful MAC/s on the layers, of all that fit the part.

    ``part``: the family's first where none is given; ``board`` says family, part, clock, packets.
    ``weight_bits``: what a weight memory outside the chip brings a cycle. Without it the weights
    lie in block RAM: all of them, else in ``memory_words`` words, else in what is left. ``tokens``
    of each layer are computed, as many at once as pays. ``share``: percent of the LUTs and
    flip-flops that all of it may take. ``core_only``: the core has the part for itself, as in
    ``tritloom measure engine``.

    Equal arguments give equal plans. ``ConfigError`` where nothing fits, names what is short.
    """
    if board is not None:
        family = board.family
        name, facts = board_part(board)
    else:
        name, facts = load_family(family).part(part)
    _check(layers, tokens, weight_bits, share)
    if alphabet not in ALPHABETS:
        raise ConfigError(f"alphabet must be one of {', '.join(ALPHABETS)}, not {alphabet!r}")
    if act_bits not in (4, 8):
        raise ConfigError(f"act_bits must be 4 or 8, not {act_bits}")
    model = CostModel(family, read_table() if table is None else read_table(table))
    like = board.config if board is not None else _like(name)
    kept = ("max_layers", "packet_bytes", "slots", "clock_hz")
    base = {key: getattr(like, key) for key in kept} if like is not None else {}
    base = {"packet_bytes": 1024, **base} if not core_only else {"packet_bytes": 4096}
    percent = share or load_family(family).usable_percent
    luts, ffs, block_rams, _ = facts.available
    budget = Cost(luts * percent // 100, ffs * percent // 100, block_rams)
    inside = weight_bits is None and not core_only

    def search(whole: bool) -> _Search:
        return _Search(
            model=model,
            part=name,
            layers=tuple(layers),
            tokens=tokens,
            act_bits=act_bits,
            alphabet=alphabet,
            budget=budget,
            word_limit=weight_bits,
            memory_words=memory_words or 0,
            core_only=core_only,
            inside=inside,
            whole=whole,
            clock_hz=None if board is None else board.config.clock_hz,
            base=base,
        )

    # Words of no engine are denser than the weights themselves.
    known = [encodings[each] for _, each in model.encodings if encodings[each].alphabet == alphabet]
    densest = min((each.code_bits / each.trits_per_code for each in known), default=1.0)
    held = block_rams * load_family(family).block_bits >= densest * sum(
        layer.weights for layer in layers
    )
    asked = search(whole=not inside or (memory_words is None and held))
    ranked = _ranked(asked)
    if not ranked and asked.inside and asked.whole:
        asked = search(whole=False)
        ranked = _ranked(asked)
    if not ranked:
        raise ConfigError(_short(asked))
    return Plan(family, name, budget, ranked, tuple(_notes(asked, ranked[0], board)))


def _check(
    layers: Sequence[Layer], tokens: int, weight_bits: int | None, share: int | None
) -> None:
    if not layers:
        raise ConfigError("layers must be at least one, not none")
    for layer in layers:
        for what, features in (("in", layer.in_features), ("out", layer.out_features)):
            if not 1 <= features <= FEATURES_LIMIT:
                raise ConfigError(
                    f"{what}_features of {layer.name} must be 1 to {FEATURES_LIMIT}, not {features}"
                )
    for what, value, most in (
        ("tokens", tokens, 1 << 20),
        ("weight_bits", weight_bits, 1 << 20),
        ("share", share, 100),
    ):
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{what} must be 1 to {most}, not {value}")


def _ranked(asked: _Search) -> tuple[Candidate, ...]:
    found = [
        candidate
        for engine, encoding in asked.model.encodings
        if encodings[encoding].alphabet == asked.alphabet
        if (candidate := asked.best(engine, encoding)) is not None
    ]
    told = [replace(candidate, bound=asked.bound(candidate)) for candidate in found]
    return tuple(sorted(told, key=asked.rate, reverse=True))


def _short(asked: _Search) -> str:
    name, cost = asked.smallest()
    shares = asked.shares(cost)
    scarcest = max(shares, key=lambda resource: shares[resource])
    taken, there = {
        "LUTs": (cost.luts, asked.budget.luts),
        "flip-flops": (cost.ffs, asked.budget.ffs),
        "block RAM": (cost.block_rams, asked.budget.block_rams),
    }[scarcest]
    remedy = "take a larger part"
    if scarcest == "block RAM":
        remedy += ", fewer memory words or features"
    else:
        remedy += " or a larger share of it"
    return (
        f"nothing fits the {asked.part}: even {name} takes {ceil(taken):,} of {there:,.0f} "
        f"{scarcest}; {remedy}"
    )


def _notes(asked: _Search, best: Candidate, board: Board | None) -> Iterator[str]:
    config = best.config
    if asked.core_only:
        return
    words = asked.words(config)[0]
    if not asked.inside:
        yield (
            f"weights come from outside the chip, {config.word_bits} bits a cycle; no such memory "
            "ships yet: the configuration's `memory` must name a plug-in"
        )
    elif words > config.memory_words:
        yield (
            f"the model's {words:,} words do not all lie in the chip: planned with "
            f"{config.memory_words:,}, loaded piece by piece; loading is not in these figures"
        )
    if best.mhz is None:
        yield "no clock was measured for this family: ranked by MAC/cycle"
    elif board is not None and best.mhz < board.config.clock_hz / 1e6:
        yield f"the engine reaches {best.mhz:g} MHz: set clock_hz to no more"
