"""The vector unit's figures: what of a placement counts, and the command."""

import json

import pytest

from tritloom.boards.families.family import load_family
from tritloom.gen.measure import component
from tritloom.gen.measure.vector import measure_vector
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.vector_facts import VectorConfig

SMALL = VectorConfig(words=64)


@pytest.fixture
def placed(monkeypatch):
    """What place and route gives; `calls` has what it was asked for."""
    calls = []

    def place(design, family, part, seeds, tools, say):
        calls.append((len(design) > 1000, family, part, list(seeds)))
        used = {"luts": 2100, "ffs": 1800, "block_rams": 18, "dsps": 6}
        harness = {"harness_luts": 25, "harness_ffs": 90}
        clocks = [100.0, 120.0, 110.0] if len(seeds) == 3 else [None]
        paths = ["worst", "best", "middle"]
        return [
            {**used, **harness, "fmax_mhz": clock, "critical_path": path}
            for clock, path in zip(clocks, paths, strict=False)
        ]

    monkeypatch.setattr(component, "place_and_route", place)
    return calls


def test_the_harness_is_not_counted(placed):
    result = measure_vector("ecp5", SMALL)
    part = next(iter(load_family("ecp5").parts))
    assert placed == [(True, "ecp5", part, [1, 2, 3])]
    names = ("luts", "ffs", "block_rams", "dsps", "fmax_mhz_median", "fmax_mhz")
    assert [result[name] for name in names] == [2075, 1710, 18, 6, 110.0, [100.0, 120.0, 110.0]]
    assert result["critical_path"] == "worst"
    assert result["vector"] == SMALL.to_dict()


def test_no_router(placed):
    result = measure_vector("xc7", SMALL)
    assert (result["fmax_mhz_median"], result["fmax_mhz"], result["seeds"]) == (None, [], [])
    assert "--seeds" not in result["command"]


def test_unknown_part(placed):
    with pytest.raises(ConfigError, match="part of ecp5 must be one of"):
        measure_vector("ecp5", SMALL, part="LFE5U-1F")


@pytest.mark.sim
def test_the_command_gives_the_same(run, placed, tmp_path):
    """The object's command makes it again, every choice said."""
    file = tmp_path / "vector.json"
    status, out, _ = run(
        *("measure", "vector", "--family", "ecp5", "--part", "LFE5U-85F-6", "--words", "64"),
        *("--multipliers", "2", "--bfloat16", "--output", file, "--json"),
    )
    assert status == 0
    result = json.loads(out)
    assert json.loads(file.read_text()) == result
    assert result["vector"] == VectorConfig(words=64, multipliers=2, bfloat16=True).to_dict()
    again = json.loads(run(*result["command"].split()[1:])[1])
    assert again == result
    text = run("measure", "vector", "--family", "ecp5", "--words", "64")[1]
    assert text.startswith("2,075 LUTs, 1,710 flip-flops, 18 block RAMs, 6 multipliers of the ")
    assert text.endswith("clock 100.0, 120.0, 110.0 MHz\n")


def test_refused(run):
    status, out, err = run("measure", "vector", "--family", "ecp5", "--words", "65")
    assert (status, out) == (1, "")
    assert err == "tritloom: error: vector words must be a multiple of 32, not 65\n"


@pytest.mark.slow
def test_placed():
    """A small unit, placed and routed."""
    result = measure_vector("ecp5", SMALL, seeds=1)
    assert 1500 < result["luts"] < 2500
    assert (result["dsps"], len(result["fmax_mhz"])) == (6, 1)
    assert result["fmax_mhz_median"] > 80
