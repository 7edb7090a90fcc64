"""Ethernet's frames on GMII: preamble, FCS and gap; a byte a cycle in the PHY's clock."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.crc import CRC32

__all__ = ["FCS_BYTES", "FRAME_ITEM", "GAP_BYTES", "GmiiReceiver", "GmiiTransmitter"]

FRAME_ITEM = data.StructLayout({"data": 16, "end": 1})
"""Two bytes of a frame, the first one high; or, with `end`, its verdict: bit 0 of `data` says that
the FCS was right, bit 1 that the item before holds only one byte, in its high half."""
FCS_BYTES = 4
GAP_BYTES = 12
"""Least byte times between two frames."""
PREAMBLE, START = 0x55, 0xD5
PREAMBLE_BYTES = 8
READ_CYCLES = 2
"""Cycles from a frame store's address to its word: the block RAM, and a register behind it."""


class GmiiReceiver(wiring.Component):
    """Takes frames from the PHY, without preamble and FCS.

    A frame whose items find no room at `o`, whose FCS is wrong or in which the PHY has found an
    error ends with the verdict that it is wrong. Frames without a start byte are skipped.

    Members
    -------
    rx, dv, er : in; the PHY's bytes
    o : out, stream of `FRAME_ITEM`
        Words must be taken in the cycle in which they come, or they are lost and the frame is
        wrong. Its end waits.
    """

    rx: Signal
    dv: Signal
    er: Signal
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__(
            {"rx": In(8), "dv": In(1), "er": In(1), "o": Out(stream.Signature(FRAME_ITEM))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32.create()
        byte, dv, er = Signal(8, reset_less=True), Signal(), Signal()
        inside = Signal()  # between the start byte and the carrier's end
        skip = Signal()  # the carrier began without a preamble
        wrong = Signal()
        held = Signal(8 * FCS_BYTES, reset_less=True)  # they may be the FCS
        count = Signal(range(FCS_BYTES + 1))  # bytes in `held`
        high = Signal(8, reset_less=True)  # the first byte of a word
        odd = Signal()  # there is such a byte
        closes = Signal()  # the carrier has ended, and the end has not left
        half, whole = Signal(), Signal()
        word = Signal()
        m.d.sync += [byte.eq(self.rx), dv.eq(self.dv), er.eq(self.er)]
        m.d.comb += [crc.data.eq(byte), crc.valid.eq(inside & dv), crc.start.eq(~inside)]
        oldest = held[-8:]
        with m.If(inside & dv):
            m.d.sync += held.eq(Cat(byte, held[:-8]))
            with m.If(count != FCS_BYTES):
                m.d.sync += count.eq(count + 1)
            with m.Else():
                m.d.sync += [high.eq(oldest), odd.eq(~odd)]
                m.d.comb += word.eq(odd)
        m.d.comb += [
            self.o.payload.data.eq(Mux(closes, Cat(whole & ~wrong, half), Cat(oldest, high))),
            self.o.payload.end.eq(closes),
            self.o.valid.eq(word | closes | (inside & ~dv & odd)),
        ]
        with m.If(closes & self.o.ready):
            m.d.sync += closes.eq(0)
        with m.If(inside):
            with m.If((er & dv) | closes | (self.o.valid & ~self.o.ready)):
                m.d.sync += wrong.eq(1)
            with m.If(~dv):
                m.d.sync += [
                    inside.eq(0),
                    closes.eq(1),
                    half.eq(odd),
                    whole.eq(crc.match_detected & (count == FCS_BYTES)),
                ]
        with m.Else():
            m.d.sync += [skip.eq(dv), count.eq(0), odd.eq(0)]
            with m.If(~closes):
                m.d.sync += wrong.eq(0)
            with m.If(dv & ~skip & (byte == START)):
                m.d.sync += [inside.eq(1), skip.eq(0)]
            with m.Elif(dv & ~skip & (byte == PREAMBLE)):
                m.d.sync += skip.eq(0)
        return m


class GmiiTransmitter(wiring.Component):
    """Sends frames that lie in a store of 16-bit words, with preamble, FCS and gap.

    The first word of a slot is the number of the frame's bytes, at least 60. The frame follows, the
    first byte of each word high.

    Parameters
    ----------
    slots, slot_words : the store's, powers of two

    Members
    -------
    waiting : in, 1 bit
        The slot `slot` holds a frame.
    slot : out, number
        The slot that is sent, or is sent next.
    sent : out, 1 bit
        Strobe: the slot is free again, and `slot` becomes the next one.
    address : out, number of a word
    word : in, 16 bits
        The word at that address, `READ_CYCLES` later.
    tx, en : out; bytes for the PHY
    """

    waiting: Signal
    slot: Signal
    sent: Signal
    address: Signal
    word: Signal
    tx: Signal
    en: Signal

    def __init__(self, slots: int, slot_words: int) -> None:
        self.slot_words = slot_words
        super().__init__(
            {
                "waiting": In(1),
                "slot": Out(range(slots)),
                "sent": Out(1),
                "address": Out(range(slots * slot_words)),
                "word": In(16),
                "tx": Out(8),
                "en": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place = Signal(range(self.slot_words))  # of a word in the slot
        low = Signal()  # the word's low byte is next
        left = Signal(11)  # bytes of the frame after this one
        count = Signal(range(16))
        _nothing, preamble, body, fcs = range(4)
        kind = Signal(2)  # of the byte whose address is in `address`
        start = Signal()
        m.d.comb += self.address.eq(Cat(place, self.slot))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [place.eq(0), low.eq(0), count.eq(0)]
                with m.If(self.waiting):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == READ_CYCLES):
                    m.d.sync += [left.eq(self.word - 1), count.eq(0), place.eq(1)]
                    m.next = "PREAMBLE"
            with m.State("PREAMBLE"):
                m.d.comb += [kind.eq(preamble), start.eq(count == PREAMBLE_BYTES - 1)]
                m.d.sync += count.eq(count + 1)
                with m.If(start):
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += kind.eq(body)
                m.d.sync += [low.eq(~low), left.eq(left - 1), count.eq(0)]
                with m.If(low):
                    m.d.sync += place.eq(place + 1)
                with m.If(left == 0):
                    m.next = "FCS"
            with m.State("FCS"):
                m.d.comb += kind.eq(fcs)
                m.d.sync += count.eq(count + 1)
                with m.If(count == FCS_BYTES - 1):
                    m.d.comb += self.sent.eq(1)
                    m.d.sync += [self.slot.eq(self.slot + 1), count.eq(0)]
                    m.next = "GAP"
            with m.State("GAP"):  # one cycle of IDLE and those of LENGTH are part of it
                m.d.sync += [count.eq(count + 1), place.eq(0), low.eq(0)]
                with m.If(count == GAP_BYTES - READ_CYCLES - 3):
                    m.next = "IDLE"
        self._send(m, kind, low, start, (preamble, body, fcs))
        return m

    def _send(self, m: Module, kind: Signal, low: Signal, start: Signal, kinds: Any) -> None:
        """Send the bytes, each `READ_CYCLES` and two registers behind its address."""
        preamble, body, fcs = kinds
        m.submodules.crc = crc = CRC32.create()
        for _ in range(READ_CYCLES):
            later = [
                Signal.like(signal, name=f"{signal.name}_late") for signal in (kind, low, start)
            ]
            m.d.sync += [
                late.eq(early) for late, early in zip(later, (kind, low, start), strict=True)
            ]
            kind, low, start = later
        byte, state = Signal(8, reset_less=True), Signal(2)
        turn = Signal(range(FCS_BYTES))
        m.d.sync += [state.eq(kind), byte.eq(Mux(low, self.word[:8], self.word[8:]))]
        with m.If(kind == preamble):
            m.d.sync += byte.eq(Mux(start, START, PREAMBLE))
        m.d.comb += [
            crc.data.eq(byte),
            crc.valid.eq(state == body),
            crc.start.eq(state == preamble),
        ]
        m.d.sync += [
            self.en.eq(state != 0),
            self.tx.eq(Mux(state == fcs, crc.crc.word_select(turn, 8), byte)),
            turn.eq(0),
        ]
        with m.If(state == fcs):
            m.d.sync += turn.eq(turn + 1)
