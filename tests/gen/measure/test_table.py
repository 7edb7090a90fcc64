"""The command that measures, with the tools replaced, and the table that ships."""

import json
from dataclasses import replace

import pytest

from tritloom.boards.families.family import family_names, load_family
from tritloom.gen.cli import main as cli
from tritloom.gen.flow.build import BuildError
from tritloom.gen.measure import table as measured
from tritloom.gen.measure.table import Point, grid, measure, read_table
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.plugins import engines

SHAPE = {"tokens": 1, "fill": 1, "act_bits": 8, "in_features": 64, "out_features": 32}
CORE = Point(family="ecp5", engine="select", encoding="diff2", lanes=4, rows=1, **SHAPE)
OTHER = replace(CORE, engine="table", encoding="base3x5", lanes=5)
WHOLE = replace(CORE, memory_words=16, max_layers=4, packet_bytes=256, slots=2)


@pytest.fixture
def tools(monkeypatch):
    """A grid of three points, and what a place and route gives; `calls` has the seeds."""

    class Tools:
        calls: list = []  # noqa: RUF012
        points = [(CORE, True), (OTHER, False), (WHOLE, False)]  # noqa: RUF012
        fails = ()
        reason = "yosys broke"
        luts = 120

    def place(design, family, part, seeds, used, say):
        number = len(Tools.calls)
        Tools.calls.append((family, part, tuple(seeds)))
        if number in Tools.fails:
            raise BuildError(Tools.reason)
        run = {"luts": Tools.luts, "ffs": 230, "block_rams": 2, "dsps": 0}
        harness = {"harness_luts": 20, "harness_ffs": 30}
        clocks = [None] if list(seeds) == [None] else [100.0, 300.0, 290.0]
        return [{**run, **harness, "fmax_mhz": clock} for clock in clocks]

    def of(family, engine=None):
        return ((p, routed) for p, routed in Tools.points if engine in (None, p.engine))

    Tools.calls = []
    monkeypatch.setattr("tritloom.gen.measure.engine.place_and_route", place)
    monkeypatch.setattr(measured, "grid", of)
    monkeypatch.setattr(measured, "SEEDS", (1, 2, 3))
    return Tools


@pytest.mark.sim
class TestMeasure:
    def test_all(self, tools, tmp_path):
        table = tmp_path / "table.json"
        lines = []
        assert measure("ecp5", table=table, progress=lines.append) == (3, 3)
        # What is routed comes last; its clock is the median, at most the part's limit.
        part = "LFE5U-25F-6"
        assert tools.calls == [("ecp5", part, (None,))] * 2 + [("ecp5", part, (1, 2, 3))]
        assert [line.partition(" s  ")[2] for line in lines] == [
            "1 of 3: table base3x5 5 × 1",
            "2 of 3: accelerator, select diff2 4 × 1",
            "3 of 3: select diff2 4 × 1, routed",
        ]
        points = {point.key: point for point in read_table(table)}
        assert set(points) == {CORE.key, OTHER.key, WHOLE.key}
        assert points[CORE.key].mhz == 257 and points[OTHER.key].mhz is None
        for point in points.values():
            assert (point.luts, point.ffs, point.block_rams, point.dsps) == (100, 200, 2, 0)

    def test_nothing_twice(self, tools, tmp_path):
        table = tmp_path / "table.json"
        measure("ecp5", table=table)
        before = table.read_bytes()
        assert measure("ecp5", table=table) == (0, 3)
        assert len(tools.calls) == 3 and table.read_bytes() == before

    def test_another_design_is_measured_again(self, tools, tmp_path, monkeypatch):
        table = tmp_path / "table.json"
        measure("ecp5", table=table)
        monkeypatch.setattr("tritloom.gen.passes.synthesis.RECIPE", 0)
        tools.luts = 150
        assert measure("ecp5", table=table) == (3, 3)
        assert {point.luts for point in read_table(table)} == {130}

    def test_stopped_and_continued(self, tools, tmp_path):
        """Each point is kept as soon as it is measured; a failure is told at the end."""
        table = tmp_path / "table.json"
        tools.fails = (1,)
        with pytest.raises(BuildError) as caught:
            measure("ecp5", table=table)
        message = "not measured: accelerator, select diff2 4 × 1; 2 other points are there"
        assert str(caught.value) == message
        assert {point.key for point in read_table(table)} == {CORE.key, OTHER.key}
        assert measure("ecp5", table=table) == (1, 3)

    def test_too_large_to_route(self, tools, tmp_path):
        """It is counted all the same, and not tried again."""
        table = tmp_path / "table.json"
        tools.fails, tools.reason = (2,), "does not fit the LFE5U-25F-6: 1 of 0 luts"
        assert measure("ecp5", table=table) == (3, 3)
        assert [seeds for *_, seeds in tools.calls] == [(None,), (None,), (1, 2, 3), (None,)]
        assert {point.mhz for point in read_table(table)} == {None}
        assert measure("ecp5", table=table) == (0, 3)

    def test_only_what_is_asked_changes(self, tools, tmp_path):
        table = tmp_path / "table.json"
        measure("ecp5", table=table)
        alien = replace(CORE, family="xc7", luts=7)
        measured._write(table, [*read_table(table), alien])
        tools.points = [(replace(CORE, lanes=8), False)]
        assert measure("ecp5", "select", table=table) == (1, 1)
        # Of the engine, what the grid has no longer is gone; the others are as they were.
        keys = {point.key for point in read_table(table)}
        assert keys == {OTHER.key, alien.key, replace(CORE, lanes=8).key}

    def test_command(self, tools, tmp_path, monkeypatch, capsys):
        table = tmp_path / "table.json"
        monkeypatch.setattr(measured, "TABLE", table)
        monkeypatch.setattr(measure, "__kwdefaults__", {**measure.__kwdefaults__, "table": table})
        assert cli.main(["measure", "table", "--family", "ecp5", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content == {"file": str(table), "measured": 3, "points": 3}
        assert cli.main(["measure", "table", "--family", "ecp5"]) == 0
        out, err = capsys.readouterr()
        assert out == f"0 of 3 points measured, the others are unchanged:\n{table}\n" and not err


class TestGrid:
    @pytest.mark.parametrize("family", family_names())
    def test_whole(self, family):
        """Every encoding of every engine that ships; each point is a configuration, once."""
        points = [point for point, _ in grid(family)]
        known = {(name, e) for name in ("select", "table") for e in engines[name].encodings}
        assert {(point.engine, point.encoding) for point in points} == known
        for point in points:
            assert point.config.engine == point.engine
        routed = {(p.engine, p.encoding) for p, routed in grid(family) if routed}
        ternary = {each for each in known if encodings[each[1]].alphabet == "ternary"}
        assert routed >= ternary

    def test_every_accelerator_s_core_is_measured(self):
        points = {point.key: point for point, _ in grid("ecp5")}
        whole = [point for point in points.values() if point.memory_words]
        cores = [replace(p, memory_words=0, max_layers=0, packet_bytes=0, slots=0) for p in whole]
        assert len(whole) >= 7 and all(core.key in points for core in cores)

    def test_of_one_engine(self):
        assert {point.engine for point, _ in grid("ice40", "table")} == {"table"}

    def test_unknown_engine(self):
        message = "engine must be one of select, table, not 'tabel'"
        with pytest.raises(ConfigError, match=message):
            list(grid("ecp5", "tabel"))


class TestTable:
    def test_shipped(self):
        points = read_table()
        keys = [point.key for point in points]
        assert len(set(keys)) == len(keys)
        assert {"ecp5", "ice40", "xc7"} <= {point.family for point in points}
        for point in points:
            assert point.luts > 0 and point.ffs > 0 and point.dsps == 0 and point.design
            limit = load_family(point.family).part()[1].limit_mhz
            assert point.mhz is None or point.mhz <= (limit or point.mhz)
        for family in ("ecp5", "ice40"):
            assert any(point.mhz for point in points if point.family == family)

    def test_shipped_is_the_grid_s(self):
        """No point is left of an older grid."""
        for family in {point.family for point in read_table()}:
            wanted = {point.key for point, _ in grid(family)}
            assert {point.key for point in read_table() if point.family == family} <= wanted

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"format": 2, "points": []}', '{"format": 1, "points": [{"rows": 1}]}']
    )
    def test_not_a_table(self, text, tmp_path):
        (tmp_path / "table.json").write_text(text)
        with pytest.raises(InputError, match=r"table.json is not a table of measure table: "):
            read_table(tmp_path / "table.json")


@pytest.mark.sim
@pytest.mark.parametrize("family", ["ice40", "xc7"])
def test_counted_by_the_tools(family, tmp_path, monkeypatch):
    """What is not routed is counted all the same, more than the part has as well."""
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
    point = replace(CORE, family=family)
    monkeypatch.setattr(measured, "grid", lambda *_: iter([(point, False)]))
    table = tmp_path / "table.json"
    assert measure(family, table=table) == (1, 1)
    (points,) = read_table(table)
    assert points.mhz is None and points.key == point.key
    assert 100 < points.luts < 1000 and 100 < points.ffs < 1000
