"""Chooses engine, encoding and geometry for a part and a model's layers.

Every geometry that passes the configuration's checks is a candidate. What it takes is predicted
from the measured table (`tritloom.gen.plan.cost`), its cycles are
`AcceleratorConfig.run_cycles` over the layers, its clock is that of the nearest point which was
routed. These decide. What a token takes in all is then given for each candidate
(`tritloom.gen.plan.timing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from tritloom.boards.board import Board, board_names, load_board
from tritloom.boards.families.family import Part, family_names, load_family
from tritloom.gen.measure.table import read_table
from tritloom.gen.plan.cost import Cost, CostModel
from tritloom.gen.plan.records import Candidate, Plan
from tritloom.gen.plan.search import Search
from tritloom.gen.plan.timing import Times, token_times
from tritloom.gen.workloads import Layer
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import FEATURES_LIMIT, OUT_FEATURES_LIMIT, AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Link, engines
from tritloom.rtl.spec.scale_facts import KINDS

__all__ = [
    "board_part",
    "choose",
]


LINK = Uart(baud=1_000_000)
"""The link that is counted where no board says which one there is."""
OVERLAP = 2
"""The most that two banks gain: the longer of RUN and what is done beside it, instead of both."""
LEAST_CLOCK_PERCENT = 50
"""A link that does not work at a clock may work at a lower one: a baud is a whole part of it."""


def board_part(board: Board) -> tuple[str, Part]:
    """The measured part that a board has.

    Raises
    ------
    ConfigError : the project does not know the part
    """
    families = [load_family(name) for name in family_names()]
    for family in families:
        if family.name == board.family and (known := family.part_of(board.part)):
            return known
    raise ConfigError(
        f"the {board.part} of {board.name} is not among the parts that are known: "
        f"{', '.join(name for family in families for name in family.parts)}"
    )


def _like(part: str) -> AcceleratorConfig | None:
    """The accelerator of a board with that part; its packets and layers suit the part."""
    for name in board_names():
        board = load_board(name)
        if board.part.startswith(part):
            return board.config
    return None


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
    scale: str | None = None,
    table: Path | None = None,
) -> Plan:
    """The accelerator whose RUN does the most useful MAC/s on the layers, of all that fit the part.

    Link and host do not decide, because they can be exchanged; `Candidate.times` counts them.

    Equal arguments give equal plans.

    Parameters
    ----------
    family : name of the FPGA family; a board brings its own
    layers : the work
    part : name of the part; without it the family's first one
    board : its family, part, clock, link and packets are used
    weight_bits : bits a cycle from a weight memory outside the chip. Without it the weights lie in
        block RAM: all of them if they fit, else `memory_words` words, else what is left.
    memory_words : words of the weight memory
    tokens : how many tokens each layer computes; the search decides how many at once
    act_bits, alphabet : as in the configuration
    share : percent of the LUTs and flip-flops that the accelerator may take
    core_only : whether the core has the part to itself, as in `tritloom measure engine`
    scale : kind of the scales with which the device multiplies the sums of groups of inputs; None:
        it sends the sums
    table : the measured table; without it the one that ships

    Raises
    ------
    ConfigError : nothing fits, and the message names what is short; or an argument is wrong
    """
    if board is not None:
        family = board.family
        name, facts = board_part(board)
    else:
        name, facts = load_family(family).part(part)
    _check(layers, tokens, weight_bits, share)
    if scale is not None and scale not in KINDS:
        raise ConfigError(f"scale must be one of {', '.join(KINDS)}, not {scale!r}")
    if scale is not None and not all(layer.group for layer in layers):
        raise ConfigError("scale needs layers with groups of inputs; give their group")
    if alphabet not in ALPHABETS:
        raise ConfigError(f"alphabet must be one of {', '.join(ALPHABETS)}, not {alphabet!r}")
    if act_bits not in (4, 8):
        raise ConfigError(f"act_bits must be 4 or 8, not {act_bits}")
    model = CostModel(family, read_table() if table is None else read_table(table))
    like = board.config if board is not None else _like(name)
    names = ("max_layers", "packet_bytes", "slots", "clock_hz")
    base = {key: getattr(like, key) for key in names} if like is not None else {}
    base = {"packet_bytes": 1024, **base} if not core_only else {"packet_bytes": 4096}
    percent = share or load_family(family).usable_percent
    luts, ffs, block_rams, multipliers = facts.available
    budget = Cost(luts * percent // 100, ffs * percent // 100, block_rams, multipliers)
    inside = weight_bits is None and not core_only

    def search_with(whole: bool, banks: int) -> Search:
        return Search(
            model=model,
            part=name,
            layers=tuple(layers),
            tokens=tokens,
            act_bits=act_bits,
            alphabet=alphabet,
            budget=budget,
            word_limit=weight_bits,
            memory=BlockRam(words=1),
            link=LINK if board is None else board.link,
            memory_words=memory_words or 0,
            core_only=core_only,
            inside=inside,
            whole=whole,
            clock_hz=None if board is None else board.config.clock_hz,
            base=base | {"banks": banks},
            scale=scale,
        )

    # Only if the densest encoding of all weights fits the block RAM can they all lie in the part.
    known = [encodings[each] for _, each in model.encodings if encodings[each].alphabet == alphabet]
    densest = min((each.code_bits / each.trits_per_code for each in known), default=1.0)
    holds_all = block_rams * load_family(family).block_bits >= densest * sum(
        layer.weights for layer in layers
    )
    whole = not inside or (memory_words is None and holds_all)
    for all_inside in (True, False) if whole and inside else (whole,):
        search = search_with(all_inside, 1 if core_only else 2)
        ranked = _ranked(search)
        if not core_only and (not ranked or search.fills_block_ram(ranked[0])):
            search_one = search_with(all_inside, 1)
            one = _ranked(search_one)
            if one and (not ranked or one[0].speed > OVERLAP * ranked[0].speed):
                search, ranked = search_one, one
        if ranked:
            break
    else:
        raise ConfigError(_short(search if core_only else search_one))
    if not core_only:
        ranked = tuple(replace(each, times=_times(search, each)) for each in ranked)
    notes = tuple(_notes(search, ranked[0], board))
    return Plan(family, name, budget, ranked, notes, search.link)


def _times(search: Search, candidate: Candidate) -> Times | None:
    """What all tokens take end to end; `None` without a clock."""
    if candidate.mhz is None:
        return None
    config = _at_clock(candidate.config, search.link, round(candidate.mhz * 1e6))
    if config is None:
        return None
    return token_times(
        config, search.layers, tokens=search.tokens, holds_all=not search.inside or search.whole
    )


def _at_clock(config: AcceleratorConfig, link: Link, clock_hz: int) -> AcceleratorConfig | None:
    """The configuration at the highest clock, in steps of a hundredth, at which the link works."""
    for percent in range(100, LEAST_CLOCK_PERCENT - 1, -1):
        try:
            return replace(config, link=link, clock_hz=clock_hz * percent // 100)
        except ConfigError:
            continue
    return None


def _check(
    layers: Sequence[Layer], tokens: int, weight_bits: int | None, share: int | None
) -> None:
    if not layers:
        raise ConfigError("layers must be at least one, not none")
    for layer in layers:
        for what, features, limit in (
            ("in", layer.in_features, FEATURES_LIMIT),
            ("out", layer.out_features, OUT_FEATURES_LIMIT),
        ):
            if not 1 <= features <= limit:
                raise ConfigError(
                    f"{what}_features of {layer.name} must be 1 to {limit}, not {features}"
                )
        if layer.group and layer.in_features % layer.group:
            raise ConfigError(
                f"group must divide the {layer.in_features} inputs of {layer.name}, "
                f"not be {layer.group}"
            )
    for what, value, most in (
        ("tokens", tokens, 1 << 20),
        ("weight_bits", weight_bits, 1 << 20),
        ("share", share, 100),
    ):
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{what} must be 1 to {most}, not {value}")


def _ranked(search: Search) -> tuple[Candidate, ...]:
    candidates = [
        candidate
        for engine, encoding in search.model.encodings
        if encodings[encoding].alphabet == search.alphabet
        if (candidate := search.best(engine, encoding)) is not None
    ]
    bounded = [replace(candidate, bound=search.bound(candidate)) for candidate in candidates]
    return tuple(sorted(bounded, key=search.rate, reverse=True))


def _short(search: Search) -> str:
    name, cost = search.smallest()
    shares = search.shares(cost)
    scarcest = max(shares, key=lambda resource: shares[resource])
    used, there = {
        "LUTs": (cost.luts, search.budget.luts),
        "flip-flops": (cost.ffs, search.budget.ffs),
        "block RAM": (cost.block_rams, search.budget.block_rams),
        "multipliers": (cost.multipliers, search.budget.multipliers),
    }[scarcest]
    remedy = "take a larger part"
    if scarcest == "block RAM":
        remedy += ", fewer memory words or features"
    elif scarcest != "multipliers":
        remedy += " or a larger share of it"
    return (
        f"nothing fits the {search.part}: even {name} takes {ceil(used):,} of {there:,.0f} "
        f"{scarcest}; {remedy}"
    )


def _notes(search: Search, best: Candidate, board: Board | None) -> Iterator[str]:
    config = best.config
    measured = {engine for engine, _ in search.model.encodings}
    if unmeasured := [name for name in engines if name not in measured]:
        yield (
            f"not considered, as nothing of it is measured on {search.model.family}: "
            f"{', '.join(unmeasured)}"
        )
    if search.core_only:
        return
    words = search.words(config)[0]
    if not search.inside:
        yield (
            f"weights come from outside the chip, {config.word_bits} bits a cycle: the "
            "configuration's `memory` must name one, such as axi or sdram"
        )
    elif words > config.memory_words:
        yield (
            f"the model's {words:,} words do not all lie in the chip: planned with "
            f"{config.memory_words:,}, loaded piece by piece for every token"
        )
    if best.mhz is None:
        yield "no clock was measured for this family: ranked by MAC/cycle, and no time is known"
    elif board is not None and best.mhz < board.config.clock_hz / 1e6:
        yield f"the engine reaches {best.mhz:g} MHz: set clock_hz to no more"
    if config.banks == 1:
        yield (
            "block RAM is short for two banks: the device loads, computes and reads one after the "
            "other"
        )
