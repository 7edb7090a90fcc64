"""The whole accelerator against the reference device: every response, byte for byte."""

import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.support import program_host, quick_first
from tests.support.layers import GROUPS, WIDE
from tests.support.line_store import TestLines
from tests.support.packets import (
    Conversation,
    assert_responses,
    beats_of,
    packets_in,
    run_packets,
)
from tests.support.peers import FastStream, Peers
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.rtl.control.layer_table import LayerTable
from tritloom.rtl.control.order import CommandOrder
from tritloom.rtl.control.packets import PacketReceiver, PacketSender
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.core.core import Core
from tritloom.rtl.core.partial_sums import PartialSums
from tritloom.rtl.engines.base3x5 import Base3x5Decoder
from tritloom.rtl.engines.select import SelectEngine
from tritloom.rtl.lib.streams import PACKET, StreamRegister
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import COUNTERS, Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.streams import FLOWS, simulate, sink, source
from tritloom.sim.device.simulated import SimulatedDevice
from tritloom.sim.verify.traffic import Traffic

LEAST = AcceleratorConfig(
    lanes=5,
    rows=1,
    fill=5,
    memory=BlockRam(words=1),
    max_in_features=5,
    max_out_features=1,
    max_layers=1,
    packet_bytes=128,
    slots=2,
)
CONFIGS = {"tiny": TINY, "wide": WIDE, "least": LEAST}
CONFIGS |= {f"wide-{n}": replace(WIDE, link=PacketStream(width=n)) for n in (2, 4, 8)}
CONFIGS["fast"] = replace(WIDE, link=FastStream())
CONFIGS |= {"groups": GROUPS, "groups, one bank": replace(GROUPS, banks=1)}
CONFIGS["scales"] = replace(WIDE, scale=ScaleConfig(group=20))
CONFIGS["scales, one bank"] = replace(TINY, banks=1, scale=ScaleConfig(group=5))
CONFIGS["scales, wide link"] = replace(CONFIGS["scales"], link=PacketStream(width=8))
FLOAT = ScaleConfig(kind="float", group=20)
CONFIGS["float scales"] = replace(WIDE, scale=FLOAT)
CONFIGS["float scales, one bank"] = replace(TINY, banks=1, scale=replace(FLOAT, group=5))
CONFIGS["float scales, fast"] = replace(WIDE, link=FastStream(), scale=replace(FLOAT, group=10))
CONFIGS["vector"] = replace(program_host.CONFIG, slots=4)

BLOCKS = {}
# 4 weight words of 48 bits are 3 lines of 64; 16 of 30 bits are 15 lines of 2 beats.
BLOCKS["blocks"] = replace(
    TINY, lanes=15, memory=TestLines(words=64, line_bits=64, beat_bits=64, pauses=True)
)
BLOCKS["sixths"] = replace(
    TINY,
    lanes=18,
    rows=1,
    engine="table",
    encoding="sym6x10",
    max_in_features=36,
    memory=TestLines(words=64, line_bits=32, beat_bits=16),
)


def traffic_cases():
    """Each configuration with each flow; two flows of each, in turn, outside the slow tests."""
    cases = []
    for number, name in enumerate(CONFIGS):
        for place, flow in enumerate(FLOWS[::-1]):
            usual = (place - 2 * number) % len(FLOWS) < 2
            marks = [pytest.mark.sim] if number or place else []
            marks += [] if usual else [pytest.mark.slow]
            cases.append(pytest.param(name, *flow, marks=marks))
    return cases


@pytest.mark.parametrize(("name", "idle", "pause"), traffic_cases())
def test_random_traffic(name, idle, pause):
    check_traffic(CONFIGS[name], idle, pause)


@pytest.mark.sim
@pytest.mark.parametrize("name", BLOCKS)
def test_random_traffic_with_blocks_of_words(name):
    check_traffic(BLOCKS[name], 0.2, 1.0)


def check_traffic(config, idle, pause):
    """Thirty steps of random traffic."""
    seed = FLOWS.index((idle, pause))
    traffic = Traffic(config, seed)
    traffic.reset(0xC0FFE0 + seed)
    traffic.random(30 if config.vector is None else 20)
    responses = run_packets(
        Accelerator(config), config, traffic.packets, idle=idle, pause=pause, seed=seed
    )
    assert_responses(config, traffic.packets, responses)


LARGE = AcceleratorConfig(
    lanes=40,
    rows=5,
    tokens=4,
    fill=8,
    memory=BlockRam(words=500),
    max_in_features=1000,
    max_out_features=300,
    max_layers=256,
    banks=1,
    packet_bytes=2048,
    slots=8,
)


@pytest.mark.sim
@pytest.mark.parametrize("stall", [0, 5])
@pytest.mark.parametrize(
    "config",
    [*CONFIGS.values(), LARGE, BLOCKS["blocks"]],
    ids=[*CONFIGS, "large", "blocks"],
)
def test_long_random_traffic(config, stall):
    """A thousand steps, as fast as the credit lets them come."""
    traffic = Traffic(config, 33 + stall)
    traffic.reset(11)
    traffic.random(1000)
    device = SimulatedDevice(config, stall)
    conversation = Conversation(config)

    def receive() -> None:
        response = device.receive(200_000 / config.clock_hz)
        if response is None:
            assert conversation.done, "no response in 200,000 cycles"
            conversation.nothing_comes()
        else:
            conversation.received(response)

    for packet, response in traffic.packets:
        while not conversation.may_send(packet):
            receive()
        device.send(packet)
        conversation.sent(packet, response)
    while not conversation.done:
        receive()
    while (response := device.receive(1000 / config.clock_hz)) is not None:
        conversation.received(response)
    device.close()
    assert_responses(config, traffic.packets, conversation.responses)


COMPONENTS = [
    PacketReceiver,
    PacketSender,
    SelectEngine,
    BlockRamMemory,
    PartialSums,
    Core,
    CommandOrder,
    LayerTable,
    CommandProcessor,
    Accelerator,
]


@quick_first("config", [*CONFIGS.values(), replace(WIDE, banks=1)])
@quick_first("component", COMPONENTS[::-1])
def test_converts(component, config):
    """Conversion is where a signal with two drivers shows."""
    assert "module \\top" in rtlil.convert(component(config), emit_src=False)


@pytest.mark.parametrize(
    "component", [Base3x5Decoder(BASE3X5), StreamRegister(9), StreamRegister(PACKET)]
)
def test_converts_without_configuration(component):
    assert "module \\top" in rtlil.convert(component, emit_src=False)


@pytest.mark.slow
@pytest.mark.parametrize("board", [ICEBREAKER, ULX3S_85F], ids=["icebreaker", "ulx3s-85f"])
def test_board_presets_convert(board):
    text = rtlil.convert(Accelerator(board.config), emit_src=False)
    assert text == rtlil.convert(Accelerator(board.config), emit_src=False)


@pytest.mark.sim
@pytest.mark.parametrize("name", ["wide", "wide-8"])
def test_response_being_sent_stays_whole(name):
    """A slow link: the next command is executed while a response that is not kept is being sent."""
    config = CONFIGS[name]
    traffic = Traffic(config, 34)
    traffic.reset(12)
    for number in range(6):
        gap = Request(Opcode.LOAD, 9 + number, 12, payload=bytes(number))
        traffic.exchange(gap.pack())
        traffic.command(Opcode.IDENTIFY, address=number, count=9)
    responses = run_packets(Accelerator(config), config, traffic.packets, pause=0.9)
    assert_responses(config, traffic.packets, responses)


@quick_first("name", ["tiny", "wide-2", "wide-8"])
def test_a_link_that_is_not_ready_loses_nothing(name):
    """Nothing is taken until the whole window has come in; then every response comes."""
    config = CONFIGS[name]
    traffic = Traffic(config, 35)
    traffic.reset(13)
    for number in range(config.window):
        traffic.command(Opcode.IDENTIFY, address=number, count=20 + number)
    dut, rng = Accelerator(config), random.Random(36)
    width = config.link.beat_bytes
    right = [response for _, response in traffic.packets]
    received: list[dict[str, int]] = []

    async def bench(ctx):
        for packet, _ in traffic.packets:
            await source(dut.i, beats_of(packet, width, rng))(ctx)
        for _ in range(1000):
            await ctx.tick()
        count = sum(-(-len(response) // width) for response in right)
        await sink(dut.o, count, received)(ctx)

    simulate(dut, bench)
    assert packets_in(received, width) == right


@pytest.mark.sim
@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize("width", [1, 8])
def test_peers_and_aborted_packets(width, idle, pause):
    """Each response goes to the peer whose packet it answers; a duplicate may have none.

    Duplicates come from another peer than the first packet. An aborted packet counts as bad.
    """
    config = replace(WIDE, link=Peers(width=width))
    traffic, rng = Traffic(config, 37), random.Random(38)
    traffic.reset(14)
    aborted: set[int] = set()
    for _ in range(5):
        traffic.product(0, 0, 4, 7)
        for _ in range(2):
            traffic.exchange(traffic.packets[-1][0])
        traffic.random(1)
        aborted.add(len(traffic.packets))
        traffic.exchange(b"x")  # the reference device drops it too
        sound = Request(Opcode.LOAD, traffic.reference.next_seq, 14).pack()
        traffic.packets[-1] = (sound, None)
    first: dict[tuple[int, int], int] = {}
    peers = []
    for packet, _ in traffic.packets:
        request = Request.parse(packet)
        key = (request.session, request.seq) if request else (0, len(peers))
        peers.append(first[key] ^ 1 if key in first else first.setdefault(key, rng.randrange(8)))
    responses = run_packets(
        Accelerator(config),
        config,
        traffic.packets,
        idle=idle,
        pause=pause,
        aborted=aborted,
        peers=peers,
    )
    assert_responses(config, traffic.packets, responses)
    assert None in responses


@pytest.mark.sim
def test_more_packets_than_peers_are_dropped():
    """The accelerator remembers the senders of `slots` packets; it drops what comes beyond them."""
    config = replace(LEAST, slots=2, packet_bytes=512, link=Peers(width=1))
    dut, rng = Accelerator(config), random.Random(39)
    packets = [Request(Opcode.RESET, 0, 5).pack()]
    packets += [Request(Opcode.IDENTIFY, seq, 5, count=400).pack() for seq in range(1, 12)]
    received: list[dict[str, int]] = []
    counts = {"dropped": 0}

    async def bench(ctx):
        for number, packet in enumerate(packets):
            ctx.set(dut.peer, number % 8)
            await source(dut.i, beats_of(packet, 1, rng))(ctx)
        for _ in range(3000):
            await ctx.tick()

    async def watch(ctx):
        ctx.set(dut.o.ready, 1)
        while len(received) == 0 or counts["quiet"] < 2000:
            *_, dropped, valid, payload, peer = await ctx.tick().sample(
                dut.dropped, dut.o.valid, dut.o.payload, dut.to_peer
            )
            counts["dropped"] += dropped
            counts["quiet"] = 0 if valid else counts.get("quiet", 0) + 1
            if valid:
                received.append({"data": payload.data, "last": payload.last, "peer": peer})

    simulate(dut, bench, watch)
    responses = [Response.parse(packet) for packet in packets_in(received, 1)]
    peers = [beat["peer"] for beat in received if beat["last"]]
    assert counts["dropped"] > 0 and len(responses) == len(packets) - counts["dropped"]
    # A packet was dropped, so those behind it are not in order; none goes to a wrong peer.
    numbers = [0 if response.opcode == Opcode.RESET else response.seq for response in responses]
    assert peers == [number % 8 for number in numbers]
    assert numbers == sorted(set(numbers))


@pytest.mark.sim
def test_extreme_products():
    """All of −128 × −1 in every lane of every tile, in the least and the most bits."""
    traffic = Traffic(WIDE, 30)
    traffic.reset(8)
    traffic.image = lambda words: bytes(words * WIDE.word_bytes)  # base3x5: 0 is all −1
    traffic.codes = lambda count: b"\x80" * count
    shape = LayerShape(WIDE.max_tiles, WIDE.max_row_groups)
    assert traffic.product(0, 0, *(shape.tiles, shape.row_groups)) == WIDE.run_cycles(shape)
    sums = [
        response
        for _, response in traffic.packets
        if Response.parse(response).opcode == Opcode.RESULTS
    ]
    assert Response.parse(sums[0]).payload[:2] == (128 * 40).to_bytes(2, "little")
    responses = run_packets(Accelerator(WIDE), WIDE, traffic.packets)
    assert_responses(WIDE, traffic.packets, responses)


FLOATS = ["float scales", "float scales, fast"]


def scales_of(traffic, rng, bank, token, address, count):
    """A SCALES of usual numbers; its status."""
    scales = np.array([rng.gauss(0, 1) for _ in range(count)], "<f4").tobytes()
    fields = {"index": token, "address": address, "activation_bank": bank}
    return traffic.command(Opcode.SCALES, payload=scales, **fields).status


@quick_first("name", FLOATS)
def test_scales_wait_for_the_layer_that_reads_them(name):
    """SCALES directly behind a RUN of its bank, and of the other one."""
    config = CONFIGS[name]
    traffic, rng = Traffic(config, 41), random.Random(43)
    traffic.reset(16)
    shape = LayerShape(config.max_tiles, config.max_row_groups)
    traffic.layer(0, 0, shape.tiles, shape.row_groups)
    traffic.load_all(shape.tiles, 1)
    for bank in (0, 0, 1, 1, 0):
        for other in (bank, 1 - bank):
            traffic.command(Opcode.RUN, count=config.tokens, activation_bank=bank)
            for group in reversed(range(shape.tiles)):
                assert scales_of(traffic, rng, other, group % config.tokens, group, 1) == Status.OK
            traffic.results(shape.row_groups)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    assert_responses(config, traffic.packets, responses)


@quick_first("name", FLOATS)
def test_scales_beyond_the_last_group(name):
    """Those that have room are stored; the first one beyond fails, and changes none."""
    config = CONFIGS[name]
    assert config.max_tiles.bit_count() == 1  # the low bits of the group beyond are those of 0
    traffic, rng = Traffic(config, 42), random.Random(44)
    traffic.reset(17)
    shape = LayerShape(config.max_tiles, config.max_row_groups)
    for bank in range(config.banks):
        traffic.layer(0, 0, shape.tiles, shape.row_groups, bank)
        for count in (1, 2, config.max_tiles + 1):
            first = config.max_tiles + 1 - count
            assert scales_of(traffic, rng, bank, 1, first, count) == Status.OUT_OF_RANGE
            traffic.command(Opcode.RUN, count=config.tokens, activation_bank=bank)
            traffic.results(shape.row_groups)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    assert_responses(config, traffic.packets, responses)


@pytest.mark.sim
@pytest.mark.parametrize("opcode", [Opcode.RESULTS, Opcode.READ, Opcode.IDENTIFY])
def test_every_bit_of_an_address_counts(opcode):
    """Weight addresses are longer than all others here, and no address may lose its high bits."""
    config = replace(TINY, memory=BlockRam(words=1 << 14))
    traffic = Traffic(config, 32)
    traffic.reset(10)
    traffic.product(0, 0, 1, 1)
    for bit in range(32):
        traffic.command(opcode, count=1, address=1 << bit)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    assert_responses(config, traffic.packets, responses)


@pytest.mark.sim
def test_counters():
    """Cycles run, and all else counts what came; a packet that finds no room is dropped."""
    config = TINY
    traffic = Traffic(config, 31)
    traffic.reset(9)
    cycles = traffic.product(0, 0, 2, 3)
    for _ in range(3):
        traffic.exchange(b"junk")
    traffic.command(Opcode.COUNTERS)
    traffic.command(Opcode.COUNTERS)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    first, second = (
        dict(zip(COUNTERS, struct.unpack("<6Q", Response.parse(response).payload), strict=True))
        for response in responses[-2:]
    )
    sound = [packet for packet, response in traffic.packets if response is not None]
    assert first["packets"] == len(sound) - 1 and first["bad_packets"] == 3
    assert first["run_cycles"] == cycles and first["stall_cycles"] == 0
    assert first["dropped_packets"] == 0
    bytes_moved = len(sound[-1]) + len(responses[-2])
    assert bytes_moved <= second["cycles"] - first["cycles"] <= 3 * bytes_moved + 60
