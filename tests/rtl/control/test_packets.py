"""Receiver and sender against `seal` and `sound`: what is kept, dropped and sent."""

import random
from dataclasses import replace

import pytest

from tests.support import quick_first
from tests.support.packet_kinds import packet_of, packets_of
from tests.support.packets import beats_of, packets_in
from tritloom.rtl.control.packets import PacketNarrower, PacketReceiver, PacketSender
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import CRC_BYTES, HEADER_BYTES, sound
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.sim.conformance.streams import FLOWS, simulate, sink, source

LARGE = AcceleratorConfig(
    lanes=5,
    rows=1,
    memory=BlockRam(words=8),
    max_in_features=20,
    max_out_features=8,
    packet_bytes=256,
    slots=4,
)
CONFIGS = {"tiny": TINY, "large": LARGE}


def items_of(packets: list[bytes]) -> list[dict[str, int]]:
    return [
        {"data": byte, "last": position == len(packet) - 1}
        for packet in packets
        for position, byte in enumerate(packet)
    ]


class Strobes:
    """Counts the receiver's strobes; `i.ready` must be low in the cycle after a packet only."""

    def __init__(self, dut: PacketReceiver) -> None:
        self.dut = dut
        self.counts = [0, 0, 0]

    def until(self, total: int):
        async def bench(ctx):
            dut, after_last = self.dut, 0
            while sum(self.counts) < total:
                *_, good, bad, dropped, ready, last = await ctx.tick().sample(
                    dut.good,
                    dut.bad,
                    dut.dropped,
                    dut.i.ready,
                    dut.i.valid & dut.i.ready & dut.i.payload.last,
                )
                self.counts[0] += good
                self.counts[1] += bad
                self.counts[2] += dropped
                assert ready == (not after_last)
                after_last = last

        return bench


@quick_first(("idle", "pause"), FLOWS[3::-1])
@quick_first("name", CONFIGS)
def test_receiver(name, idle, pause):
    config = CONFIGS[name]
    packets = packets_of(config, random.Random(7))
    right = [p for p in packets if sound(p) and len(p) <= config.packet_bytes]
    expected = b"".join(packet[:-CRC_BYTES] for packet in right)
    dut = PacketReceiver(config)
    strobes = Strobes(dut)
    received: list[int] = []

    async def paced(ctx):
        """As a driver with credit does: a packet when there is room for it."""
        accepted = 0
        for number, packet in enumerate(packets):
            while accepted - len(received) > (config.slots - 1) * config.packet_bytes:
                await ctx.tick()
            await source(dut.i, items_of([packet]), idle, number)(ctx)
            if packet in right:
                accepted += len(packet) - CRC_BYTES

    simulate(
        dut, paced, sink(dut.o, len(expected), received, pause, 8), strobes.until(len(packets))
    )
    assert bytes(received) == expected
    assert strobes.counts == [len(right), len(packets) - len(right), 0]


@quick_first("name", CONFIGS)
def test_receiver_keeps_the_credit_it_gives(name):
    """`slots` × `packet_bytes` less one packet fit with no byte taken; then packets drop."""
    config = CONFIGS[name]
    rng = random.Random(9)
    window = [packet_of(rng, config.max_payload) for _ in range(config.window)]
    junk = bytearray(packet_of(rng, config.max_payload))
    junk[20] ^= 1
    more = [packet_of(rng, config.max_payload) for _ in range(4)]
    after = [packet_of(rng, size) for size in (5, config.max_payload)]
    dut = PacketReceiver(config)
    strobes = Strobes(dut)
    received: list[int] = []

    async def send(ctx):
        await source(dut.i, items_of([*window, bytes(junk)]))(ctx)
        assert strobes.counts == [config.window, 1, 0]
        await source(dut.i, items_of(more))(ctx)
        good = strobes.counts[0]
        # Only the checksums that are not kept make room; the rest was dropped, none was cut.
        assert good <= config.window + 1
        assert strobes.counts == [good, 1, len(more) + config.window - good]
        expected = b"".join(packet[:-CRC_BYTES] for packet in [*window, *more][:good])
        await sink(dut.o, len(expected), received)(ctx)
        assert bytes(received) == expected
        received.clear()
        await source(dut.i, items_of(after))(ctx)
        expected = b"".join(packet[:-CRC_BYTES] for packet in after)
        await sink(dut.o, len(expected), received)(ctx)
        assert bytes(received) == expected

    total = len(window) + 1 + len(more) + len(after)
    simulate(dut, strobes.until(total), send)


async def store(ctx, dut: PacketSender, slot: int, body: bytes, rng: random.Random) -> None:
    """Store a response in a slot, its header last and in pieces, as the responder does."""
    beat = dut.beat_bytes
    start = slot * dut.config.packet_bytes // beat
    size = -(-len(body) // beat)
    for place in (*range(HEADER_BYTES // beat, size), *range(HEADER_BYTES // beat)):
        data = body[beat * place : beat * (place + 1)].ljust(beat, b"\x5a")
        masks = [(1 << beat) - 1]
        if place < HEADER_BYTES // beat:
            part = rng.getrandbits(beat)
            masks = [part, masks[0] & ~part]
        for mask in masks:
            raw = bytes(
                byte if mask >> n & 1 else rng.randrange(256) for n, byte in enumerate(data)
            )
            ctx.set(dut.address, start + place)
            ctx.set(dut.data, int.from_bytes(raw, "little"))
            ctx.set(dut.mask, mask)
            ctx.set(dut.write, 1)
            await ctx.tick()
    ctx.set(dut.write, 0)
    ctx.set(dut.data, 0)
    ctx.set(dut.mask, (1 << beat) - 1)


@quick_first("pause", [0.4, 0.0, 1.0])
@quick_first("width", [8, 1, 2, 4])
@quick_first("name", CONFIGS)
def test_sender(name, width, pause):
    """Responses of every size in the last beat; the masks keep each byte that they must keep."""
    config = replace(CONFIGS[name], link=PacketStream(width=width))
    rng = random.Random(10)
    most = config.max_payload
    sizes = [*range(width + 1), most, most - 1, *rng.choices(range(most + 1), k=3)]
    packets = [packet_of(rng, size) for size in sizes]
    order = [*range(len(packets)), 0]
    dut = PacketSender(config)
    received: list[dict[str, int]] = []
    sent: list[bytes] = []

    async def responses(ctx):
        for number in order:
            slot = number % config.slots
            # Another slot is written while the last one is being sent.
            await store(ctx, dut, slot, packets[number][:-CRC_BYTES], rng)
            sent.append(packets[number])
            await source(dut.i, [slot])(ctx)
        again = order[-1] % config.slots  # kept: it can be sent once more
        sent.append(packets[order[-1]])
        await source(dut.i, [again])(ctx)

    total = sum(-(-len(packets[number]) // width) for number in [*order, order[-1]])
    simulate(dut, responses, sink(dut.o, total, received, pause, 11))
    assert packets_in(received, width) == sent
    lasts = [len(packet) for packet in sent]
    assert {length % width for length in lasts} == set(range(width))


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_sender_sends_a_beat_in_every_cycle(width):
    """It pauses when the length becomes known, and before the last bytes of the payload."""
    config = replace(LARGE, link=PacketStream(width=width))
    rng = random.Random(15)
    packet = packet_of(rng, 200)
    dut = PacketSender(config)
    cycles = []

    async def bench(ctx):
        await store(ctx, dut, 3, packet[:-CRC_BYTES], rng)
        await source(dut.i, [3])(ctx)
        ctx.set(dut.o.ready, 1)
        for cycle in range(300):
            *_, valid = await ctx.tick().sample(dut.o.valid)
            if valid:
                cycles.append(cycle)

    simulate(dut, bench)
    assert len(cycles) == -(-len(packet) // width)
    pauses = cycles[-1] - cycles[0] + 1 - len(cycles)
    assert pauses <= 2


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize("beat_bytes", [2, 4, 8])
def test_narrower(beat_bytes, idle, pause):
    """Bytes as they came, without those behind the length; wrong lengths stay wrong."""
    rng = random.Random(16)
    right = [packet_of(rng, size) for size in range(beat_bytes + 3)]
    short = [packet_of(rng, 9)[:size] for size in (1, 2, 3, 13, 16, 21)]
    long = [packet_of(rng, size, length) for size, length in ((9, 20), (20, 1), (7, 0), (8, 26))]
    packets = right + short + long
    rng.shuffle(packets)
    aborted = [rng.random() < 0.3 for _ in packets]
    dut = PacketNarrower(beat_bytes)
    received: list[tuple[bytes, bool]] = []

    async def send(ctx):
        rng = random.Random(17)
        for packet, abort in zip(packets, aborted, strict=True):
            for beat in beats_of(packet, beat_bytes, rng):
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(dut.i.payload, beat)
                ctx.set(dut.i_abort, abort and beat["last"])
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)
                ctx.set(dut.i_abort, 0)

    async def take(ctx):
        rng = random.Random(18)
        packet, waiting = b"", None
        while len(received) < len(packets):
            ready = rng.random() >= pause if pause < 1 else waiting is not None
            ctx.set(dut.o.ready, ready)
            *_, valid, item, abort = await ctx.tick().sample(
                dut.o.valid, dut.o.payload, dut.o_abort
            )
            if not valid:
                assert waiting is None
                continue
            now = (item.data, item.last, abort)
            assert waiting is None or now == waiting
            waiting = None if ready else now
            if ready:
                packet += bytes([item.data])
                assert item.last or not abort
                if item.last:
                    received.append((packet, bool(abort)))
                    packet = b""

    simulate(dut, send, take)
    for packet, (bytes_out, abort), wanted in zip(packets, received, aborted, strict=True):
        assert abort == wanted
        if packet in right:
            assert bytes_out == packet
        else:
            assert not sound(bytes_out)


@pytest.mark.parametrize("size", [0, 9, TINY.max_payload])
def test_an_aborted_packet_is_bad(size):
    """`abort` comes with its last byte; the packets around it are taken."""
    rng = random.Random(12)
    packets = [packet_of(rng, size) for _ in range(3)]
    dut = PacketReceiver(TINY)
    strobes = Strobes(dut)
    received: list[int] = []
    expected = packets[0][:-CRC_BYTES] + packets[2][:-CRC_BYTES]

    async def send(ctx):
        for number, packet in enumerate(packets):
            for item in items_of([packet]):
                ctx.set(dut.abort, number == 1 and item["last"])
                ctx.set(dut.i.payload, item)
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            await ctx.tick()

    simulate(dut, strobes.until(3), send, sink(dut.o, len(expected), received))
    assert bytes(received) == expected
    assert strobes.counts == [2, 1, 0]


def test_a_crowded_packet_is_dropped():
    """It is counted as dropped although the buffer has room; a wrong one stays bad."""
    rng = random.Random(13)
    packets = [packet_of(rng, 4) for _ in range(4)]
    packets[2] = packets[2][:-1] + bytes([packets[2][-1] ^ 1])
    dut = PacketReceiver(TINY)
    strobes = Strobes(dut)
    received: list[int] = []
    expected = packets[0][:-CRC_BYTES] + packets[3][:-CRC_BYTES]

    async def send(ctx):
        for number, packet in enumerate(packets):
            ctx.set(dut.crowded, number in (1, 2))
            await source(dut.i, items_of([packet]))(ctx)
            await ctx.tick()

    simulate(dut, strobes.until(4), send, sink(dut.o, len(expected), received))
    assert bytes(received) == expected
    assert strobes.counts == [2, 1, 1]
