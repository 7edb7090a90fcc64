"""Facts of the weight memory behind AXI ports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from tritloom.rtl.memories.line_facts import LineRecord
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import LAYOUT, Config, Storage, require, require_integer

__all__ = ["Axi"]

PAGE_BYTES = 4096
"""No burst crosses a multiple of this; a rule of AXI."""
WIDTHS = (64, 128, 256, 512)
PORTS = (1, 2, 4)
LEAST_BURST = 2
"""A burst's address takes two cycles, so beats of shorter bursts would not follow each other."""
MOST_BURST = {3: 16, 4: 256}
"""Most beats of a burst, by the version of AXI."""
_ADDRESS = {
    "id": "ID, always 0",
    "addr": "address of the first byte",
    "len": "beats − 1",
    "size": "bytes of a beat, as a power of two",
    "burst": "kind of burst, always incrementing",
    "lock": "lock, always 0",
    "cache": "cache, normal and bufferable",
    "prot": "protection, always 0",
    "qos": "quality of service, always 0",
    "valid": "the channel is valid",
    "ready": "the channel is taken",
}
MEANINGS = {
    **{f"ar{name}": f"read address: {meaning}" for name, meaning in _ADDRESS.items()},
    **{f"aw{name}": f"write address: {meaning}" for name, meaning in _ADDRESS.items()},
    "rid": "read data: ID, ignored",
    "rdata": "read data: the beat",
    "rresp": "read data: response",
    "rlast": "read data: last beat of its burst, ignored",
    "rvalid": "read data: the channel is valid",
    "rready": "read data: always 1",
    "wid": "write data: ID, always 0; only",
    "wdata": "write data: the beat",
    "wstrb": "write data: bytes that are written, always all",
    "wlast": "write data: last beat of its burst, always 1",
    "wvalid": "write data: the channel is valid",
    "wready": "write data: the channel is taken",
    "bid": "write response: ID, ignored",
    "bresp": "write response: the response",
    "bvalid": "write response: the channel is valid",
    "bready": "write response: always 1",
}
"""What each signal of a port means."""
MOST_LATENCY = 4096
MOST_ADDRESS_BITS = 64
MOST_TIMEOUT = 1 << 24
SPARE_BEATS = 4
"""Beats beyond latency and burst that the queue needs so that a beat can come in every cycle."""
FIRST_BEAT_CYCLES = 5
"""Cycles from an accepted range to its first beat, beside the memory's latency."""


@dataclass(frozen=True, kw_only=True)
class Axi(LineRecord):
    """A memory behind AXI: an HP port of a Zynq, a Xilinx MIG, or LiteDRAM's AXI port.

    A line is a beat of every port. All bursts have one ID, so their beats come in order. A range
    whose beats come with SLVERR or DECERR, or do not come, has void words from there on.

    Parameters
    ----------
    width : bits of a port's data
    ports : ports side by side, each with a part of every line in a region of its own
    version : 3 or 4: of AXI3, a burst has at most 16 beats, and its signals have fewer bits
    burst : most beats of a burst, a power of two; fewer if they would fill more than 4 KiB
    latency_cycles : the most cycles from an address to its first beat at which a beat still comes
        in every cycle. The queue is as deep as this needs. A longer latency costs speed, nothing
        else.
    timeout_cycles : cycles without a beat, or without the response to a write, after which the
        memory is said to have failed
    base : first byte of the first region, a multiple of 4096
    offsets : first byte of each port's region behind `base`, a multiple of 4096. Empty: one region
        follows the other. Which offsets are fast depends on the memory's banks.
    address_bits : bits of an address
    """

    name: ClassVar[str] = "axi"
    component: ClassVar[str] = "tritloom.rtl.memories.axi:AxiMemory"
    model: ClassVar[str] = "tritloom.sim.models.axi:AxiModel"
    bench: ClassVar[str] = "tritloom.sim.verify.axi:attach"
    can_fail: ClassVar[bool] = True

    width: int = field(metadata=LAYOUT)
    ports: int = field(default=1, metadata=LAYOUT)
    version: int = 4
    burst: int = 16
    latency_cycles: int = 200
    timeout_cycles: int = 100_000
    base: int = 0
    offsets: tuple[int, ...] = ()
    address_bits: int = 32

    def __post_init__(self) -> None:
        # JSON has lists.
        if isinstance(self.offsets, list):
            object.__setattr__(self, "offsets", tuple(self.offsets))

    @property
    def beat_bytes(self) -> int:
        """Bytes of a port's beat."""
        return self.width // 8

    @property
    def burst_beats(self) -> int:
        """Most beats of a burst: none crosses 4 KiB."""
        return min(self.burst, PAGE_BYTES // self.beat_bytes)

    @property
    def depth(self) -> int:
        """Beats of a port's queue, a power of two."""
        return 1 << (self.latency_cycles + self.burst_beats + SPARE_BEATS - 1).bit_length()

    def region_bytes(self, config: Config) -> int:
        """Bytes of a port's region, a multiple of 4096."""
        used = self.line_format(config).lines * self.beat_bytes
        return -(-used // PAGE_BYTES) * PAGE_BYTES

    def bases(self, config: Config) -> tuple[int, ...]:
        """First byte of each port's region."""
        size = self.region_bytes(config)
        offsets = self.offsets or tuple(size * number for number in range(self.ports))
        return tuple(self.base + offset for offset in offsets)

    def line_sizes(self, config: Config) -> tuple[int, int]:
        return self.width * self.ports, self.width * self.ports

    def check(self, config: Config) -> None:
        for key, value, allowed in (
            ("width", self.width, WIDTHS),
            ("ports", self.ports, PORTS),
            ("version", self.version, tuple(MOST_BURST)),
        ):
            require(
                type(value) is int and value in allowed,
                f"memory: {key} must be one of {', '.join(map(str, allowed))}, not {value!r}",
            )
        require_integer("memory: burst", self.burst, LEAST_BURST, MOST_BURST[self.version])
        require(
            self.burst & (self.burst - 1) == 0,
            f"memory: burst must be a power of two, not {self.burst}",
        )
        require_integer("memory: latency_cycles", self.latency_cycles, 1, MOST_LATENCY)
        require_integer("memory: timeout_cycles", self.timeout_cycles, 1, MOST_TIMEOUT)
        require_integer("memory: address_bits", self.address_bits, 13, MOST_ADDRESS_BITS)
        require_integer("memory: base", self.base, 0, (1 << self.address_bits) - 1)
        super().check(config)
        self._check_regions(config)

    def _check_regions(self, config: Config) -> None:
        """Refuse regions that overlap, end beyond the last address, or begin within 4 KiB."""
        require(
            isinstance(self.offsets, tuple) and len(self.offsets) in (0, self.ports),
            f"memory: offsets must be one for each of {self.ports} ports, not {self.offsets!r}",
        )
        for offset in self.offsets:
            require_integer("memory: offsets", offset, 0, (1 << self.address_bits) - 1)
        size = self.region_bytes(config)
        bases = sorted(self.bases(config))
        for base, following in zip(bases, [*bases[1:], 1 << self.address_bits], strict=True):
            if base % PAGE_BYTES:
                raise ConfigError(
                    f"memory: base and offsets must be multiples of {PAGE_BYTES}, not {base:#x}"
                )
            if base + size > following:
                raise ConfigError(
                    f"memory: the region of {size} bytes at {base:#x} must end at or before "
                    f"{following:#x}, where the next region begins or the addresses end"
                )

    def title(self) -> str:
        ports = f"{self.ports} × " if self.ports > 1 else ""
        return f"AXI{self.version}, {ports}{self.width} bits"

    def modelled_latency(self, config: Config, cycles: int) -> int | None:
        """Exact if a word is a beat of every port, and the queue is deep enough."""
        word_is_line = config.word_bits == self.width * self.ports
        if not word_is_line or cycles > self.latency_cycles:
            return None
        return self.line_format(config).first_word_cycles(FIRST_BEAT_CYCLES + cycles)

    def expected(self, config: Config) -> tuple[int, float]:
        """A plan counts with the latency that the queue is made for, and with every beat."""
        first = self.line_format(config).first_word_cycles(FIRST_BEAT_CYCLES + self.latency_cycles)
        return first, min(1.0, self.width * self.ports / config.word_bits)

    def storage(self, config: Config) -> tuple[Storage, ...]:
        return (Storage(self.width + 1, self.depth, number=self.ports),)

    @property
    def pins(self) -> Mapping[str, str]:  # type: ignore[override] # it depends on the ports
        """What each pad means: AXI's signals have AXI's names."""
        return MappingProxyType(
            {
                prefix + name: f"{meaning} of AXI{self.version}"
                for prefix in self.prefixes
                for name, meaning in MEANINGS.items()
            }
        )

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of each port's signals begin with."""
        return ("m_axi_",) if self.ports == 1 else tuple(f"m{n}_axi_" for n in range(self.ports))
