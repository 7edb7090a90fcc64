"""Gate level with one wrong bit of one LUT: the packets that pass on good gates tell it."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tests.support.packets import assert_responses
from tritloom.boards.families.family import TOP, load_family
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.lib.streams import PACKET
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.device import cxxrtl
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.gates.gates import simulatable
from tritloom.sim.verify.traffic import Traffic

CONFIG = replace(TINY, rows=1, memory=BlockRam(words=16), max_out_features=8, max_layers=2)
FAMILY = "ecp5"
FAULTS = 50
SELECT_BITS = 8
LIMIT_CYCLES = 10_000


class Choice(wiring.Component):
    """The gates behind a choice: the first byte that comes is the number of the fault, 0 for none.

    `i`, `o`: streams of PACKET, as those of the accelerator.
    """

    def __init__(self) -> None:
        packets = stream.Signature(PACKET)
        super().__init__({"i": In(packets), "o": Out(packets)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        select = Signal(SELECT_BITS)
        chosen = Signal()
        ready = Signal()
        m.submodules.gates = Instance(
            "gates",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_select=select,
            i_i__payload=self.i.payload.as_value(),
            i_i__valid=self.i.valid & chosen,
            o_i__ready=ready,
            o_o__payload=self.o.payload.as_value(),
            o_o__valid=self.o.valid,
            i_o__ready=self.o.ready,
        )
        m.d.comb += self.i.ready.eq(ready | ~chosen)
        with m.If(self.i.valid & ~chosen):
            m.d.sync += [select.eq(self.i.payload.data), chosen.eq(1)]
        return m


def with_faults(netlist: str, rng: random.Random) -> str:
    """A netlist with an input `select`, by whose value one bit of one LUT is wrong."""
    document = json.loads(netlist)
    gates = Netlist(document, TOP)
    select = [gates.new_bit() for _ in range(SELECT_BITS)]
    gates.module["ports"]["select"] = {"direction": "input", "bits": select}
    luts = sorted(name for name, cell in gates.cells.items() if cell["type"] == "LUT4")
    assert len(luts) > 1000
    for number, name in enumerate(rng.sample(luts, FAULTS), 1):
        wires = gates.cells[name]["connections"]
        # A constant input leaves some of the bits without a meaning.
        free = [wires[pin][0] for pin in "ABCD" if isinstance(wires[pin][0], int)]
        at = rng.getrandbits(len(free))
        good, hit = gates.new_bit(), gates.new_bit()
        (result,), wires["Z"] = wires["Z"], [good]
        pattern = [str(at >> place & 1) for place in range(len(free))]
        pattern += [str(number >> place & 1) for place in range(SELECT_BITS)]
        gates.cells[f"hit_{number}"] = operator("$eq", free + select, pattern, hit)
        gates.cells[f"flip_{number}"] = operator("$xor", [good], [hit], result)
    return json.dumps(document)


def operator(kind: str, a: list[int], b: list[int | str], y: int) -> dict[str, object]:
    widths = {"A_WIDTH": len(a), "B_WIDTH": len(b), "Y_WIDTH": 1}
    return {
        "type": kind,
        "parameters": {"A_SIGNED": 0, "B_SIGNED": 0, **widths},
        "attributes": {},
        "port_directions": {"A": "input", "B": "input", "Y": "output"},
        "connections": {"A": a, "B": b, "Y": [y]},
    }


def vectors(config: AcceleratorConfig) -> Traffic:
    traffic = Traffic(config, seed=1)
    for tiles, groups in ((1, 1), (4, 4)):
        traffic.product(0, 0, tiles, groups)
    traffic.random(300)
    return traffic


def is_noticed(library: Path, fault: int, traffic: Traffic) -> bool:
    simulation = Simulation(library)
    simulation.send(bytes([fault]))
    for packet, expected in traffic.packets:
        simulation.send(packet)
        if expected is not None:
            response = simulation.receive(LIMIT_CYCLES)
            try:
                assert response is not None
                assert_responses(CONFIG, [(packet, expected)], [response])
            except (AssertionError, ValueError):
                return True
    return simulation.receive(LIMIT_CYCLES) is not None


@pytest.mark.slow
def test_a_wrong_bit_of_a_lut_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # It runs for seconds: to optimise it more would take longer.
    flags = tuple("-O1" if flag == "-O3" else flag for flag in cxxrtl.FLAGS)
    monkeypatch.setattr(cxxrtl, "FLAGS", flags)
    netlist = synthesise(rtlil.convert(Accelerator(CONFIG), emit_src=False), FAMILY)
    gates = simulatable(with_faults(netlist, random.Random(1)), load_family(FAMILY).gate_models)
    assert gates.count("module \\top\n") == 1
    gates = gates.replace("module \\top\n", "module \\gates\n")
    library = build(lambda: rtlil.convert(Choice(), emit_src=False) + gates)
    traffic = vectors(CONFIG)
    assert not is_noticed(library, 0, traffic)
    noticed = [fault for fault in range(1, FAULTS + 1) if is_noticed(library, fault, traffic)]
    # Of the others the inputs may never meet, such as those of a counter's upper bits.
    assert len(noticed) >= FAULTS // 2
