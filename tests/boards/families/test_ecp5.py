import re

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


@pytest.mark.parametrize("clocks", [(80, 100), (80, 133.333333), (75, 100), (62.5, 125), (80, 80)])
def test_two_clocks(clocks):
    """One VCO gives both, each within the tolerance."""
    pll = Ecp5Pll.solve(25_000_000, *(round(mhz * 1e6) for mhz in clocks))
    vco = 25e6 / pll.input_divider * pll.feedback_divider * pll.op_divider
    assert 400e6 <= vco <= 800e6
    for divider, mhz in zip((pll.os_divider, pll.os2_divider), clocks, strict=True):
        assert 1 <= divider <= 128
        assert abs(vco / divider - mhz * 1e6) <= PLL_TOLERANCE * mhz * 1e6


def test_two_clocks_that_do_not_fit():
    with pytest.raises(ConfigError) as raised:
        Ecp5Pll.solve(25_000_000, 101_000_000, 103_000_000)
    assert str(raised.value) == (
        "no PLL setting makes 101000000 Hz and 103000000 Hz from 25000000 Hz; "
        "choose another clock_hz"
    )


def test_second_output():
    """CLKOS2 exists only for a memory's clock; its divider and its pin are then set."""
    for clocks, there in (((80_000_000,), False), ((80_000_000, 133_333_333), True)):
        m = Module()
        pll = Ecp5Pll.solve(25_000_000, *clocks)
        memory = {"memory": Signal()} if there else {}
        m.submodules.pll = pll.instance(Signal(name="clock"), Signal(), Signal(), **memory)
        text = rtlil.convert(m, ports=[])
        assert ("CLKOS2_ENABLE" in text) == ("\\CLKOS2 " in text) == there
        if there:
            assert re.search(rf"CLKOS2_DIV .*{pll.os2_divider}\n", text)


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
