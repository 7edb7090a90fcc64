import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal

from tritloom.boards.families.ecp5 import Ecp5Pll
from tritloom.boards.families.family import PLL_TOLERANCE
from tritloom.rtl.spec.errors import ConfigError


@pytest.mark.parametrize("input_hz", [12_000_000, 25_000_000, 48_000_000, 100_000_000])
def test_limits(input_hz):
    """ECP5 family data sheet, sysCLOCK PLL timing: 8 to 400 MHz in, 3.125 to 400 MHz out."""
    for output_hz in range(10_000_000, 201_000_000, 5_000_000):
        try:
            pll = Ecp5Pll.solve(input_hz, output_hz)
        except ConfigError:
            continue
        for divider in (pll.input_divider, pll.op_divider, pll.os_divider):
            assert 1 <= divider <= 128
        assert 1 <= pll.feedback_divider <= 80
        phase = input_hz / pll.input_divider
        feedback = phase * pll.feedback_divider
        vco = feedback * pll.op_divider
        output = vco / pll.os_divider
        assert 10e6 <= phase <= 400e6
        assert 400e6 <= vco <= 800e6
        assert 3.125e6 <= feedback <= 400e6
        assert 3.125e6 <= output <= 400e6
        assert abs(output - output_hz) <= PLL_TOLERANCE * output_hz


def test_reaches_every_megahertz():
    for mhz in range(20, 121, 5):
        Ecp5Pll.solve(25_000_000, mhz * 1_000_000)


def test_out_of_range():
    with pytest.raises(ConfigError):
        Ecp5Pll.solve(25_000_000, 450_000_000)


def test_loop_filter():
    """nextpnr writes 0 for an attribute that is missing; every design that runs sets all four."""
    m = Module()
    pll = Ecp5Pll.solve(25_000_000, 80_000_000)
    m.submodules.pll = pll.instance(Signal(name="clock"), Signal(), Signal())
    text = rtlil.convert(m, ports=[])
    for attribute, value in (
        ("ICP_CURRENT", 12),
        ("LPF_RESISTOR", 8),
        ("MFG_ENABLE_FILTEROPAMP", 1),
        ("MFG_GMCREF_SEL", 2),
    ):
        assert f'attribute \\{attribute} "{value}"' in text
