"""Gate level: the core with each engine and encoding, in the cells of each family, is exact."""

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.support.core import check_core
from tests.support.geometries import KINDS, extreme_vectors, random_vectors, two_codes
from tritloom.boards.families.family import TOP, bitstream_families, load_family
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.core.core import Core
from tritloom.rtl.engines.table_facts import in_lut_ram
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.conformance.operands import random_codes, random_trits
from tritloom.sim.device.core import CoreSimulation
from tritloom.sim.gates.gates import simulatable

NARROW = [("select", "base3x5"), ("table", "base3x5")]
CASES = [*((*kind, 8) for kind in KINDS), *((*kind, 4) for kind in NARROW)]
QUICK = [("select", "diff2", 8), ("table", "base3x5", 8)]
BLOCK_RAM = {"ecp5": "DP16KD", "ice40": "SB_RAM40_4K"}
LUT_RAM = {"ecp5": "TRELLIS_DPR16X4", "ice40": "SB_RAM40_4K"}
TABLE = re.compile(r"engine\.table_(\d+_\d+)\.\d+\.\d+")
"""A cell of a table's memory, by name: its row and code."""


def check_cells(config: AcceleratorConfig, netlist: str, family: str) -> None:
    """What a bitstream has: each table in its kind of memory; on ECP5, what the passes make."""
    cells = Netlist(json.loads(netlist), TOP).cells
    group = encodings[config.encoding].trits_per_code
    codes = config.lanes // group if config.engine == "table" else 0
    kind = (LUT_RAM if in_lut_ram(config) else BLOCK_RAM)[family]
    named = ((TABLE.fullmatch(name), cell["type"]) for name, cell in cells.items())
    tables = {(match[1], each) for match, each in named if match}
    assert tables == {(f"{r}_{n}", kind) for r in range(config.rows) for n in range(codes)}
    if family != "ecp5":
        return
    chains = [name for name, cell in cells.items() if cell["type"] == "CCU2C"]
    assert chains and all("_CHAIN_" in name for name in chains)
    blocks = [cell["parameters"] for cell in cells.values() if cell["type"] == "DP16KD"]
    assert all("OUTREG" in (block["REGMODE_A"], block["REGMODE_B"]) for block in blocks)
    if tables:
        assert any("_COPY_" in name for name in cells)


@cache
def gates(family: str, engine: str, encoding: str, act_bits: int) -> CoreSimulation:
    # All at once, so that with few groups a tile waits for the partial sums; or one by one.
    whole = 2 * encodings[encoding].trits_per_code if engine == "select" else 2
    fill = whole if act_bits == 8 else 1
    tokens = 3 if encoding == "sym3x5" else 2  # LUT RAM enough for copies of registers
    config = two_codes(engine, encoding, act_bits, tokens=tokens, fill=fill, tiles=3)
    netlist = synthesise(rtlil.convert(Core(config), name=TOP, emit_src=False), family)
    check_cells(config, netlist, family)
    return CoreSimulation(
        config, design=lambda: simulatable(netlist, load_family(family).gate_models)
    )


@pytest.mark.sim
@pytest.mark.parametrize("family", bitstream_families())
@pytest.mark.parametrize(
    ("engine", "encoding", "act_bits"),
    [pytest.param(*x, marks=[] if x in QUICK else pytest.mark.slow) for x in CASES],
)
def test_row_groups_and_extreme_vectors(
    family: str, engine: str, encoding: str, act_bits: int
) -> None:
    """Row groups from 1 to twice the engine's latency, in one tile to three."""
    core = gates(family, engine, encoding, act_bits)
    config, rng = core.config, np.random.default_rng(3)
    for groups in range(1, 2 * config.engine_latency + 1):
        for tiles in range(1, config.max_tiles + 1):
            shape = groups * config.rows, tiles * config.lanes
            codes = random_codes(config, rng, (config.tokens + 1, shape[1]))
            check_core(core, random_trits(config, rng, shape), codes)
    for trits, codes in extreme_vectors(config):
        check_core(core, trits, codes)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("family", bitstream_families())
@pytest.mark.parametrize(("engine", "encoding", "act_bits"), CASES)
def test_random_vectors(family: str, engine: str, encoding: str, act_bits: int) -> None:
    core = gates(family, engine, encoding, act_bits)
    check_core(core, *random_vectors(core.config, seed=act_bits))


@pytest.mark.sim
@pytest.mark.parametrize("kind", [pytest.param("fixed", marks=pytest.mark.slow), "float"])
def test_scales(kind: str) -> None:
    """Scaling units and the memories of their totals and scales, around few and many row groups."""
    config = two_codes("select", "diff2", 8, tokens=2, fill=4, tiles=3)
    scale = ScaleConfig(kind=kind, group=config.lanes)
    config = replace(config, rows=1, max_out_features=13, scale=scale)
    netlist = synthesise(rtlil.convert(Core(config), name=TOP, emit_src=False), "ecp5")
    models = load_family("ecp5").gate_models
    core = CoreSimulation(config, design=lambda: simulatable(netlist, models))
    rng = np.random.default_rng(5)
    for row_groups in (1, 2, 5, 11, 12, 13):
        for tiles in range(1, config.max_tiles + 1):
            shape = row_groups * config.rows, tiles * config.lanes
            codes = random_codes(config, rng, (config.tokens + 1, shape[1]))
            check_core(core, random_trits(config, rng, shape), codes)
