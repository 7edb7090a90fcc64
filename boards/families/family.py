"""What a family of FPGAs is: its parts, cells, RAM and PLL, and how the open tools build for it.

A package adds a family with one entry point in the group `tritloom.families`:
`name = "module:FAMILY"`, where `FAMILY` is a `Family`. The families that ship are found in the
same way. Nothing here needs Amaranth before a PLL becomes hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import Registry

__all__ = [
    "PLL_TOLERANCE",
    "RESOURCES",
    "TOP",
    "Bitstream",
    "Family",
    "FamilyPart",
    "Measure",
    "Part",
    "Pll",
    "Ram",
    "bitstream_families",
    "family_names",
    "load_family",
    "unreachable_clock",
]

TOP = "top"
"""Name of the top module in every netlist, and the stem of every file that the tools exchange."""
RESOURCES = ("luts", "ffs", "block_rams", "dsps")
"""What is counted of a part, in the order of every report."""
PLL_TOLERANCE = 0.001
"""Largest relative error of a PLL's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a family.

    Members
    -------
    available : how many LUTs, flip-flops, block RAMs and DSPs it has, in the order of `RESOURCES`
    options : nextpnr's options that select the part when an engine is measured
    limit_mhz : the clock that no measured figure may exceed; `None` if the data sheet has none
    grid : columns and rows of tiles, for the floorplan; (1, 1) draws as far as the design reaches
    """

    available: tuple[int, int, int, int]
    options: tuple[str, ...] = ()
    limit_mhz: float | None = None
    grid: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyPart:
    """A part that another package adds to a family: an entry point in the group `tritloom.parts`.

    Members
    -------
    name : part number, as far as it selects the die and the speed grade; also its entry point
    family : name of the family
    part : what it has
    """

    name: str
    family: str
    part: Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Ram:
    """A kind of RAM that yosys maps memories to, as its `brams*.txt` and `lutrams*.txt` have it.

    Members
    -------
    widths : the data widths it can be set to
    bits : its capacity without parity bits
    byte : bits that share a write enable; 0 if the whole word shares one
    cost : yosys's cost of one
    by_width : the part of `cost` that is charged for the used share of the width only
    blocks : how many of the family's block RAMs it takes; 0 for RAM that is made of LUTs
    """

    widths: tuple[int, ...]
    bits: int
    byte: int = 0
    cost: float
    by_width: float = 0.0
    blocks: int = 0

    def words(self, width: int) -> int:
        """Depth at a width. Parity bits add width, not depth: 36 bits are as deep as 32."""
        return self.bits // (1 << (width.bit_length() - 1))


class Pll(Protocol):
    """The dividers of a family's PLL."""

    @property
    def at_pad(self) -> bool:
        """Whether the PLL takes the clock's pad itself, without an input buffer."""

    def instance(self, clock: Any, output: Any, locked: Any, memory: Any = None) -> Any:
        """The PLL's `Instance`.

        Parameters
        ----------
        clock : the oscillator's signal, or its pad where `at_pad`
        output : the signal that the PLL drives with the accelerator's clock
        locked : the signal that the PLL sets once that clock is stable
        memory : the signal that a PLL of `Family.pll_pair` drives with the memory's clock
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Bitstream:
    """How a family's bitstreams are placed, routed and packed.

    Members
    -------
    package : nextpnr's package, and the name of its command
    pack : the command that packs the bitstream; the same package has it
    pack_options : its options
    constraints, bitstream : suffixes of the pin constraints and of the bitstream
    place_options : gets a platform of amaranth-boards; returns nextpnr's options
    shorten_paths : `module:function` that places a design better where it misses its clock
        (contract: `tritloom.gen.passes.place`); empty if the family has none
    large_cells : number of cells from which a design is large; 0 if none is
    large_options : more options of nextpnr for a large design; its paths are not shortened
    """

    package: str
    pack: str
    pack_options: tuple[str, ...]
    constraints: str
    bitstream: str
    place_options: Callable[[Any], list[str]]
    shorten_paths: str = ""
    large_cells: int = 0
    large_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How `tritloom measure` measures an engine on a family.

    Members
    -------
    place : nextpnr's package; empty where no open router supports the family
    constraints : the harness's pins, in nextpnr's format
    finish : yosys's commands for the flat netlist
    target_mhz : the clock that nextpnr aims at
    paired : whether a flip-flop always takes the LUT before it, used or not
    shorten_paths : as in `Bitstream`
    count : cells that only the netlist shows: by name, the `module:function` that counts them
    features : inputs and outputs of the measured layer where none are given
    geometries : the best known geometry by engine and encoding; the first encoding of an engine
        is the default
    """

    place: str = ""
    constraints: str = ""
    finish: str = ""
    target_mhz: int = 0
    paired: bool = False
    shorten_paths: str = ""
    count: Mapping[str, str] = field(default_factory=dict)
    features: tuple[int, int] = (6912, 4096)
    geometries: Mapping[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Everything that the project knows of one FPGA family.

    Members
    -------
    name : as in `--family` and `Board.family`; also its entry point
    parts : by part number, as far as it selects the die and the speed grade; the first one is the
        default, and the one that is measured
    cells : for each of `RESOURCES` the cell types that take it, and how many of it each takes
    variants : beginnings of cell types whose variants count as one type
    synthesis : yosys's scripts; the next one is tried only where yosys itself broke
    passes : netlist passes between synthesis and placement, in order, each `module:function`
    gate_models : Verilog models of the netlist's cells: `+/...` is yosys's, others lie in
        `sim/gates`; empty if the gate level cannot be simulated
    rams : the kinds of RAM
    rom_bit_cost : yosys's cost of a bit of a ROM in logic
    usable_percent : share of the LUTs and flip-flops that a routable design may take
    pll : gets the oscillator's and the wanted frequency in Hz; returns the PLL's dividers, or
        raises `ConfigError`. `None` if no PLL is supported.
    pll_pair : the same for two clocks of one PLL; it gets the oscillator's frequency, the
        accelerator's, and that of the weight memory. `None` if no such PLL is supported.
    bitstream : `None` if there is no open flow to a bitstream
    measure : how engines are measured
    """

    name: str
    parts: Mapping[str, Part]
    cells: Mapping[str, Mapping[str, int]]
    variants: tuple[str, ...] = ()
    synthesis: tuple[str, ...]
    passes: tuple[str, ...] = ()
    gate_models: tuple[str, ...] = ()
    rams: tuple[Ram, ...]
    rom_bit_cost: float = 1 / 16
    usable_percent: int = 80
    pll: Callable[[int, int], Pll] | None = None
    pll_pair: Callable[[int, int, int], Pll] | None = None
    bitstream: Bitstream | None = None
    measure: Measure = field(default_factory=Measure)

    @property
    def block_bits(self) -> int:
        """Bits of a block RAM, parity bits included."""
        return max(
            ram.words(width) * width // ram.blocks
            for ram in self.rams
            for width in ram.widths
            if ram.blocks
        )

    def cell_type(self, cell: str) -> str:
        """A cell's type as `cells` has it: the variants of a flip-flop have one name."""
        return next((name for name in self.variants if cell.startswith(name)), cell)

    def part(self, name: str | None = None) -> tuple[str, Part]:
        """A part and its name in `parts`; without `name` the first one.

        Raises
        ------
        ConfigError : the family has no part of that name; the message lists the known ones
        """
        name = name or next(iter(self.parts))
        if name in self.parts:
            return name, self.parts[name]
        if name in more_parts and more_parts[name].family == self.name:
            return name, more_parts[name].part
        raise ConfigError(
            f"part of {self.name} must be one of {', '.join(self.parts)}, not {name!r}"
        )

    def part_of(self, number: str) -> tuple[str, Part] | None:
        """The part that a vendor's whole part number begins with; `None` if it is not known."""
        for name in (*self.parts, *more_parts):
            if number.startswith(name):
                return self.part(name)
        return None


def unreachable_clock(input_hz: int, *output_hz: int) -> ConfigError:
    """The error for a clock, or several together, that no setting of a PLL gives."""
    wanted = " and ".join(f"{hz} Hz" for hz in output_hz)
    return ConfigError(f"no PLL setting makes {wanted} from {input_hz} Hz; choose another clock_hz")


def _fault(kind: type) -> Callable[[Any], str]:
    def fault(item: Any) -> str:
        return "" if isinstance(item, kind) else f"it is {item!r:.60}, not a {kind.__name__}"

    return fault


families: Registry[Family] = Registry("family", "tritloom.families", _fault(Family))
more_parts: Registry[FamilyPart] = Registry("part", "tritloom.parts", _fault(FamilyPart))


def family_names() -> list[str]:
    """The names of all families that are installed."""
    return list(families)


def bitstream_families() -> list[str]:
    """The names of the installed families that have a flow to a bitstream."""
    return [name for name in family_names() if load_family(name).bitstream is not None]


def load_family(name: str) -> Family:
    """The family of that name.

    Raises
    ------
    ConfigError : there is none (the message lists the known ones), or its package is broken
    """
    return families[name]
