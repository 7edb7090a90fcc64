"""The one configuration record that hardware, golden model, packer, driver and reports read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import tritloom.rtl.spec.builtin  # noqa: F401 - registers what ships
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.packing import LayerShape, encodings
from tritloom.rtl.spec.plugins import engines, memories

FEATURES_LIMIT = 16384
LINKS = ("stream", "uart")
MAX_BAUD = 3_000_000
MAX_BAUD_ERROR = 0.02
"""Half of what 8N1 bears: the last bit is sampled within half a bit, ten bits after the start."""
ACT_LATENCY = 3
"""Cycles from the address of activations to them: memory, its register, one on the way."""
PARTIAL_SUM_CYCLES = 5
"""Cycles from reading a partial sum to the cycle in which its new value can be read."""
PARTIAL_SUM_READ_CYCLES = 5
"""Cycles from a group's turn to its partial sum: number, address, memory, register, on the way."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceleratorConfig:
    """Geometry and limits of one accelerator; immutable, with a JSON form and digests.

    ``lanes`` activations meet ``rows`` output rows in each cycle, for ``tokens`` tokens at once.
    ``fill`` activations of ``act_bits`` signed bits are loaded into the engine a cycle. Weights are
    of the ``alphabet`` ternary (−1, 0, 1) or binary (±1). ``memory_words`` weight words are
    resident, in at most ``max_layers`` layers. A packet, header and checksum included, has at most
    ``packet_bytes``; ``slots`` of them are buffered in each direction.
    """

    lanes: int
    rows: int
    memory_words: int
    max_in_features: int
    max_out_features: int
    tokens: int = 1
    fill: int = 1
    act_bits: int = 8
    alphabet: str = "ternary"
    engine: str = "select"
    encoding: str = "base3x5"
    memory: str = "bram"
    max_layers: int = 16
    packet_bytes: int = 1024
    slots: int = 4
    link: str = "stream"
    baud: int = 0
    clock_hz: int = 50_000_000

    def __post_init__(self) -> None:
        limits = {
            "lanes": (1, 1024),
            "rows": (1, 256),
            "tokens": (1, 16),
            "fill": (1, 1024),
            "memory_words": (1, 1 << 24),
            "max_in_features": (1, FEATURES_LIMIT),
            "max_out_features": (1, FEATURES_LIMIT),
            "max_layers": (1, 256),
            "packet_bytes": (128, 4096),
            "slots": (2, 64),
            "clock_hz": (1, 1_000_000_000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            _require(type(value) is int, f"{name} must be an integer, not {value!r}")
            _require(low <= value <= high, f"{name} must be {low} to {high}, not {value}")
        engine, encoding = engines[self.engine], encodings[self.encoding]
        memories[self.memory]
        _require(
            self.encoding in engine.encodings,
            f"encoding of the {self.engine} engine must be one of "
            f"{', '.join(engine.encodings)}, not {self.encoding!r}",
        )
        width = self.act_bits
        _require(type(width) is int and width in (4, 8), f"act_bits must be 4 or 8, not {width!r}")
        _require(
            self.alphabet == encoding.alphabet,
            f"alphabet of the {self.encoding} encoding must be {encoding.alphabet}, "
            f"not {self.alphabet!r}",
        )
        _require(self.link in LINKS, f"link must be one of {', '.join(LINKS)}, not {self.link!r}")
        if self.link == "uart":
            self._check_baud()
        else:
            _require(self.baud == 0, f"baud is of the uart link; leave it out, not {self.baud!r}")
        _require(
            self.lanes % encoding.group == 0,
            f"lanes must be a multiple of {encoding.group}, not {self.lanes}",
        )
        _require(
            self.lanes % self.fill == 0,
            f"fill must divide lanes = {self.lanes}, not {self.fill}",
        )
        for name in ("packet_bytes", "slots"):
            value = getattr(self, name)
            _require(_power_of_two(value), f"{name} must be a power of two, not {value}")
        _require(
            max(self.word_bytes, self.fill, self.rows * self.acc_bytes) <= self.max_payload,
            f"packet_bytes must be at least "
            f"{max(self.word_bytes, self.fill, self.rows * self.acc_bytes) + 20} "
            f"to hold a weight word or a group of results, not {self.packet_bytes}",
        )
        engine.check(self)

    def _check_baud(self) -> None:
        _require(type(self.baud) is int, f"baud must be an integer, not {self.baud!r}")
        high = min(MAX_BAUD, self.clock_hz // 4)
        _require(1200 <= self.baud <= high, f"baud must be 1200 to {high}, not {self.baud}")
        real = self.clock_hz / self.uart_divisor
        _require(
            abs(real - self.baud) <= MAX_BAUD_ERROR * self.baud,
            f"baud must be within {MAX_BAUD_ERROR:.0%} of clock_hz / n: the nearest to {self.baud} "
            f"is {real:.0f}",
        )

    @property
    def uart_divisor(self) -> int:
        """Clock cycles of a bit on the UART."""
        return round(self.clock_hz / self.baud)

    @property
    def word_bits(self) -> int:
        """Bits of a weight word: the codes of ``rows × lanes`` trits."""
        encoding = encodings[self.encoding]
        return self.rows * (self.lanes // encoding.group) * encoding.code_bits

    @property
    def word_bytes(self) -> int:
        return -(-self.word_bits // 8)

    @property
    def sum_bits(self) -> int:
        """Signed bits of one tile's sum: ``lanes`` terms lie in ±2^(act_bits-1)."""
        return (self.lanes << (self.act_bits - 1)).bit_length() + 1

    @property
    def acc_bits(self) -> int:
        """Signed bits of a result: whole tiles of terms, each in ±2^(act_bits-1)."""
        return (self.max_tiles * self.lanes << (self.act_bits - 1)).bit_length() + 1

    @property
    def acc_bytes(self) -> int:
        return -(-self.acc_bits // 8)

    @property
    def max_tiles(self) -> int:
        return -(-self.max_in_features // self.lanes)

    @property
    def max_groups(self) -> int:
        return -(-self.max_out_features // self.rows)

    @property
    def activation_words(self) -> int:
        """Depth of the activation buffer, ``fill`` activations of each token a word."""
        return self.max_tiles * self.lanes // self.fill

    @property
    def macs_per_cycle(self) -> int:
        return self.lanes * self.rows * self.tokens

    @property
    def max_payload(self) -> int:
        """Payload bytes of a packet: all but its header (16) and checksum (4)."""
        return self.packet_bytes - 20

    @property
    def window(self) -> int:
        """Commands that may be unanswered: each response stays for replay, one slot is free."""
        return self.slots - 1

    @property
    def engine_latency(self) -> int:
        return engines[self.engine].latency(self)

    def tile_cycles(self, groups: int) -> int:
        """Cycles from a tile's first word to the next one's, if no word is waited for."""
        engine = engines[self.engine]
        few = PARTIAL_SUM_CYCLES - 1 if groups < PARTIAL_SUM_CYCLES else 0
        # The core begins a tile in the fourth cycle of ready.
        cycles = max(groups + few, 4 + engine.tile_cycles(self))
        if reload := engine.reload_cycles(self):
            cycles = max(cycles, groups - 1 + reload + 4)
        return cycles

    def run_cycles(self, shape: LayerShape) -> int | None:
        """Cycles that RUN takes and reports; ``None`` where the weight memory may stall.

        The first tile is filled while its words come, then each takes the longer of its words (and
        with few of them a partial sum's round) and the filling of the next; the last word's sums
        are added.
        """
        memory_latency = memories[self.memory].latency
        if memory_latency is None:
            return None
        # The words were asked for in the cycle before RUN.
        first = max(4 + engines[self.engine].fill_cycles(self), memory_latency(self) - 1)
        last = first + (shape.tiles - 1) * self.tile_cycles(shape.groups) + shape.groups - 1
        return last + max(self.engine_latency, PARTIAL_SUM_READ_CYCLES) + 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        """Canonical JSON: every field, sorted, no spaces; equal configurations, equal bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AcceleratorConfig:
        names = [field.name for field in fields(cls)]
        for name in values:
            _require(name in names, f"unknown key {name!r}; known are {', '.join(names)}")
        for name in ("lanes", "rows", "memory_words", "max_in_features", "max_out_features"):
            _require(name in values, f"{name} is missing; give it an integer")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str | bytes) -> AcceleratorConfig:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"configuration is not JSON: {error}") from None
        _require(isinstance(values, dict), "configuration must be a JSON object")
        return cls.from_dict(values)

    @property
    def layout_digest(self) -> bytes:
        """8 bytes that must match between driver and device: all but link, baud, clock."""
        values = self.to_dict()
        del values["link"], values["baud"], values["clock_hz"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:8]

    @property
    def build_digest(self) -> bytes:
        """8 bytes that identify the whole configuration."""
        return hashlib.sha256(self.to_json().encode()).digest()[:8]


TINY = AcceleratorConfig(
    lanes=5,
    rows=2,
    memory_words=64,
    max_in_features=20,
    max_out_features=16,
    max_layers=4,
    packet_bytes=128,
    slots=2,
)
"""Small enough to prove; every limit is within reach of a test."""
