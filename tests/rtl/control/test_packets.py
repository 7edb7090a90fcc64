"""Receiver and sender against `seal` and `sound`: what is kept, dropped and sent."""

import random

import pytest

from tests.support import quick_first
from tritloom.rtl.control.packets import PacketReceiver, PacketSender
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES, seal, sound
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


def packet_of(rng: random.Random, payload_bytes: int, length: int | None = None) -> bytes:
    size = OVERHEAD_BYTES + payload_bytes
    body = rng.randbytes(HEADER_BYTES + payload_bytes - 2)
    return seal((size if length is None else length).to_bytes(2, "little") + body)


def packets_of(config: AcceleratorConfig, rng: random.Random) -> list[bytes]:
    """Sound and wrong packets of every kind, shuffled."""
    most = config.max_payload
    packets = [packet_of(rng, size) for size in (0, 1, most, *rng.choices(range(most + 1), k=6))]
    for change in (-1, 1, 256, 65536 - 2 * OVERHEAD_BYTES):
        packets.append(packet_of(rng, 4, OVERHEAD_BYTES + 4 + change & 0xFFFF))
    for size in (1, 2, 300):  # right in all but its length
        packets.append(packet_of(rng, most + size))
    packets.append(packet_of(rng, most + 5, config.packet_bytes))
    packets.append(packet_of(rng, most + 2 * config.slots * config.packet_bytes))
    for size in range(1, OVERHEAD_BYTES, 3):
        packets.append(seal(size.to_bytes(2, "little") + bytes(20))[-size:])
        packets.append(seal((size + CRC_BYTES).to_bytes(2, "little") + bytes(max(0, size - 2))))
    for _ in range(8):
        damaged = bytearray(packet_of(rng, rng.randrange(40)))
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        packets.append(bytes(damaged))
    damaged = bytearray(packet_of(rng, 8))
    damaged[-1] ^= 0x80
    packets.append(bytes(damaged))
    rng.shuffle(packets)
    return packets


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


@pytest.mark.parametrize("pause", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", CONFIGS)
def test_sender(name, pause):
    config = CONFIGS[name]
    rng = random.Random(10)
    sizes = [0, 1, config.max_payload, *rng.choices(range(config.max_payload + 1), k=3)]
    packets = [packet_of(rng, size) for size in sizes]
    order = [*range(len(packets)), 0]
    dut = PacketSender(config)
    received: list[dict[str, int]] = []
    sent = [packets[0]]

    async def responses(ctx):
        sent.clear()
        for number in order:
            slot = number % config.slots
            body = packets[number][:-CRC_BYTES]
            # Another slot is written while the last one is being sent.
            for position in (*range(16, len(body)), *range(16)):
                ctx.set(dut.address, slot * config.packet_bytes + position)
                ctx.set(dut.byte, body[position])
                ctx.set(dut.write, 1)
                await ctx.tick()
            ctx.set(dut.write, 0)
            sent.append(packets[number])
            await source(dut.i, [slot])(ctx)
        again = order[-1] % config.slots  # kept: it can be sent once more
        sent.append(packets[order[-1]])
        await source(dut.i, [again])(ctx)

    total = sum(len(packets[number]) for number in order) + len(packets[order[-1]])
    simulate(dut, responses, sink(dut.o, total, received, pause, 11))
    assert received == items_of(sent)


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
