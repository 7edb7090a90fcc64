# amaranth: UnusedElaboratable=no
"""A memory behind AXI ports, for simulations: of fixed latency, or a DRAM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.memories.axi_facts import PAGE_BYTES, Axi
from tritloom.rtl.memories.axi_pads import axi_pads
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.models.contract import MemoryModel, Store
from tritloom.sim.models.dram import COUNT_BITS, DDR4_2133

__all__ = ["AxiModel"]

CHANNELS = ("ar", "r", "aw", "w", "b")
TIME_BITS = 40
"""Bits of a number of cycles."""
OPEN_PIECES = 64
"""Bursts that a port takes before their beats have left."""
PAUSE_BITS = 16
RESPONSES = {"OKAY": 0, "SLVERR": 2, "DECERR": 3}


class AxiModel(MemoryModel):
    """AXI ports whose first beat comes a fixed number of cycles after its address, or from a DRAM.

    With a fixed latency each port gives a beat a cycle. A DRAM gives what its banks, its data bus
    and its refresh leave of that, so that where the ports' regions lie decides the speed.

    Parameters
    ----------
    config : its memory is an `Axi`
    latency : cycles from an address to its first beat, at least 2
    stalls : probability that a channel pauses in a cycle: an address or word is not taken, or a
        beat or response does not come
    seed : of the pauses
    error : response of the beats from `error_from` on: OKAY, SLVERR or DECERR
    error_from, error_lines : the lines, as numbers in the region, that have this response; writes
        to them too
    silent_from : number of beats, from the start, after which a port gives no beat for
        `silent_cycles` cycles; 0 for never
    silent_cycles : see there
    deaf : a channel, `ar`, `aw`, `w` or `b`, on which nothing moves in the first `deaf_cycles`
        cycles; empty for none
    deaf_cycles : see there
    dram : all ports share a DRAM: DDR4-2133 on 64 wires, at the configuration's clock. `latency` is
        that of writes only.
    outstanding : bursts of a port that the DRAM's controller takes before their beats have left
    places : bytes that the DRAM adds to each port's addresses, multiples of 4096, as if its region
        lay there; empty for none
    """

    RULES: ClassVar = {
        1: "AXI: a burst crosses 4 KiB",
        2: "AXI: an address changed before it was taken",
        3: "the memory: an address lies beyond its region",
        4: "the memory: a beat is not written as a whole",
        5: "AXI: the size of a beat is not the width of the port",
        6: "AXI: a word changed before it was taken",
    }

    def __init__(
        self,
        config: AcceleratorConfig,
        latency: int = 60,
        stalls: float = 0.0,
        seed: int = 1,
        error: str = "OKAY",
        error_from: int = 0,
        error_lines: int = 0,
        silent_from: int = 0,
        silent_cycles: int = 0,
        deaf: str = "",
        deaf_cycles: int = 0,
        dram: bool = False,
        outstanding: int = DDR4_2133.outstanding,
        places: tuple[int, ...] = (),
    ) -> None:
        record = config.memory
        if not isinstance(record, Axi):
            raise ConfigError(f"a model of AXI needs the memory axi, not {record.name!r}")
        if latency < 2:
            raise ConfigError(f"latency must be at least 2, not {latency}")
        if not 0 <= stalls < 1:
            raise ConfigError(f"stalls must be 0 or more and less than 1, not {stalls}")
        if error not in RESPONSES:
            raise ConfigError(f"error must be one of {', '.join(RESPONSES)}, not {error!r}")
        self.record = record
        self.latency, self.stalls, self.seed = latency, stalls, seed
        self.error, self.error_from, self.error_lines = error, error_from, error_lines
        self.silent_from, self.silent_cycles = silent_from, silent_cycles
        self.deaf, self.deaf_cycles = deaf, deaf_cycles
        numbers: dict[str, int] | None = None
        if dram:
            timing = replace(DDR4_2133, outstanding=outstanding)
            numbers = timing.numbers(config.clock_hz, record.beat_bytes)
            for number, place in enumerate(places):
                numbers[f"place_{number}"] = place // record.beat_bytes
        lines = record.line_format(config).lines
        pads = {
            name: Member(In if member.flow == Out else Out, member.shape)
            for name, member in axi_pads(record).items()
        }
        stores = tuple(Store(words=lines, bits=record.width) for _ in range(record.ports))
        super().__init__(config, pads, stores, dram_ports=record.ports, dram_numbers=numbers)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        now = Signal(TIME_BITS)
        m.d.sync += now.eq(now + 1)
        violations = []
        for number, (prefix, base) in enumerate(
            zip(self.record.prefixes, self.record.bases(self.config), strict=True)
        ):
            violations.append(self._port(m, number, prefix, base, now))
        violation: Value = Const(0, len(self.violation))
        for value in violations:
            violation = Mux(value != 0, value, violation)
        m.d.comb += self.violation.eq(violation)
        return m

    def _pause(self, m: Module, channel: str, number: int, now: Signal) -> Value:
        """1 in the cycles in which a channel of a port does nothing."""
        if channel == self.deaf:
            return now < self.deaf_cycles
        if not self.stalls:
            return Const(0)
        name = f"{channel}_{number}"
        salt = CHANNELS.index(channel) + len(CHANNELS) * number
        init = (self.seed * 0x9E3779B1 + salt * 0x85EBCA6B) & 0xFFFFFFFF or 1
        state = Signal(32, init=init, name=f"noise_{name}")
        x = state ^ (state << 13)[:32]
        x = x ^ (x >> 17)
        m.d.sync += state.eq(x ^ (x << 5)[:32])
        return state[:PAUSE_BITS] < round(self.stalls * (1 << PAUSE_BITS))

    def _is_wrong(self, line: Value) -> Value:
        """Whether a line has the response `error`."""
        first = self.error_from
        return (line >= first) & (line < first + self.error_lines)

    def _port(self, m: Module, number: int, prefix: str, base: int, now: Signal) -> Signal:
        """A port's channels; gives the number of a broken rule."""
        record, name = self.record, prefix.strip("_")
        lines = self.stores[number].words
        shift = (record.beat_bytes - 1).bit_length()
        pad = {name: getattr(self, prefix + name) for name in self._names(prefix)}
        store: Any = getattr(self, f"store_{number}")
        silent = self._silence(m, pad, name)

        line = (pad["araddr"] - base) >> shift
        piece = data.StructLayout({"line": 32, "beats": COUNT_BITS, "due": TIME_BITS})
        m.submodules[f"pieces_{name}"] = pieces = SyncFIFO(width=piece.size, depth=OPEN_PIECES)
        entering, oldest = (
            Signal(piece, name=f"entering_{name}"),
            Signal(piece, name=f"piece_{name}"),
        )
        m.d.comb += [pieces.w_data.eq(entering), oldest.eq(pieces.r_data)]
        pauses = self._pause(m, "ar", number, now)
        # Addresses wait, with a fixed latency together with the time of their first beat.
        takes = pad["arvalid"] & pad["arready"]
        m.d.comb += [
            pad["arready"].eq(pieces.w_rdy & self._has_room(number) & ~pauses),
            pieces.w_en.eq(takes),
            entering.line.eq(line),
            entering.beats.eq(pad["arlen"] + 1),
            # The beat is at the port a cycle after it is fetched.
            entering.due.eq(now + self.latency - 1),
        ]
        sent = Signal(
            COUNT_BITS, name=f"sent_{name}"
        )  # beats of the oldest piece that were fetched
        fetched = Signal(32, name=f"fetched_{name}")  # the line that is shown
        next_line = oldest.line + sent
        due = pieces.r_rdy & self._is_due(number, oldest.due, now) & ~silent
        fetch = Signal(name=f"fetch_{name}")
        m.d.comb += [
            fetch.eq(due & (~pad["rvalid"] | pad["rready"]) & ~self._pause(m, "r", number, now)),
            pieces.r_en.eq(fetch & (sent == oldest.beats - 1)),
            pad["rdata"].eq(store.word),
            pad["rid"].eq(0),
        ]
        with m.If(pad["rready"]):
            m.d.sync += pad["rvalid"].eq(0)
        with m.If(fetch):
            m.d.sync += [
                pad["rvalid"].eq(1),
                pad["rlast"].eq(pieces.r_en),
                pad["rresp"].eq(Mux(self._is_wrong(next_line), RESPONSES[self.error], 0)),
                fetched.eq(next_line),
                sent.eq(Mux(pieces.r_en, 0, sent + 1)),
            ]
        if self.dram_numbers is not None:
            dram: Any = getattr(self, f"dram_{number}")
            m.d.comb += [
                dram.arrives.eq(takes),
                dram.beat.eq(pad["araddr"] >> shift),
                dram.beats.eq(entering.beats),
                dram.leaves.eq(fetch),
            ]
        writes, written = self._write(m, number, pad, name, base, now, fetch | pad["rvalid"])
        m.d.comb += [
            store.address.eq(Mux(writes, written, Mux(fetch, next_line, fetched))),
            store.write.eq(writes.replicate(record.beat_bytes)),
        ]
        return self._rules(m, pad, name, line, lines)

    def _has_room(self, number: int) -> Value:
        """1 in the cycles in which the DRAM's controller takes a burst of a port."""
        return Const(1) if self.dram_numbers is None else getattr(self, f"dram_{number}").room

    def _is_due(self, number: int, due: Value, now: Signal) -> Value:
        """1 in the cycles in which the next beat of a port's oldest burst may be fetched."""
        return now >= due if self.dram_numbers is None else getattr(self, f"dram_{number}").due

    def _names(self, prefix: str) -> list[str]:
        return [name[len(prefix) :] for name in axi_pads(self.record) if name.startswith(prefix)]

    def _silence(self, m: Module, pad: dict[str, Any], name: str) -> Value:
        """1 while the port gives no beat."""
        if not self.silent_from:
            return Const(0)
        beats = Signal(range(self.silent_from + 1), name=f"beats_{name}")
        cycles = Signal(range(self.silent_cycles + 1), name=f"silence_{name}")
        silent = Signal(name=f"silent_{name}")
        m.d.comb += silent.eq((beats == self.silent_from) & (cycles != self.silent_cycles))
        with m.If(silent):
            m.d.sync += cycles.eq(cycles + 1)
        with m.Elif(pad["rvalid"] & pad["rready"] & (beats != self.silent_from)):
            m.d.sync += beats.eq(beats + 1)
        return silent

    def _write(
        self,
        m: Module,
        number: int,
        pad: dict[str, Any],
        name: str,
        base: int,
        now: Signal,
        busy: Value,
    ) -> tuple[Signal, Signal]:
        """The channels that write: whether a line is written in this cycle, and which."""
        shift = (self.record.beat_bytes - 1).bit_length()
        store: Any = getattr(self, f"store_{number}")
        has_address = Signal(name=f"has_address_{name}")
        has_word = Signal(name=f"has_word_{name}")
        line = Signal(32, name=f"written_{name}")
        word = Signal(self.record.width, name=f"word_{name}")
        answers = Signal(name=f"answers_{name}")
        due = Signal(TIME_BITS, name=f"answer_due_{name}")
        writes = Signal(name=f"writes_{name}")
        m.d.comb += [
            pad["awready"].eq(~has_address & ~self._pause(m, "aw", number, now)),
            pad["wready"].eq(~has_word & ~self._pause(m, "w", number, now)),
            writes.eq(has_address & has_word & ~answers & ~busy),
            store.data.eq(word),
        ]
        with m.If(pad["awvalid"] & pad["awready"]):
            m.d.sync += [has_address.eq(1), line.eq((pad["awaddr"] - base) >> shift)]
        with m.If(pad["wvalid"] & pad["wready"]):
            m.d.sync += [has_word.eq(1), word.eq(pad["wdata"])]
        with m.If(writes):
            m.d.sync += [
                has_address.eq(0),
                has_word.eq(0),
                answers.eq(1),
                due.eq(now + self.latency),
                pad["bresp"].eq(Mux(self._is_wrong(line), RESPONSES[self.error], 0)),
            ]
        pauses = self._pause(m, "b", number, now)
        with m.If(answers & (now >= due) & ~pad["bvalid"] & ~pauses):
            m.d.sync += pad["bvalid"].eq(1)
        with m.If(pad["bvalid"] & pad["bready"]):
            m.d.sync += [pad["bvalid"].eq(0), answers.eq(0)]
        return writes, line

    def _rules(self, m: Module, pad: dict[str, Any], name: str, line: Value, lines: int) -> Signal:
        """The number of the rule that is broken in this cycle."""
        record = self.record
        shift = (record.beat_bytes - 1).bit_length()
        in_page = (PAGE_BYTES - 1).bit_length()
        broken = Signal(len(self.violation), name=f"broken_{name}")
        last = pad["araddr"][:in_page] + (pad["arlen"] << shift)
        with m.If(pad["arvalid"]):
            with m.If(last >= PAGE_BYTES):
                m.d.comb += broken.eq(1)
            with m.If(line + pad["arlen"] >= lines):
                m.d.comb += broken.eq(3)
            with m.If(pad["arsize"] != shift):
                m.d.comb += broken.eq(5)
        with m.If(pad["wvalid"] & ((~pad["wstrb"]).any() | ~pad["wlast"])):
            m.d.comb += broken.eq(4)
        for channel, payload, rule in (
            ("ar", ("araddr", "arlen"), 2),
            ("aw", ("awaddr", "awlen"), 2),
            ("w", ("wdata",), 6),
        ):
            valid, ready = pad[f"{channel}valid"], pad[f"{channel}ready"]
            waited = Signal(name=f"waited_{channel}_{name}")
            m.d.sync += waited.eq(valid & ~ready)
            wrong: Value = ~valid
            for field in payload:
                before = Signal.like(pad[field], name=f"before_{field}_{name}")
                m.d.sync += before.eq(pad[field])
                wrong = wrong | (before != pad[field])
            with m.If(waited & wrong):
                m.d.comb += broken.eq(rule)
        return broken
