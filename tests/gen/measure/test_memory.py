"""Figures of a memory's logic: which component is measured, and the command."""

import json

import pytest
from amaranth.hdl import Fragment

from tritloom.gen.measure import memory
from tritloom.gen.measure.memory import COMPONENTS, measure_memory
from tritloom.rtl.memories.axi import AxiMemory, AxiStore
from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import AxiWriter
from tritloom.rtl.memories.sdram_store import SdramStore
from tritloom.rtl.spec.errors import InputError

KINDS = {"memory": AxiMemory, "store": AxiStore, "reader": AxiReader, "writer": AxiWriter}


@pytest.fixture
def measured(monkeypatch):
    """The components that were to be measured, with the family, part and seeds."""
    calls = []

    def measure(create, family, *, part, seeds, progress):
        component = create()
        Fragment.get(component, None)
        calls.append((component, family, part, seeds))
        figures = {"luts": 1234, "ffs": 567, "block_rams": 8, "dsps": 0}
        placed = [] if family == "xc7" else list(range(1, seeds + 1))
        clocks = [100.0 + seed for seed in placed]
        return {"part": part or "P", **figures, "fmax_mhz": clocks, "seeds": placed, "tools": []}

    monkeypatch.setattr(memory, "measure_component", measure)
    return calls


@pytest.mark.parametrize("name", COMPONENTS)
def test_components(measured, name):
    options = {"width": 128, "latency": 60}
    result = measure_memory("axi", name, "ecp5", part="X", seeds=2, options=options)
    ((component, *rest),) = measured
    assert isinstance(component, KINDS[name]) and rest == ["ecp5", "X", 2]
    assert result["component"] == name
    assert (result["memory"]["width"], result["memory"]["latency_cycles"]) == (128, 60)
    assert result["word_bits"] == 128
    assert (result["luts"], result["ffs"], result["fmax_mhz"]) == (1234, 567, [101.0, 102.0])


def test_sdram(measured):
    measure_memory("sdram", "store", "ecp5", clock_hz=133_000_000, options={})
    ((component, *_),) = measured
    assert isinstance(component, SdramStore)
    assert component.cycles == component.part.cycles(133_000_000)


@pytest.mark.parametrize(
    ("name", "component", "message"),
    [
        ("sdram", "reader", "memory sdram has no reader; choose memory or store"),
        ("bram", "store", "memory bram moves no lines; choose the component memory"),
    ],
)
def test_no_such_component(measured, name, component, message):
    with pytest.raises(InputError) as raised:
        measure_memory(name, component, "ecp5", options={})
    assert str(raised.value) == message


@pytest.mark.parametrize("family", ["ecp5", "xc7"])
def test_the_command_gives_the_same(run, measured, tmp_path, family):
    """The object's command makes it again, every choice said."""
    file = tmp_path / "memory.json"
    status, out, _ = run(
        *("measure", "memory", "--memory", "axi", "--component", "reader", "--width", "64"),
        *("--latency", "20", "--family", family, "--output", file, "--json"),
    )
    assert status == 0
    result = json.loads(out)
    assert json.loads(file.read_text()) == result
    assert ("--seeds" in result["command"]) == (family == "ecp5")
    assert json.loads(run(*result["command"].split()[1:])[1]) == result
    text = run("measure", "memory", "--memory", "sdram", "--family", family)[1]
    clocks = "101.0, 102.0, 103.0" if family == "ecp5" else "unknown"
    assert text == f"1,234 LUTs, 567 flip-flops, 8 block RAMs of the P; clock {clocks} MHz\n"
