"""The figures of the scaling units: what of a placement counts, and the command."""

import json

import pytest

from tritloom.boards.families.family import load_family
from tritloom.gen.measure import scale
from tritloom.gen.measure.scale import UNITS, measure_scale
from tritloom.rtl.spec.errors import InputError


@pytest.fixture
def placed(monkeypatch):
    """What place and route gives; `calls` has what it was asked for."""
    calls = []

    def place(design, family, part, seeds, tools, say):
        calls.append((len(design) > 1000, family, part, list(seeds)))
        used = {"luts": 210, "ffs": 600, "block_rams": 17, "dsps": 1}
        harness = {"harness_luts": 25, "harness_ffs": 90}
        clocks = [150.0, 170.0, 160.0] if len(seeds) == 3 else [None]
        return [
            {**used, **harness, "fmax_mhz": clock, "critical_path": path}
            for clock, path in zip(clocks, ["worst", "best", "middle"], strict=False)
        ]

    monkeypatch.setattr(scale, "place_and_route", place)
    return calls


@pytest.mark.parametrize("unit", UNITS)
def test_the_harness_is_not_counted(placed, unit):
    result = measure_scale("ecp5", unit, rows=64, groups=4)
    assert placed == [(True, "ecp5", next(iter(load_family("ecp5").parts)), [1, 2, 3])]
    names = ("luts", "ffs", "block_rams", "dsps", "fmax_mhz_median", "fmax_mhz")
    assert [result[name] for name in names] == [185, 510, 17, 1, 160.0, [150.0, 170.0, 160.0]]
    assert result["critical_path"] == "worst"
    assert [result[name] for name in ("unit", "sum_bits", "rows", "groups")] == [unit, 17, 64, 4]


def test_no_router(placed):
    result = measure_scale("xc7", "fixed", rows=64)
    assert (result["fmax_mhz_median"], result["fmax_mhz"], result["seeds"]) == (None, [], [])
    assert "--seeds" not in result["command"]


def test_unknown_unit():
    with pytest.raises(
        InputError, match=r"^unit must be one of fixed, float, convert, not 'half'$"
    ):
        measure_scale("ecp5", "half")


@pytest.mark.sim
def test_the_command_gives_the_same(run, placed, tmp_path):
    """The object's command makes it again, every choice said."""
    file = tmp_path / "scale.json"
    status, out, _ = run(
        *("measure", "scale", "--family", "ecp5", "--part", "LFE5U-85F-6", "--unit", "float"),
        *("--rows", "64", "--sum-bits", "15", "--output", file, "--json"),
    )
    assert status == 0
    result = json.loads(out)
    assert json.loads(file.read_text()) == result
    assert (result["rows"], result["sum_bits"]) == (64, 15)
    again = json.loads(run(*result["command"].split()[1:])[1])
    assert again == result
    text = run("measure", "scale", "--family", "ecp5", "--unit", "fixed")[1]
    assert text.startswith("185 LUTs, 510 flip-flops, 17 block RAMs, 1 multipliers of the ")
    assert text.endswith("clock 150.0, 170.0, 160.0 MHz\n")


def test_refused(run):
    status, out, err = run("measure", "scale", "--family", "ecp5", "--unit", "fixed", "--rows", "1")
    assert (status, out) == (1, "")
    assert err == "tritloom: error: rows must be 2 to 65536, not 1\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "luts", "dsps", "mhz"), [("fixed", 350, 1, 120), ("float", 1100, 4, 105)]
)
def test_placed(unit, luts, dsps, mhz):
    """A unit with few rows, placed and routed."""
    result = measure_scale("ecp5", unit, rows=512, seeds=1)
    assert luts / 3 < result["luts"] <= luts
    assert (result["dsps"], len(result["fmax_mhz"])) == (dsps, 1)
    assert result["fmax_mhz_median"] > mhz
