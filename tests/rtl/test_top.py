"""The whole accelerator against the reference device: every response, byte for byte."""

import struct
from dataclasses import replace

import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tests.support.packets import Conversation, assert_responses, run_packets
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
from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import COUNTERS, Opcode, Request, Response
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.streams import FLOWS
from tritloom.sim.device.simulated import SimulatedDevice
from tritloom.sim.verify.traffic import Traffic

WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=2,
    memory=BlockRam(words=40),
    max_in_features=35,
    max_out_features=19,
    max_layers=3,
    packet_bytes=256,
    slots=4,
)
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


@quick_first(("idle", "pause"), FLOWS[::-1])
@quick_first("name", CONFIGS)
def test_random_traffic(name, idle, pause):
    config = CONFIGS[name]
    seed = FLOWS.index((idle, pause))
    traffic = Traffic(config, seed)
    traffic.reset(0xC0FFE0 + seed)
    traffic.random(30)
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
@pytest.mark.parametrize("config", [*CONFIGS.values(), LARGE], ids=[*CONFIGS, "large"])
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
@pytest.mark.parametrize("component", COMPONENTS)
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


def test_response_being_sent_stays_whole():
    """A slow link: the next command is executed while a response that is not kept is being sent."""
    traffic = Traffic(WIDE, 34)
    traffic.reset(12)
    for number in range(6):
        gap = Request(Opcode.LOAD, 9 + number, 12, payload=bytes(number))
        traffic.exchange(gap.pack())
        traffic.command(Opcode.IDENTIFY, address=number, count=9)
    responses = run_packets(Accelerator(WIDE), WIDE, traffic.packets, pause=0.9)
    assert_responses(WIDE, traffic.packets, responses)


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
