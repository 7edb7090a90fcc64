"""Two bytes of a command in a cycle: the receiver against `sound`, the collector against slices."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from tests.support import quick_first
from tests.support.packet_kinds import packet_of, packets_of
from tests.support.packets import beats_of
from tritloom.rtl.control.wide import WidePacketReceiver, WideWordCollector
from tritloom.rtl.links.udp_facts import Udp
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import CRC_BYTES, sound
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
CONFIGS = {
    name: replace(config, link=Udp(), clock_hz=80_000_000)
    for name, config in {"tiny": TINY, "large": LARGE}.items()
}


def body_of(packet):
    """What the receiver passes on: header and payload, filled up to a beat with anything."""
    return packet[:-CRC_BYTES]


@quick_first(("idle", "pause"), FLOWS[3::-1])
@quick_first("name", CONFIGS)
def test_receiver(name, idle, pause):
    config, rng = CONFIGS[name], random.Random(7)
    packets = packets_of(config, rng)
    for size in range(12):  # each length in its last beat, right and wrong
        packets.append(packet_of(rng, size))
        packets.append(packet_of(rng, size, 21 + size))
        packets.append(packet_of(rng, size, 22 + size))
    right = [p for p in packets if sound(p) and len(p) <= config.packet_bytes]
    dut = WidePacketReceiver(config)
    counts = [0, 0, 0]
    received: list[int] = []
    beats = [-(-len(body_of(packet)) // 2) for packet in right]

    async def strobes(ctx):
        while sum(counts) < len(packets):
            *_, good, bad, dropped = await ctx.tick().sample(dut.good, dut.bad, dut.dropped)
            assert good + bad + dropped <= 1
            for index, strobe in enumerate((good, bad, dropped)):
                counts[index] += strobe

    async def paced(ctx):
        accepted = 0
        for number, packet in enumerate(packets):
            while accepted - len(received) > (config.slots - 1) * config.packet_bytes // 2:
                await ctx.tick()
            await source(dut.i, beats_of(packet, 2, rng), idle, number)(ctx)
            if packet in right:
                accepted += -(-len(body_of(packet)) // 2)

    simulate(dut, paced, sink(dut.o, sum(beats), received, pause, 8), strobes)
    assert counts == [len(right), len(packets) - len(right), 0]
    for packet, size in zip(right, beats, strict=True):
        words, received = received[:size], received[size:]
        came = b"".join(word.to_bytes(2, "little") for word in words)
        assert came[: len(body_of(packet))] == body_of(packet)


def test_aborted_and_dropped():
    """An aborted packet is bad. With nobody to read them, packets are dropped whole."""
    config, rng = CONFIGS["tiny"], random.Random(9)
    dut = WidePacketReceiver(config)
    packets = [packet_of(rng, config.max_payload) for _ in range(6)]
    events = []

    async def bench(ctx):
        for number, packet in enumerate([packets[0], *packets]):
            for beat in beats_of(packet, 2, rng):
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.i.payload, beat)
                ctx.set(dut.abort, beat["last"] and number == 0)
                await ctx.tick()
            ctx.set(dut.i.valid, 0)
            events.append((ctx.get(dut.good), ctx.get(dut.bad), ctx.get(dut.dropped)))
            await ctx.tick()

    simulate(dut, bench)
    assert events[0] == (0, 1, 0)
    good = [event == (1, 0, 0) for event in events[1:]]
    assert good.index(False) >= config.window and not any(good[good.index(False) :])
    assert set(events[1:]) == {(1, 0, 0), (0, 0, 1)}


@pytest.mark.parametrize("take", [1.0, 0.4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_collects_words(size, take):
    """Words of every size from beats of two bytes, the last beat cut short if there is one left."""
    rng, dut = random.Random(size), WideWordCollector(7)
    words = [rng.randbytes(size) for _ in range(25)]
    taken: list[bytes] = []

    async def bench(ctx):
        ctx.set(dut.size, size)
        data, held, cycles = list(b"".join(words)), 0, 0
        while len(taken) < len(words):
            complete = held >= size
            assert ctx.get(dut.complete) == complete
            assert ctx.get(dut.partial) == (0 < held < size)
            takes = complete and rng.random() < take
            ctx.set(dut.take, takes)
            if takes:
                taken.append((ctx.get(dut.word) >> 8 * (7 - size)).to_bytes(size, "little"))
                held -= size
            free = held < size
            assert ctx.get(dut.free) == free
            enters = bool(data) and free and (take == 1.0 or rng.random() < 0.7)
            ctx.set(dut.enter, enters)
            ctx.set(dut.single, enters and len(data) == 1)
            ctx.set(dut.beat, rng.getrandbits(16))
            if enters:
                beat, data = data[:2], data[2:]
                noise = ctx.get(dut.beat) & 0xFF00 if len(beat) == 1 else 0
                ctx.set(dut.beat, int.from_bytes(bytes(beat), "little") | noise)
                held += len(beat)
            cycles += 1
            await ctx.tick()
        if take == 1.0 and size > 1:
            assert cycles <= -(-size * len(words) // 2) + 2, "two bytes in every cycle"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert taken == words


def test_clear_and_first_size():
    """Nothing is complete after `clear`, nor when a size is first set."""
    dut = WideWordCollector(7)

    async def bench(ctx):
        await ctx.tick()
        ctx.set(dut.size, 3)
        await ctx.tick()
        assert not ctx.get(dut.complete) and not ctx.get(dut.partial)
        ctx.set(dut.enter, 1)
        for _ in range(2):
            await ctx.tick()
        ctx.set(dut.enter, 0)
        assert ctx.get(dut.complete)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert not ctx.get(dut.complete) and not ctx.get(dut.partial)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
