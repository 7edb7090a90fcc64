"""Frames: the Python form and the hardware agree, whole packets pass, all others are found."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from tests.support import quick_first
from tritloom.rtl.links.cobs import FrameDecoder, FrameEncoder
from tritloom.rtl.spec.frames import (
    BLOCK_BYTES,
    CHECK_BYTES,
    check_bytes,
    cobs_decode,
    cobs_encode,
    decode_frame,
    encode_frame,
    most_frame_bytes,
)
from tritloom.sim.conformance.streams import FLOWS, simulate, sink, source

EDGES = [1, 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 600]


def packets(seed: int, count: int = 12) -> list[bytes]:
    rng = random.Random(seed)
    alphabets = [(0,), (0, 1, 255), range(1, 256), range(256)]
    chosen = [b"\0", b"\0\0", b"\1" * BLOCK_BYTES, b"\1" * BLOCK_BYTES + b"\0"]
    for _ in range(count):
        chosen.append(bytes(rng.choices(rng.choice(alphabets), k=rng.choice(EDGES))))
    return chosen


def items_of(packet: bytes) -> list[dict[str, int]]:
    return [{"data": byte, "last": n == len(packet) - 1} for n, byte in enumerate(packet)]


@pytest.mark.parametrize("seed", range(20))
def test_a_frame_gives_its_packet_back(seed: int) -> None:
    for packet in packets(seed):
        frame = encode_frame(packet)
        assert frame[0] == frame[-1] == 0
        assert 0 not in frame[1:-1]
        assert decode_frame(frame[1:-1]) == packet


@pytest.mark.parametrize("size", [1, 20, 253, 254, 255, 508, 509, 1024])
def test_longest_frame(size: int) -> None:
    """A packet without zeros has it; no packet of that length has a longer one."""
    assert len(encode_frame(b"\1" * size)) == most_frame_bytes(size)
    rng = random.Random(size)
    for alphabet in ((0,), (0, 1, 255), range(256)):
        packet = bytes(rng.choices(alphabet, k=size))
        assert len(encode_frame(packet)) <= most_frame_bytes(size)
    assert len(encode_frame(b"\1" * (size - 1) + b"\0")) <= most_frame_bytes(size)


def test_known_encodings() -> None:
    """Examples of the paper."""
    assert cobs_encode(b"") == b"\1"
    assert cobs_encode(b"\0") == b"\1\1"
    assert cobs_encode(b"\x11\x22\x00\x33") == b"\x03\x11\x22\x02\x33"
    assert cobs_encode(bytes(range(1, 255))) == b"\xff" + bytes(range(1, 255))
    assert cobs_encode(bytes(range(1, 256))) == b"\xff" + bytes(range(1, 255)) + b"\x02\xff"
    assert check_bytes(b"123456789")[:1] == bytes([0x80 | 0xCBF43926 & 0x7F])


@pytest.mark.parametrize("body", [b"\x05\x11", b"\x03\x11\x00", b"\x00", b"\x02\x00"])
def test_a_block_that_cannot_be_is_refused(body: bytes) -> None:
    assert cobs_decode(body) is None
    assert decode_frame(body + check_bytes(body)) is None


@pytest.mark.parametrize("seed", range(4))
def test_every_short_burst_is_found(seed: int) -> None:
    """All bursts of up to 32 wrong bits that leave the zeros alone; each place, random inside."""
    rng = random.Random(seed)
    frame = encode_frame(rng.choice(packets(seed, 2)[-2:])[:200])[1:-1]
    word = int.from_bytes(frame, "little")
    for start in range(8 * len(frame)):
        width = rng.randint(1, min(32, 8 * len(frame) - start))
        burst = 1 | rng.getrandbits(width) | 1 << (width - 1)
        wrong = (word ^ burst << start).to_bytes(len(frame), "little")
        if 0 not in wrong:
            assert decode_frame(wrong) is None


def frames_without_a_mark() -> list[bytes]:
    """Frames in which one byte of the check lost its mark bit but is not 0."""
    rng = random.Random(9)
    frames = []
    for place in range(CHECK_BYTES):
        while True:
            frame = bytearray(encode_frame(rng.randbytes(20)))
            at = len(frame) - 1 - CHECK_BYTES + place
            frame[at] &= 0x7F
            if frame[at]:
                break
        frames.append(bytes(frame))
    return frames


def test_every_mark_bit_of_the_check_counts() -> None:
    frames = frames_without_a_mark()
    assert [decode_frame(frame[1:-1]) for frame in frames] == [None] * CHECK_BYTES
    packets_ = decode_line(b"".join(frames), 0, 0)
    assert [abort for _, abort in packets_] == [True] * CHECK_BYTES


def test_one_bit_of_a_frame_can_move_bytes_far_apart() -> None:
    """Why the check is over the encoded bytes: in the packet this is no short burst any more."""
    rng = random.Random(1)
    spans = []
    for _ in range(2000):
        packet = bytes(rng.choices((0, 1, 2, 3, 4), k=24))
        body = bytearray(cobs_encode(packet))
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(3)
        moved = cobs_decode(bytes(body)) or b""
        if len(moved) == len(packet) and moved != packet:
            wrong = [n for n, (a, b) in enumerate(zip(moved, packet, strict=True)) if a != b]
            spans.append(wrong[-1] - wrong[0] + 1)
    assert max(spans) > 4


@quick_first(("idle", "pause"), FLOWS)
def test_the_encoder_sends_what_python_does(idle: float, pause: float) -> None:
    chosen = packets(1, 4)
    expected = b"".join(map(encode_frame, chosen))
    dut = FrameEncoder()
    sent: list[int] = []
    items = [item for packet in chosen for item in items_of(packet)]
    simulate(
        dut,
        source(dut.i, items, idle),
        sink(dut.o, len(expected), sent, pause),
        deadline_cycles=40_000,
    )
    assert bytes(sent) == expected


def decode_line(line: bytes, idle: float, pause: float, seed: int = 0) -> list[tuple[bytes, bool]]:
    """What the decoder makes of bytes on the line: packets, and whether each is to be dropped."""
    dut = FrameDecoder()
    rng = random.Random(seed)
    packets: list[tuple[bytes, bool]] = []
    done = []

    async def watch(ctx):
        current = bytearray()
        last_byte = None
        while not done or last_byte is not None:
            ready = rng.random() >= pause if pause < 1 else last_byte is not None
            ctx.set(dut.o.ready, ready)
            *_, valid, byte, last, abort = await ctx.tick().sample(
                dut.o.valid, dut.o.payload.data, dut.o.payload.last, dut.abort
            )
            assert last_byte is None or (valid and last_byte == (byte, last, abort)), "did not hold"
            last_byte = (byte, last, abort) if valid and not ready else None
            if valid and ready:
                current.append(byte)
                if last:
                    packets.append((bytes(current), bool(abort)))
                    current.clear()

    async def feed(ctx):
        await source(dut.i, list(line), idle, seed)(ctx)
        for _ in range(20):
            await ctx.tick()
        done.append(True)

    simulate(dut, watch, feed, deadline_cycles=60_000)
    return packets


@quick_first(("idle", "pause"), FLOWS)
def test_the_decoder_takes_whole_frames(idle: float, pause: float) -> None:
    chosen = packets(2, 4)
    line = b"".join(map(encode_frame, chosen))
    assert decode_line(line, idle, pause) == [(packet, False) for packet in chosen]


def test_the_decoder_starts_afresh_after_garbage() -> None:
    rng = random.Random(3)
    chosen = packets(3, 4)
    line = bytearray()
    for packet in chosen:
        line += rng.randbytes(rng.randrange(40)) + encode_frame(packet)
    whole = [packet for packet, abort in decode_line(bytes(line), 0, 0) if not abort]
    assert whole == chosen


@pytest.mark.parametrize("seed", range(6))
def test_the_decoder_agrees_with_python_on_damaged_frames(seed: int) -> None:
    """A bit, a byte lost, a byte more, a byte made 0, the end lost; and a check of random bytes."""
    rng = random.Random(seed)
    line = bytearray(b"\0")
    for packet in packets(seed, 4):
        frame = bytearray(encode_frame(packet[:60]))
        place = rng.randrange(1, len(frame) - 1)
        kind = rng.randrange(5)
        if kind == 0:
            frame[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del frame[place]
        elif kind == 2:
            frame.insert(place, rng.randrange(256))
        elif kind == 3:
            frame[place] = 0
        else:
            frame[-CHECK_BYTES - 1 : -1] = bytes(rng.choices(range(1, 256), k=CHECK_BYTES))
        line += frame
    line += b"\0"
    expected = [decode_frame(inside) for inside in bytes(line).split(b"\0") if inside]
    whole = [packet for packet, abort in decode_line(bytes(line), 0, 0) if not abort]
    assert whole == [packet for packet in expected if packet]


@pytest.mark.sim
def test_encoder_and_decoder_together() -> None:
    chosen = packets(5, 6)
    m = Module()
    m.submodules.encoder = encoder = FrameEncoder()
    m.submodules.decoder = decoder = FrameDecoder()
    connect(m, encoder.o, decoder.i)
    items = [item for packet in chosen for item in items_of(packet)]
    received: list[dict[str, int]] = []
    simulate(
        m,
        source(encoder.i, items),
        sink(decoder.o, len(items), received, 0.3),
        deadline_cycles=60_000,
    )
    assert received == items
