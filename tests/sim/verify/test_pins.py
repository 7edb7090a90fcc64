"""Packets as beats of a stream, and back."""

import random

import pytest

from tritloom.rtl.spec.commands import Opcode, Request, sound
from tritloom.sim.verify.pins import beats_of, packet_of

PACKET = Request(Opcode.IDENTIFY, 1, 77, count=4, payload=b"abc").pack()


def bytes_of(beats: list[int], beat_bytes: int) -> bytes:
    """The bytes of the beats; only the last one must have the mark above them."""
    marks = [beat >> 8 * beat_bytes for beat in beats]
    assert marks == [0] * (len(beats) - 1) + [1]
    low = (1 << 8 * beat_bytes) - 1
    return b"".join((beat & low).to_bytes(beat_bytes, "little") for beat in beats)


@pytest.mark.parametrize("beat_bytes", [1, 2, 4, 8])
def test_a_packet_goes_through_beats(beat_bytes: int) -> None:
    rng = random.Random(beat_bytes)
    fillings = set()
    for _ in range(20):
        whole = bytes_of(beats_of(PACKET, beat_bytes, rng), beat_bytes)
        assert len(whole) == -(-len(PACKET) // beat_bytes) * beat_bytes
        assert packet_of(whole, beat_bytes) == PACKET
        fillings.add(whole[len(PACKET) :])
    assert (len(fillings) == 1) == (beat_bytes == 1), "what follows a packet is random"


@pytest.mark.parametrize("beat_bytes", [2, 4, 8])
def test_no_filling_completes_a_packet_that_was_cut_short(beat_bytes: int) -> None:
    packet = Request(Opcode.IDENTIFY, 1, 77, count=4).pack()
    cut = packet[:-1]
    assert packet[-1] != 0 and len(cut) % beat_bytes != 0

    class Malicious(random.Random):
        """Gives the byte that is missing, until the third time."""

        tries = 0

        def randbytes(self, n: int) -> bytes:
            self.tries += 1
            return packet[-1:] + bytes(n - 1) if self.tries < 3 else bytes(n)

    rng = Malicious()
    whole = bytes_of(beats_of(cut, beat_bytes, rng), beat_bytes)
    assert rng.tries == 3
    assert not sound(packet_of(whole, beat_bytes))


def test_a_packet_that_ends_elsewhere_than_it_states_is_wrong() -> None:
    right = PACKET + bytes(-len(PACKET) % 8)
    assert packet_of(right, 8) == PACKET
    full = Request(Opcode.IDENTIFY, 1, 77, count=4, payload=b"abcd").pack()
    assert len(full) % 8 == 0 and packet_of(full, 8) == full
    for wrong in (right + bytes(8), right[:-8], PACKET[:1], full + bytes(8)):
        assert packet_of(wrong, 8) == wrong
        assert not sound(wrong)
