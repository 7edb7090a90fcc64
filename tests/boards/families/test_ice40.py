import pytest

from tritloom.boards.families.family import PLL_TOLERANCE
from tritloom.boards.families.ice40 import Ice40Pll
from tritloom.rtl.spec.errors import ConfigError


def test_limits():
    """iCE40 UltraPlus data sheet, sysCLOCK PLL timing: 10 to 133 MHz in, 16 to 275 MHz out."""
    reached = 0
    for output_hz in range(16_000_000, 275_000_001, 250_000):
        try:
            pll = Ice40Pll.solve(12_000_000, output_hz)
        except ConfigError:
            continue
        reached += 1
        assert 0 <= pll.divr <= 15 and 0 <= pll.divf <= 127 and 1 <= pll.divq <= 6
        phase = 12e6 / (pll.divr + 1)
        vco = phase * (pll.divf + 1)
        assert 10e6 <= phase <= 133e6
        assert 533e6 <= vco <= 1066e6
        assert abs(vco / 2**pll.divq - output_hz) <= PLL_TOLERANCE * output_hz
        bands = [(17e6, 1), (26e6, 2), (44e6, 3), (66e6, 4), (101e6, 5), (134e6, 6)]
        assert pll.filter_range == next(band for limit, band in bands if phase < limit)
    assert reached > 150


def test_icepll_agrees():
    assert Ice40Pll.solve(12_000_000, 24_000_000) == Ice40Pll(0, 63, 5, 1)


def test_out_of_range():
    with pytest.raises(ConfigError):
        Ice40Pll.solve(12_000_000, 12_000_000)
