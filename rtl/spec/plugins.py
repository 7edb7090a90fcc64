"""What a plug-in says of itself: dot engines, weight memories and links.

A plug-in is one file and one entry point: `name = "module:object"` in the group
`tritloom.engines`, `tritloom.memories`, `tritloom.links` or `tritloom.encodings`. The object holds
facts alone and names the hardware as `component`, `module:Class`, which is imported only when
hardware is made. A host without Amaranth can therefore read every configuration, if the plug-in's
module imports Amaranth no sooner than its component is asked for; those that ship keep the facts in
a file of their own, `*_facts.py`.

The contracts of the components are `DotEngine` (`tritloom.rtl.engines.contract`), `WeightMemory`
(`tritloom.rtl.memories.contract`) and `PacketLink` (`tritloom.rtl.links.contract`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import Registry

__all__ = [
    "ACT_LATENCY",
    "LAYOUT",
    "MAX_MEMORY_WORDS",
    "MEMORY_DOMAIN",
    "Config",
    "Engine",
    "Link",
    "Memory",
    "Record",
    "Storage",
    "adder_tree_bits",
    "engines",
    "links",
    "memories",
    "record_of",
    "require",
    "require_integer",
]

ACT_LATENCY = 3
"""Cycles from an engine's `act_address` to `i_act`: memory, its register, one for the wires."""
MAX_MEMORY_WORDS = 1 << 28
"""Most words of a weight memory; BitNet b1.58 2B-4T has 52 million words of 64 bits."""
MEMORY_DOMAIN = "memory"
"""The clock domain of a weight memory's logic that has a clock of its own."""
NO_PINS: Mapping[str, str] = MappingProxyType({})
NO_CLOCKS: Mapping[str, int] = MappingProxyType({})


class Config(Protocol):
    """What a plug-in may ask of a configuration (`tritloom.rtl.spec.config.AcceleratorConfig`)."""

    @property
    def lanes(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def fill(self) -> int: ...
    @property
    def act_bits(self) -> int: ...
    @property
    def encoding(self) -> str: ...
    @property
    def memory_words(self) -> int: ...
    @property
    def max_in_features(self) -> int: ...
    @property
    def max_out_features(self) -> int: ...
    @property
    def max_layers(self) -> int: ...
    @property
    def packet_bytes(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def clock_hz(self) -> int: ...
    @property
    def word_bits(self) -> int: ...
    @property
    def max_tiles(self) -> int: ...
    @property
    def max_row_groups(self) -> int: ...
    @property
    def activation_words(self) -> int: ...


LAYOUT = MappingProxyType({"layout": True})
"""Marks a field of a record that decides how a driver packs data: part of the layout digest."""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise `ConfigError` unless the value is an integer from `low` to `high`."""
    if type(value) is not int:
        raise ConfigError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise ConfigError(f"{name} must be {low} to {high}, not {value}")


def adder_tree_bits(terms: int, bits: int) -> tuple[int, int]:
    """Bits of all adders, and of all registers, of an `adder_tree` of `terms` terms.

    Every level adds pairs, makes each sum a bit wider than its terms, and has registers.
    """
    adders = registers = 0
    while terms > 1:
        bits += 1
        adders += terms // 2 * bits
        terms = -(-terms // 2)
        registers += terms * bits
    return adders, registers


@dataclass(frozen=True, slots=True)
class Storage:
    """A memory in the hardware, with one port to read and one to write.

    Parameters
    ----------
    width : bits of a word
    words : how many words it has
    fields : equal fields of a word that are written separately
    rom : whether it is only read
    number : how many such memories there are
    """

    width: int
    words: int
    fields: int = 1
    rom: bool = False
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Facts of a dot engine.

    Parameters
    ----------
    name : as in a configuration; also its entry point
    component : its hardware, a `DotEngine`, as `module:Class`
    encodings : the weight encodings that it takes
    latency : configuration → cycles from an accepted weight word to its sums
    fill_cycles : configuration → cycles from a layer's start to its first tile being ready
    tile_cycles : configuration → least cycles from one tile's first word to the next tile's, as far
        as loading the tiles bounds it
    reload_cycles : configuration → cycles from a tile's last word to the next tile being ready, if
        the engine cannot load it sooner; else 0
    code_stride : configuration → how far apart the inputs of one code lie
    check : raises `ConfigError` for a geometry that the engine cannot have
    storage : configuration → the memories in the engine
    cost_features : configuration → what its LUTs and flip-flops depend on beside `storage` and the
        rest of the core, in bits by name. The names are the same for every configuration. The
        weight of each is fitted to measured engines of this name.
    fill_units : configuration → what the engine fills `fill` of at a time; `fill` divides it
    """

    name: str
    component: str
    encodings: tuple[str, ...]
    latency: Callable[[Config], int]
    fill_cycles: Callable[[Config], int]
    tile_cycles: Callable[[Config], int]
    reload_cycles: Callable[[Config], int] = lambda config: 0
    code_stride: Callable[[Config], int] = lambda config: 1
    check: Callable[[Config], None] = lambda config: None
    storage: Callable[[Config], tuple[Storage, ...]] = lambda config: ()
    cost_features: Callable[[Config], dict[str, float]] = lambda config: {}
    fill_units: Callable[[Config], int] = lambda config: config.lanes


@dataclass(frozen=True, kw_only=True)
class Record:
    """A plug-in's part of a configuration: a subclass adds fields, all with JSON values.

    In a configuration's JSON it is an object with `kind`, the plug-in's name, and the fields.
    """

    name: ClassVar[str]
    component: ClassVar[str]
    pins: ClassVar[Mapping[str, str]] = NO_PINS
    """What each member of the component beyond its contract means: pads that the accelerator
    forwards, and that a board ties to its pins."""
    resource: ClassVar[str] = ""
    """The kind of a board's resource that has the pins for these pads, such as `uart`."""
    clocks: ClassVar[Mapping[str, int]] = NO_CLOCKS
    """Pads of that resource that are clocks, and their frequencies in Hz."""
    tie: ClassVar[str] = ""
    """What puts buffers between the pads and such a resource, as `module:function`; it gets the
    board's module, the accelerator, the resource's ports, and the board's options for them.
    `tritloom.boards.pins` has ours."""

    def title(self) -> str:
        """What a person calls it, with its settings; empty if there is nothing to say."""
        return self.name

    def to_dict(self) -> dict[str, Any]:
        """`kind` and every field."""
        return {"kind": self.name} | {f.name: getattr(self, f.name) for f in fields(self)}

    def storage(self, config: Config) -> tuple[Storage, ...]:
        """The memories in the component."""
        return ()

    def layout_dict(self) -> dict[str, Any]:
        """The fields that are marked as layout; `kind` beside them if there are any."""
        marked = {
            f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("layout", False)
        }
        return {"kind": self.name} | marked if marked else {}


@dataclass(frozen=True, kw_only=True)
class Memory(Record):
    """A weight memory in a configuration. `component` is a `WeightMemory`.

    The methods read the memory's own fields from `self`. They may be asked about a memory that is
    not `config.memory`.

    Parameters
    ----------
    words : weight words that it holds
    """

    model: ClassVar[str] = ""
    """What stands for the chip at the pads in a simulation, as `module:Class`: a `MemoryModel`
    (`tritloom.sim.models.contract`). Empty for a memory without pads; a simulation holds the inputs
    of other memories without a model at 0."""

    bench: ClassVar[str] = ""
    """What `tritloom verify` puts at the pads, as `module:function`: it is called in cocotb, as
    `tritloom.sim.verify.axi.attach` is. Empty: the benches hold the pads' inputs at 0."""

    words: int = field(metadata=LAYOUT)

    void_remedy: ClassVar[str] = (
        "try again, and if that fails too, load the layer again or run the device's self-test"
    )
    """What to do about a memory that could not read a word, for the driver's errors."""
    can_fail: ClassVar[bool] = False
    """Whether the component may set `error`. A device has checks of `error` only then."""

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for what the memory cannot be."""
        require_integer("memory: words", self.words, 1, MAX_MEMORY_WORDS)

    def own_clock_hz(self, config: Config) -> int:
        """Frequency of the clock domain `MEMORY_DOMAIN`, which the component then has logic in.

        0 if all of it has the accelerator's clock. Whoever holds the accelerator gives the domain.
        """
        return 0

    def start_cycles(self, config: Config) -> int:
        """Cycles after power-up in which the memory takes no range and no word."""
        return 0

    def align(self, config: Config) -> int:
        """Words of a block, a power of two: a layer and each WRITE begin at a multiple of it.

        More than 1 if weight words share lines, which the memory writes as a whole.
        """
        return 1

    def padding_bits(self, config: Config, end: int) -> int:
        """Bits behind the word `end` − 1 that a WRITE that ends with this word sets to 0.

        They are those of the rest of its last line.
        """
        return 0

    def full_sizes(self, config: Config, most: int) -> Sequence[int]:
        """Numbers of words up to `most`, ascending, that leave little of the RAM unused."""
        return [1 << n for n in range(most.bit_length())]

    def latency(self, config: Config) -> int | None:
        """Cycles from an accepted range to its first word.

        A word follows in every later cycle. `None` for a memory that may stall.
        """
        return None

    def modelled_latency(self, config: Config, cycles: int) -> int | None:
        """What `latency` would be at a chip that answers in so many cycles and never pauses.

        The chip's model has an option `latency`. `None` if a word may come later even then.
        """
        return None

    def expected(self, config: Config) -> tuple[int, float] | None:
        """What a plan counts with: the latency, and the share of cycles with a word after it.

        An estimate where `latency` is `None`, such as of refresh. `None` if nothing is known.
        """
        latency = self.latency(config)
        return None if latency is None else (latency, 1.0)

    def most_cycles(self, config: Config, words: int) -> int | None:
        """Most cycles from an accepted range of that many words to its last word.

        It counts no cycle in which the core does not take a word. `None` if there is no bound.
        """
        latency = self.latency(config)
        return None if latency is None else latency + words - 1


@dataclass(frozen=True, kw_only=True)
class Link(Record):
    """A link in a configuration: what carries packets. `component` is a `PacketLink`."""

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for what the link cannot be."""

    @property
    def beat_bytes(self) -> int:
        """Bytes that move in a cycle between the accelerator and the link: 1, 2, 4 or 8."""
        return 1

    @property
    def command_bytes(self) -> int:
        """Bytes of a command that the accelerator takes in a cycle: 1, or 2 if `beat_bytes` is 2.

        More than 1 is for links that bring commands faster than a byte in each cycle.
        """
        return 1

    def cycles_per_byte(self, config: Config) -> float:
        """Clock cycles that a byte of a packet takes on the link at least, in each direction."""
        return 1

    def framed_bytes(self, packet_bytes: int) -> int:
        """Bytes that such a packet takes on the link, its frame included; at most, if it varies."""
        return packet_bytes

    def most_packet_bytes(self, config: Config) -> int:
        """The longest packet that the link carries; at most the buffer's pitch, `packet_bytes`."""
        return config.packet_bytes

    def peer_bits(self, config: Config) -> int:
        """Bits of the sender's address that travels beside each packet; 0 if there is one peer."""
        return 0

    def host_bits(self, config: Config) -> int:
        """The upper bits of the sender's address that name its host.

        0 if the device belongs to every peer. Else it belongs to the peer whose RESET began the
        session, and the commands of others get NO_SESSION.
        """
        return 0

    def hold_cycles(self, config: Config) -> int:
        """Cycles after a packet of its owner in which a RESET of another host is refused."""
        return 0


def _engine_fault(item: Any) -> str:
    return "" if isinstance(item, Engine) else f"it is {item!r:.60}, not an Engine"


def _record_fault(base: type[Record]) -> Callable[[Any], str]:
    def fault(item: Any) -> str:
        if not (isinstance(item, type) and issubclass(item, base)):
            return f"it is {item!r:.60}, not a class made from {base.__name__}"
        for name in ("name", "component"):
            if not isinstance(getattr(item, name, None), str):
                return f"it has no {name}"
        if not (is_dataclass(item) and item.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            return "it is not a frozen dataclass"
        return ""

    return fault


engines: Registry[Engine] = Registry("engine", "tritloom.engines", _engine_fault)
memories: Registry[type[Memory]] = Registry("memory", "tritloom.memories", _record_fault(Memory))
links: Registry[type[Link]] = Registry("link", "tritloom.links", _record_fault(Link))


def record_of(key: str, registry: Registry[Any], value: Any, examples: Mapping[str, str]) -> Any:
    """The record of a plug-in from the JSON object of `key`; a record stays as it is.

    `examples` are written in the message of `ConfigError`, which says what is wrong with it.
    """
    if isinstance(value, Record):
        return value
    require(
        isinstance(value, dict) and "kind" in value,
        f"{key} must be an object with kind, such as {examples[key]}, not {json.dumps(value)}",
    )
    rest = dict(value)
    record = registry[rest.pop("kind")]
    names = [f.name for f in fields(record)]
    for name in rest:
        require(
            name in names,
            f"unknown key {name!r} of {key}; {record.name} has {', '.join(names) or 'none'}",
        )
    for f in fields(record):
        needed = f.default is MISSING and f.default_factory is MISSING
        require(not needed or f.name in rest, f"{f.name} of {key} is missing; give it a value")
    return record(**rest)
