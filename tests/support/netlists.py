"""Netlists that the passes have changed, beside the design."""

import random

from tritloom.boards.families.family import load_family
from tritloom.gen.passes.synthesis import synthesise
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.gates.gates import simulatable

LIMIT_CYCLES = 10_000


def assert_runs_as_before(design: str) -> None:
    """A design in RTLIL and its gates on ECP5 respond alike to random packets."""
    netlist = synthesise(design, "ecp5")
    gates = Simulation(build(lambda: simulatable(netlist, load_family("ecp5").gate_models)))
    expected = Simulation(build(lambda: design))
    rng = random.Random(3)
    for _ in range(4):
        packet = rng.randbytes(3000)
        gates.send(packet)
        expected.send(packet)
        response = gates.receive(LIMIT_CYCLES)
        assert response == expected.receive(LIMIT_CYCLES)
        assert response is not None and len(set(response)) > 100
