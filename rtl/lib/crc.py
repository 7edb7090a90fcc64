"""The checksum of packets and frames in hardware: CRC-32 of IEEE 802.3, a beat a cycle."""

import operator
import zlib
from functools import reduce

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

__all__ = ["CRC32", "WideCrc32"]

CRC32 = CRC32_ISO_HDLC(data_width=8)
"""The checksum of a stream of bytes."""
ONES = 0xFFFFFFFF


class WideCrc32(wiring.Component):
    """The checksum of beats of several bytes, of which the last may be cut short.

    A CRC is linear: each bit of the next state is the sum, modulo 2, of bits of the state and of
    the data. `zlib` gives the sums.

    Parameters
    ----------
    beat_bytes : bytes of a beat

    Members
    -------
    start : in, 1 bit
        The checksum begins anew, from the next cycle on.
    valid : in, 1 bit
        `data` enters at the end of this cycle. Not together with `start`.
    data : in, 8 × `beat_bytes` bits
        The bytes, the first one lowest.
    size : in, number
        How many of them count, at least 1.
    crc : out, 32 bits
        The checksum of the beats since `start`.
    """

    start: Signal
    valid: Signal
    data: Signal
    size: Signal
    crc: Signal

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "data": In(8 * beat_bytes),
                "size": In(range(beat_bytes + 1)),
                "crc": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state = Signal(32, init=ONES)
        m.d.comb += self.crc.eq(~state)
        after: list[Signal] = []  # the state after each byte
        for number in range(self.beat_bytes):
            byte = self.data.word_select(number, 8)
            following = Signal(32, name=f"after_{number}")
            m.d.comb += following.eq(_next(after[-1] if after else state, byte))
            after.append(following)
        last = (self.size - 1)[: (self.beat_bytes - 1).bit_length()]
        with m.If(self.start):
            m.d.sync += state.eq(ONES)
        with m.Elif(self.valid):
            m.d.sync += state.eq(Array(after)[last])
        return m


STATE_ROWS = [zlib.crc32(b"\0", ONES ^ 1 << bit) ^ ONES for bit in range(32)]
DATA_ROWS = [zlib.crc32(bytes([1 << bit]), ONES) ^ ONES for bit in range(8)]
"""What each bit of the state, and of a byte, adds to the state after the byte."""


def _next(state: Value, byte: Value) -> Value:
    """The state after a byte."""
    terms = list(zip([*state, *byte], STATE_ROWS + DATA_ROWS, strict=True))
    return Cat(
        reduce(operator.xor, (term for term, row in terms if row >> bit & 1)) for bit in range(32)
    )
