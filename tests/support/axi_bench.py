"""cocotb bench: `AxiMemory` against `AxiRam` of cocotbext-axi, with pauses on every channel.

Runs in the simulator's process. `AXI_CONFIG` in the environment is the configuration, as JSON.
"""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from tritloom.rtl.spec.config import AcceleratorConfig

RANGES = 25
CALM_RANGES = 8
"""Ranges before the channels begin to pause."""
DEADLINE_CYCLES = 30_000


def pauses(share, seed):
    """1 in random cycles."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < share


async def put(dut, port, value, deadline):
    """Give an input stream an item."""
    payload, valid = getattr(dut, f"{port}__payload"), getattr(dut, f"{port}__valid")
    payload.value, valid.value = value, 1
    while True:
        await RisingEdge(dut.clk)
        deadline.step()
        if getattr(dut, f"{port}__ready").value == 1:
            break
    valid.value = 0


class Deadline:
    """Fails the bench after too many cycles."""

    def __init__(self):
        self.cycles = 0

    def step(self):
        self.cycles += 1
        assert self.cycles < DEADLINE_CYCLES, "the memory stopped"


@cocotb.test()
async def words_come_back(dut):
    config = AcceleratorConfig.from_json(os.environ["AXI_CONFIG"])
    record, depth = config.memory, config.memory_words
    rng = random.Random(7)
    bits = depth.bit_length()
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.rst.value, dut.o__ready.value = 1, 0
    dut.i_read__valid.value, dut.i_write__valid.value = 0, 0
    await RisingEdge(dut.clk)
    bus = AxiBus.from_prefix(dut, "m_axi")
    ram = AxiRam(bus, dut.clk, dut.rst, size=1 << 16)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    deadline = Deadline()
    words = [rng.getrandbits(config.word_bits) for _ in range(depth)]
    for address, word in enumerate(words):
        if address == depth // 2:
            for number, interface in enumerate((ram.write_if, ram.read_if)):
                for name in ("aw", "w", "b", "ar", "r"):
                    channel = getattr(interface, f"{name}_channel", None)
                    if channel is not None:
                        channel.set_pause_generator(pauses(0.3, number))
        await put(dut, "i_write", address | word << bits, deadline)
    for channel in (ram.read_if.ar_channel, ram.read_if.r_channel):
        channel.clear_pause_generator()
        channel.pause = False  # it keeps the last value otherwise

    ranges = []
    for _ in range(RANGES):
        first = rng.randrange(depth)
        ranges.append((first, rng.randint(1, min(60, depth - first))))
    ranges.append((0, depth))

    async def ask():
        for number, (first, count) in enumerate(ranges):
            if number == CALM_RANGES:
                ram.read_if.ar_channel.set_pause_generator(pauses(0.5, 5))
                ram.read_if.r_channel.set_pause_generator(pauses(0.3, 6))
            await put(dut, "i_read", first | count << bits, Deadline())

    cocotb.start_soon(ask())
    expected = [words[first + n] for first, count in ranges for n in range(count)]
    number = 0
    while number < len(expected):
        ready = rng.random() < (1.0 if number < len(expected) // 3 else 0.6)
        dut.o__ready.value = ready
        await RisingEdge(dut.clk)
        deadline.step()
        if ready and dut.o__valid.value == 1:
            word = int(dut.o__payload.value)
            assert word == expected[number], f"word {number}"
            assert dut.error.value == 0
            number += 1
    # What the memory holds, as another master sees it.
    sizes = record.line_format(config)
    image = 0
    for address, word in enumerate(words):
        image |= word << address * config.word_bits
    stored = ram.read(record.bases(config)[0], sizes.lines * record.beat_bytes)
    assert int.from_bytes(stored, "little") == image
    dut._log.info(f"{number} words in {len(ranges)} ranges")
