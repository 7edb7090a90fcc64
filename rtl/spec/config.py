"""The one configuration record that hardware, golden model, packer, driver and reports read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import ceil
from typing import Any

from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.core_cycles import (
    PARTIAL_SUM_CYCLES,
    PARTIAL_SUM_READ_CYCLES,
    REQUEST_AHEAD_CYCLES,
    RESULT_CYCLES,
    TILE_START_CYCLES,
)
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.engine_check import check_engine
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import (
    LAYOUT,
    Link,
    Memory,
    Record,
    engines,
    links,
    memories,
    record_of,
    require,
    require_integer,
)
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES, SCALE_BITS, ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig

__all__ = [
    "CRC_BYTES",
    "FEATURES_LIMIT",
    "GROUP_SUMS_LIMIT",
    "HEADER_BYTES",
    "OUT_FEATURES_LIMIT",
    "OVERHEAD_BYTES",
    "PARTIAL_SUM_CYCLES",
    "PARTIAL_SUM_READ_CYCLES",
    "TILE_START_CYCLES",
    "TINY",
    "AcceleratorConfig",
]

FEATURES_LIMIT = 16384
"""Most inputs of a layer: so far every sum of `act_bits` × trit is a whole number in float32."""
OUT_FEATURES_LIMIT = 1 << 18
"""Most rows of a layer: the heads of published ternary models have up to 151,936."""
GROUP_SUMS_LIMIT = 1 << 20
"""Most group sums of a layer: rows × groups of inputs."""
HEADER_BYTES = 16
CRC_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + CRC_BYTES
"""Bytes of a packet that are not payload: its header and its checksum."""
MOST_UNREGISTERED_LAYERS = 64
"""Layers of a layer table without an output register. A block RAM gives its data late in a cycle,
and the comparisons behind it were the longest path of a design with 256 layers."""

RANGES = {
    "lanes": (1, 1024),
    "rows": (1, 256),
    "tokens": (1, 16),
    "fill": (1, 1024),
    "max_in_features": (1, FEATURES_LIMIT),
    "max_out_features": (1, OUT_FEATURES_LIMIT),
    "max_group_sums": (0, GROUP_SUMS_LIMIT),
    "max_layers": (1, 256),
    "banks": (1, 2),
    "packet_bytes": (128, 4096),
    "slots": (2, 64),
    "clock_hz": (1, 1_000_000_000),
}
"""Least and greatest value of each integer key."""
LEFT_OUT = ("vector", "max_group_sums", "scale")
"""Keys that the JSON form and the digests have only where the accelerator has what they add."""
REQUIRED = ("lanes", "rows", "memory", "max_in_features", "max_out_features")
NEW_FORM = {
    "memory_words": '"memory": {"kind": "bram", "words": 1024}',
    "baud": '"link": {"kind": "uart", "baud": 3000000}',
}
"""Keys of the format before records were nested, and what says the same today."""
Part = VectorConfig | ScaleConfig
PARTS: dict[str, type[Part]] = {"vector": VectorConfig, "scale": ScaleConfig}
"""Records of what an accelerator may have or not."""
EXAMPLES = {"memory": NEW_FORM["memory_words"], "link": NEW_FORM["baud"]}
"""Each record as JSON writes it."""


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Geometry and limits of one accelerator; immutable, with a JSON form and digests.

    Parameters
    ----------
    lanes : activations that each row multiplies in a cycle
    rows : output rows that are computed together: a row group
    tokens : tokens that are computed at once; each weight word serves all of them
    fill : activations of each token that are loaded into the engine in a cycle
    act_bits : bits of a signed activation, 4 or 8
    alphabet : what a weight can be: `ternary` (−1, 0, 1) or `binary` (±1)
    engine, encoding : names of the dot engine and of the weight encoding
    memory : the weight memory, a record of its plug-in, such as `BlockRam(words=1024)`
    link : what carries packets, a record of its plug-in, such as `Uart(baud=3_000_000)`
    max_in_features, max_out_features : the largest layer
    max_layers : layers that can be defined at once
    banks : banks of activations and of results, 1 or 2. With 2 the next activations are loaded and
        the last results are read while a layer runs.
    packet_bytes : bytes of the longest packet, header and checksum included; a power of two
    slots : packets that are buffered in each direction; a power of two
    vector : the vector unit, a record such as `VectorConfig(words=4096)`; None if there is none
    max_group_sums : sums that a bank of results holds for a token, of layers whose inputs are in
        groups: outputs (whole row groups) × groups; 0 if there are no such layers
    scale : scales on the device, a record such as `ScaleConfig(group=128)`: results are float32,
        and every layer's inputs are in groups; None if results are the sums
    clock_hz : clock frequency in Hz

    Raises
    ------
    ConfigError : a value is out of range, or does not go with another; the message names both
    """

    lanes: int = field(metadata=LAYOUT)
    rows: int = field(metadata=LAYOUT)
    memory: Memory = field(metadata=LAYOUT)
    max_in_features: int = field(metadata=LAYOUT)
    max_out_features: int = field(metadata=LAYOUT)
    tokens: int = field(default=1, metadata=LAYOUT)
    fill: int = field(default=1, metadata=LAYOUT)
    act_bits: int = field(default=8, metadata=LAYOUT)
    alphabet: str = field(default="ternary", metadata=LAYOUT)
    engine: str = field(default="select", metadata=LAYOUT)
    encoding: str = field(default="base3x5", metadata=LAYOUT)
    max_layers: int = field(default=16, metadata=LAYOUT)
    banks: int = field(default=2, metadata=LAYOUT)
    packet_bytes: int = field(default=1024, metadata=LAYOUT)
    slots: int = field(default=4, metadata=LAYOUT)
    vector: VectorConfig | None = field(default=None, metadata=LAYOUT)
    max_group_sums: int = field(default=0, metadata=LAYOUT)
    scale: ScaleConfig | None = field(default=None, metadata=LAYOUT)
    link: Link = field(default_factory=PacketStream)
    clock_hz: int = 50_000_000

    def __post_init__(self) -> None:
        # `tritloom auto` makes a hundred thousand configurations: no message is made in vain.
        for name, (low, high) in RANGES.items():
            require_integer(name, getattr(self, name), low, high)
        for name, base, example in (
            ("memory", Memory, "BlockRam(words=1024)"),
            ("link", Link, "Uart(baud=3_000_000)"),
        ):
            value = getattr(self, name)
            if not isinstance(value, base):
                raise ConfigError(f"{name} must be a record such as {example}, not {value!r}")
        engine = check_engine(self)
        for name in ("packet_bytes", "slots"):
            if (value := getattr(self, name)) & (value - 1):
                raise ConfigError(f"{name} must be a power of two, not {value}")
        self.memory.check(self)
        self.link.check(self)
        align = self.align
        largest = max(align * self.word_bytes, self.fill, self.rows * self.acc_bytes)
        if largest > self.max_payload:
            words = "a weight word" if align == 1 else f"a block of {align} weight words"
            raise ConfigError(
                f"packet_bytes must be at least {largest + OVERHEAD_BYTES} to hold {words} "
                f"or the results of a row group, not {self.packet_bytes}"
            )
        engine.check(self)
        for name, kind in PARTS.items():
            if (part := getattr(self, name)) is not None:
                like = f"{kind.__name__}()"
                message = f"{name} must be None or a record such as {like}, not {part!r}"
                require(isinstance(part, kind), message)
                part.check(self)
        sums = self.max_group_sums
        if sums and (sums < self.max_out_features or self.vector is not None):
            raise ConfigError(
                f"max_group_sums must be 0, or at least max_out_features = {self.max_out_features} "
                f"and without a vector unit, not {sums}"
            )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, f.name) for f in fields(self)))

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, for a pickle: the hash of a text differs from process to process."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def memory_words(self) -> int:
        """Weight words that the memory holds."""
        return self.memory.words

    @cached_property
    def align(self) -> int:
        """Weight words of a block; see `Memory.align`."""
        return self.memory.align(self)

    def stored_words(self, words: int) -> int:
        """Weight words that a layer of `words` occupies: whole blocks."""
        return -(-words // self.align) * self.align

    def with_words(self, words: int) -> AcceleratorConfig:
        """The same configuration with a weight memory of that many words."""
        return replace(self, memory=replace(self.memory, words=words))

    @cached_property
    def codes_bits(self) -> int:
        """Bits of the codes of `rows × lanes` trits; a weight word begins with them."""
        encoding = encodings[self.encoding]
        return self.rows * (self.lanes // encoding.trits_per_code) * encoding.code_bits

    @cached_property
    def word_bits(self) -> int:
        """Bits of a weight word: codes, and with scales one a row behind whole bytes of codes."""
        if self.scale is None:
            return self.codes_bits
        return -(-self.codes_bits // 8) * 8 + self.rows * SCALE_BITS

    @cached_property
    def without_scale(self) -> AcceleratorConfig:
        """The same without scales: what an engine, and the codes in a word, depend on."""
        return self if self.scale is None else replace(self, scale=None)

    @cached_property
    def word_bytes(self) -> int:
        return -(-self.word_bits // 8)

    @property
    def sum_bits(self) -> int:
        """Signed bits of one tile's sum: `lanes` terms lie in ±2^(act_bits-1)."""
        return (self.lanes << (self.act_bits - 1)).bit_length() + 1

    @cached_property
    def acc_bits(self) -> int:
        """Signed bits of a row's sum, with scales of a group's: of the terms of whole tiles."""
        tiles = self.max_tiles if self.scale is None else self.most_group_tiles
        return (tiles * self.lanes << (self.act_bits - 1)).bit_length() + 1

    @cached_property
    def acc_bytes(self) -> int:
        """Bytes of a result in a packet: a sum, or with scales a float32."""
        return -(-self.acc_bits // 8) if self.scale is None else FLOAT_BYTES

    @property
    def result_bits(self) -> int:
        """Bits of a result as the core gives it: a sum, or with scales a row's total."""
        if self.scale is None:
            return self.acc_bits
        return self.scale.result_bits(self.acc_bits, self.max_tiles)

    @property
    def scales_activations(self) -> bool:
        """Whether activations have scales on the device, of each token and group of inputs."""
        return self.scale is not None and self.scale.scales_activations

    @property
    def has_groups(self) -> bool:
        """Whether layers may have groups of inputs."""
        return bool(self.max_group_sums) or self.scale is not None

    @property
    def most_group_tiles(self) -> int:
        """Most tiles of a group of inputs that DEFINE takes."""
        if self.scale is None:
            return self.max_tiles
        return min(self.max_tiles, -(-self.scale.group // self.lanes))

    @property
    def max_tiles(self) -> int:
        return -(-self.max_in_features // self.lanes)

    @property
    def max_row_groups(self) -> int:
        return -(-self.max_out_features // self.rows)

    @property
    def result_row_groups(self) -> int:
        """Row groups of sums in a result bank; each group of inputs has its own."""
        return max(self.max_row_groups, -(-self.max_group_sums // self.rows))

    def results_of(self, shape: LayerShape) -> int:
        """Row groups of a layer's results."""
        return shape.result_row_groups if self.scale is None else shape.row_groups

    @property
    def activation_words(self) -> int:
        """Depth of the activation buffer, `fill` activations of each token a word."""
        return self.max_tiles * self.lanes // self.fill

    @property
    def macs_per_cycle(self) -> int:
        return self.lanes * self.rows * self.tokens

    @cached_property
    def max_payload(self) -> int:
        """Payload bytes of the longest packet that buffers and link carry."""
        return min(self.packet_bytes, self.link.most_packet_bytes(self)) - OVERHEAD_BYTES

    @cached_property
    def window(self) -> int:
        """Commands that may have no response yet.

        Each response stays in its slot for replay, and one slot is free for the next one.
        """
        return self.slots - 1

    @property
    def engine_latency(self) -> int:
        """Cycles from an accepted weight word to its sums."""
        return engines[self.engine].latency(self)

    @property
    def entry_cycles(self) -> int:
        """Cycles from a layer's index to its entry in the layer table."""
        return 1 if self.max_layers <= MOST_UNREGISTERED_LAYERS else 2

    @cached_property
    def asks_ahead(self) -> bool:
        """Whether the range of a RUN is asked for while the layer before it still runs.

        So it is if the first word could otherwise come after the first table, which a RUN fills.
        """
        latency = self.memory.latency(self)
        fill = TILE_START_CYCLES + engines[self.engine].fill_cycles(self)
        return latency is None or latency - REQUEST_AHEAD_CYCLES > fill

    @cached_property
    def again_cycles(self) -> int:
        """Cycles after which a row group may come again, because its sums are written by then."""
        return max(PARTIAL_SUM_CYCLES, 0 if self.scale is None else self.scale.unit.again)

    def tile_cycles(self, row_groups: int) -> int:
        """Cycles from a tile's first word to the next one's, if no word is waited for."""
        engine = engines[self.engine]
        wait = self.again_cycles - 1 if row_groups < self.again_cycles else 0
        cycles = max(row_groups + wait, TILE_START_CYCLES + engine.tile_cycles(self))
        if reload := engine.reload_cycles(self):
            cycles = max(cycles, row_groups - 1 + reload + TILE_START_CYCLES)
        return cycles

    def run_cycles(self, shape: LayerShape) -> int | None:
        """Cycles that RUN takes and reports; `None` if the weight memory may stall.

        With `asks_ahead` a RUN behind another one may take fewer.
        The first tile is filled while its first words are fetched. Each tile then takes as long as
        its words, or as the filling of the next tile, whichever is longer; with few row groups it
        also waits for its partial sums. The sums of the last word end the run.
        """
        latency = self.memory.latency(self)
        if latency is None:
            return None
        fill = TILE_START_CYCLES + engines[self.engine].fill_cycles(self)
        return self._run_cycles(shape, max(fill, latency - REQUEST_AHEAD_CYCLES))

    def planned_run_cycles(self, shape: LayerShape) -> int | None:
        """Cycles of RUN for a plan: exact if the memory never stalls, else what it expects."""
        exact = self.run_cycles(shape)
        expected = self.memory.expected(self)
        if exact is not None or expected is None:
            return exact
        return self.run_cycles_with(shape, *expected)

    def run_cycles_with(self, shape: LayerShape, latency: int, share: float = 1.0) -> int:
        """Cycles of RUN with a memory of a latency that brings a word in a share of the cycles.

        Exact for a share of 1. With a latency of 0 it is that of a RUN whose words wait for it.
        """
        fill = TILE_START_CYCLES + engines[self.engine].fill_cycles(self)
        first = max(fill, latency - REQUEST_AHEAD_CYCLES)
        tile = max(self.tile_cycles(shape.row_groups), shape.row_groups / share)
        words = (shape.tiles - 1) * tile + shape.row_groups / share
        return first + ceil(words) - 1 + self._end_cycles

    def most_run_cycles(self, shape: LayerShape) -> int | None:
        """Bound on the cycles that RUN takes; `None` if the weight memory gives no bound."""
        exact = self.run_cycles(shape)
        most = self.memory.most_cycles(self, shape.words)
        if exact is not None or most is None:
            return exact
        # No word is later than if the memory brought all of them first.
        return self._run_cycles(shape, most + engines[self.engine].fill_cycles(self))

    def _run_cycles(self, shape: LayerShape, first: int) -> int:
        """Cycles of a run whose first word is taken in cycle `first` and that then never waits."""
        tiles = (shape.tiles - 1) * self.tile_cycles(shape.row_groups)
        last = first + tiles + shape.row_groups - 1
        return last + self._end_cycles

    @property
    def _end_cycles(self) -> int:
        """Cycles from the last word that is taken to the end of the run."""
        scales = 0 if self.scale is None else self.scale.unit.cycles
        return max(self.engine_latency, PARTIAL_SUM_READ_CYCLES) + RESULT_CYCLES + scales

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON has it; memory and link are objects with their `kind`.

        A key of `LEFT_OUT` that adds nothing is not there: such a configuration keeps its digests.
        """
        return {
            f.name: value.to_dict() if isinstance(value, Record | Part) else value
            for f in fields(self)
            for value in [getattr(self, f.name)]
            if f.name not in LEFT_OUT or value
        }

    def to_json(self) -> str:
        """Canonical JSON: every field, sorted, no spaces; equal configurations, equal bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AcceleratorConfig:
        """A configuration from what its JSON holds.

        Raises
        ------
        ConfigError : a key is unknown, missing or of an earlier format, or a value is refused
        """
        names = [f.name for f in fields(cls)]
        for name in values:
            if name in NEW_FORM:
                raise ConfigError(f"{name} has a new form; write {NEW_FORM[name]}")
            require(name in names, f"unknown key {name!r}; known are {', '.join(names)}")
        for name in REQUIRED:
            example = EXAMPLES.get(name, "an integer")
            require(name in values, f"{name} is missing; give it {example}")
        plain = dict(values)
        if "memory" in plain:
            plain["memory"] = record_of("memory", memories, plain["memory"], EXAMPLES)
        if "link" in plain:
            plain["link"] = record_of("link", links, plain["link"], EXAMPLES)
        for name, kind in PARTS.items():
            value = plain.get(name)
            if value is not None and not isinstance(value, kind):
                plain[name] = kind.from_dict(value)
        return cls(**plain)

    @classmethod
    def from_json(cls, text: str | bytes) -> AcceleratorConfig:
        """A configuration from JSON.

        Raises
        ------
        ConfigError : it is not JSON, or `from_dict` refuses it
        """
        try:
            values = json.loads(text)
        except RecursionError:
            raise ConfigError("configuration is not JSON: it is nested too deeply") from None
        except ValueError as error:
            raise ConfigError(f"configuration is not JSON: {error}") from None
        require(isinstance(values, dict), "configuration must be a JSON object")
        return cls.from_dict(values)

    @cached_property
    def layout_digest(self) -> bytes:
        """8 bytes that must match between driver and device: of the fields marked as layout."""
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Part):
                values[f.name] = value.to_dict()
            elif isinstance(value, Record):
                if marked := value.layout_dict():
                    values[f.name] = marked
            elif f.metadata.get("layout", False) and (value or f.name not in LEFT_OUT):
                values[f.name] = value
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:8]

    @cached_property
    def build_digest(self) -> bytes:
        """8 bytes that identify the whole configuration."""
        return hashlib.sha256(self.to_json().encode()).digest()[:8]


TINY = AcceleratorConfig(
    lanes=5,
    rows=2,
    memory=BlockRam(words=64),
    max_in_features=20,
    max_out_features=16,
    max_layers=4,
    packet_bytes=128,
    slots=2,
)
"""Small enough to prove; every limit is within reach of a test."""
