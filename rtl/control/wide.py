"""Receiver and word collector for links that bring several bytes of a command in a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import WideCrc32
from tritloom.rtl.lib.streams import bits_for, packet_layout, stream_from_memory
from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["BEAT_BYTES", "WidePacketReceiver", "WideWordCollector"]

BEAT_BYTES = 2
"""Bytes of a command that move in a cycle."""
RESIDUE = 0x2144DF1C
"""The CRC-32 of any bytes with their own CRC-32 behind them."""


class WidePacketReceiver(wiring.Component):
    """As `PacketReceiver`, with `BEAT_BYTES` bytes a cycle. A packet begins with a beat.

    The members are those of `PacketReceiver`, with beats in the place of bytes. What follows a
    packet in its last beat is ignored.
    """

    i: stream.Interface
    abort: Signal
    crowded: Signal
    o: stream.Interface
    good: Signal
    bad: Signal
    dropped: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(packet_layout(BEAT_BYTES))),
                "abort": In(1),
                "crowded": In(1),
                "o": Out(stream.Signature(8 * BEAT_BYTES)),
                "good": Out(1),
                "bad": Out(1),
                "dropped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        # It is even, so a packet of too many bytes has too many beats.
        most = (config.max_payload + OVERHEAD_BYTES) // BEAT_BYTES
        depth = config.slots * config.packet_bytes // BEAT_BYTES
        m.submodules.crc = crc = WideCrc32(BEAT_BYTES)
        m.submodules.buffer = buffer = block_ram(8 * BEAT_BYTES, depth)
        write = buffer.write_port()
        read = ReadPort(m, buffer)

        head = Signal(range(depth))  # place of the next beat to write
        limit = Signal(range(depth))  # end of the packets that were released
        tail = Signal(range(depth))  # place of the next beat to read
        count = Signal(bits_for(most))  # beats of the packet so far, at most `most`
        length = Signal(16)  # what the header states
        wrong = Signal()  # the packet is too long or was aborted
        full = Signal()  # a beat of the packet found no room
        check = Signal()  # the packet's last beat came in the cycle before
        sound = Signal()
        beat, last = self.i.payload.data, self.i.payload.last
        stated = Signal(16)
        m.d.comb += stated.eq(Mux(count == 0, beat, length))
        m.d.comb += [
            self.i.ready.eq(~check),
            write.addr.eq(head),
            write.data.eq(beat),
            crc.data.eq(beat),
            # A packet of an odd length ends in the low half of its last beat.
            crc.size.eq(Mux(last & stated[0], 1, BEAT_BYTES)),
            crc.start.eq(check),
            sound.eq(
                (crc.crc == RESIDUE)
                & (((length + 1) >> 1)[:16] == count)
                & (length >= OVERHEAD_BYTES)
                & ~wrong
            ),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.comb += crc.valid.eq(1)
            with m.If((head + 1)[: len(head)] == tail):
                m.d.sync += full.eq(1)
            with m.Else():
                m.d.comb += write.en.eq(1)
                m.d.sync += head.eq(head + 1)
            with m.If(count == most):
                m.d.sync += wrong.eq(1)
            with m.Else():
                m.d.sync += count.eq(count + 1)
            m.d.sync += length.eq(stated)
            with m.If(self.abort):
                m.d.sync += wrong.eq(1)
            m.d.sync += check.eq(last)
        with m.If(check):
            m.d.sync += [check.eq(0), count.eq(0), wrong.eq(0), full.eq(0), head.eq(limit)]
            m.d.comb += [
                self.good.eq(sound & ~full & ~self.crowded),
                self.bad.eq(~sound),
                self.dropped.eq(sound & (full | self.crowded)),
            ]
            with m.If(self.good):
                # The checksum is as long as whole beats, so it adds as many wherever it begins.
                end = (head - CRC_BYTES // BEAT_BYTES)[: len(head)]
                m.d.sync += [head.eq(end), limit.eq(end)]

        m.d.comb += read.addr.eq(tail)
        with m.If(stream_from_memory(m, read, self.o, tail != limit)):
            m.d.sync += tail.eq(tail + 1)
        return m


class WideWordCollector(wiring.Component):
    """As `WordCollector`, with `BEAT_BYTES` bytes a cycle.

    A word may end within a beat; the rest of the beat begins the next word.

    Members
    -------
    size, clear, take, word, complete, partial : as in `WordCollector`
    enter : in, 1 bit
        `beat` enters at the end of this cycle. Only if `free`.
    beat : in, 8 × `BEAT_BYTES` bits
    single : in, 1 bit
        Only the first byte of `beat` enters.
    free : out, 1 bit
        A beat may enter in this cycle: after what is taken no word is complete.
    """

    size: Signal
    clear: Signal
    enter: Signal
    beat: Signal
    single: Signal
    free: Signal
    complete: Signal
    partial: Signal
    take: Signal
    word: Signal

    def __init__(self, word_bytes: int) -> None:
        self.word_bytes = word_bytes
        super().__init__(
            {
                "size": In(range(word_bytes + 1)),
                "clear": In(1),
                "enter": In(1),
                "beat": In(8 * BEAT_BYTES),
                "single": In(1),
                "free": Out(1),
                "complete": Out(1),
                "partial": Out(1),
                "take": In(1),
                "word": Out(8 * word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The newest byte is at the top. With one byte of the next word above it, a word lies one
        # byte lower.
        held = Signal(8 * (self.word_bytes + 1), reset_less=True)
        count = Signal(bits_for(self.word_bytes + 1))  # bytes in `held`
        beyond = Signal()  # one of them belongs to the next word
        rest = Signal(len(count))  # of them that stay
        bytes_after = Signal(len(count))
        m.d.comb += [
            self.word.eq(Mux(beyond, held[: 8 * self.word_bytes], held[8:])),
            self.partial.eq((count != 0) & ~self.complete),
            rest.eq(Mux(self.take, beyond, count)),
            self.free.eq(~self.complete | (self.take & ~(beyond & (self.size == 1)))),
            bytes_after.eq(rest + Mux(self.enter, Mux(self.single, 1, BEAT_BYTES), 0)),
        ]
        with m.If(self.enter):
            m.d.sync += held.eq(
                Mux(
                    self.single,
                    Cat(held[8:], self.beat[:8]),
                    Cat(held[16:], self.beat),
                )
            )
        with m.If(self.enter | self.take):
            m.d.sync += [
                count.eq(bytes_after),
                self.complete.eq(bytes_after >= self.size),
                beyond.eq(bytes_after > self.size),
            ]
        with m.If(self.clear):
            m.d.sync += [count.eq(0), self.complete.eq(0), beyond.eq(0)]
        return m
