"""The seams: a second engine, its encoding and a memory that stalls, through the whole stack.

They are in `tests/support/plugins.py`; no other file of the project knows them.
"""

import dataclasses
import struct

import numpy as np
import pytest

from tests.support import ROOT, plugins
from tests.support.packets import assert_responses, run_packets
from tritloom.host import TernaryLayer, connect
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import COUNTERS, Opcode, Response
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5, encodings
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines, memories
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.engine import check_engine
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import FLOWS
from tritloom.sim.verify.traffic import Traffic

plugins.register()

SIGNED = {"engine": "test-signed", "encoding": "test-signed"}
ODD = AcceleratorConfig(
    lanes=6,
    rows=1,
    memory=BlockRam(words=64),
    max_in_features=20,
    max_out_features=13,
    packet_bytes=128,
    slots=2,
    **SIGNED,
)
CONFIGS = {
    "engine, 10 bits a word": ODD,
    "engine and memory, 60 bits a word": AcceleratorConfig(
        lanes=12,
        rows=3,
        tokens=2,
        fill=4,
        memory=plugins.Stalling(words=60),
        max_in_features=40,
        max_out_features=23,
        max_layers=5,
        packet_bytes=256,
        slots=4,
        **SIGNED,
    ),
    "memory": dataclasses.replace(TINY, memory=plugins.Stalling(words=64)),
    "late memory": dataclasses.replace(TINY, memory=plugins.Late(words=64)),
}


def with_all(test):
    return pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)(test)


def test_registration_can_be_repeated():
    before = [list(registry) for registry in (encodings, engines, memories)]
    plugins.register()
    assert [list(registry) for registry in (encodings, engines, memories)] == before


def test_word_that_is_not_whole_bytes():
    assert (ODD.word_bits, ODD.word_bytes) == (10, 2)
    assert ODD.engine_latency != TINY.engine_latency


def test_encoding_belongs_to_the_engine():
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(ODD, lanes=30, encoding=BASE3X5.name)
    message = "encoding of the test-signed engine must be one of test-signed, not 'base3x5'"
    assert str(raised.value) == message


def test_lanes_of_another_group():
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(ODD, lanes=10)
    assert str(raised.value) == "lanes must be a multiple of 6, not 10"


def test_all_codes():
    codes = np.arange(1 << plugins.ENCODING.code_bits, dtype=np.uint32)
    right = []
    for code in codes:
        try:
            trits = plugins.decode(code[None])
        except InputError:
            continue
        assert plugins.encode(trits) == code
        right.append(tuple(trits[0].tolist()))
    assert len(set(right)) == len(right) == 3**6


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("idle", [0.0, 0.3])
@pytest.mark.parametrize(("lanes", "rows", "tokens", "fill"), [(6, 1, 1, 6), (12, 2, 2, 3)])
def test_engine(lanes, rows, tokens, fill, idle, groups):
    config = dataclasses.replace(
        ODD, lanes=lanes, rows=rows, tokens=tokens, fill=fill, max_in_features=4 * lanes
    )
    check_engine(config, row_groups=groups, idle=idle, seed=20)


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize("memory", [plugins.Stalling(words=64), plugins.Late(words=64)])
def test_memory(memory, idle, pause):
    check_memory(dataclasses.replace(TINY, memory=memory), idle=idle, pause=pause, seed=21)


@pytest.mark.sim
@pytest.mark.parametrize(("idle", "pause"), [(0.4, 0.4), (0.0, 0.0)])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "late memory"])
def test_top(name, idle, pause):
    config = CONFIGS[name]
    traffic = Traffic(config, 22)
    traffic.reset(3)
    shape = LayerShape(min(3, config.max_tiles), min(5, config.max_row_groups))
    traffic.product(0, 2, shape.tiles, shape.row_groups)
    traffic.random(25)
    responses = run_packets(Accelerator(config), config, traffic.packets, idle=idle, pause=pause)
    assert_responses(config, traffic.packets, responses)


@pytest.mark.sim
def test_stalls_are_counted():
    """What RUN waited for weights is within its cycles; the counters are the sums of both."""
    config = CONFIGS["memory"]
    traffic = Traffic(config, 23)
    traffic.reset(4)
    for _ in range(3):
        traffic.product(0, 0, 2, 6)
    traffic.command(Opcode.COUNTERS)
    responses = [
        Response.parse(a) for a in run_packets(Accelerator(config), config, traffic.packets)
    ]
    counters = dict(zip(COUNTERS, struct.unpack("<6Q", responses[-1].payload), strict=True))
    runs = [n for n, response in enumerate(responses) if response.opcode == Opcode.RUN]
    results = [
        next(each for each in responses[run:] if each.opcode == Opcode.RESULTS) for run in runs
    ]
    cycles = [response.value for response in results]
    free = dataclasses.replace(config, memory=BlockRam(words=config.memory_words)).run_cycles(
        LayerShape(2, 6)
    )
    assert len(cycles) == 3 and counters["run_cycles"] == sum(cycles)
    assert 0 < counters["stall_cycles"] <= sum(cycles)
    assert counters["stall_cycles"] >= sum(cycle - free for cycle in cycles)


def products(device, config, count):
    """Random layers, several resident, extreme ones and those beyond the limits among them."""
    rng = np.random.default_rng(23)
    for number in range(count):
        rows = int(rng.integers(1, config.max_out_features + 4))
        columns = int(rng.integers(1, config.max_in_features + 1))
        trits = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
        codes = rng.integers(-128, 128, (int(rng.integers(1, 4)), columns)).astype(np.int8)
        if number % 4 == 0:
            trits[:], codes[:] = -1, -128
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        sums = device.matmul(handle, codes)
        assert (sums == codes.astype(np.int64) @ trits.T.astype(np.int64)).all()
        x = rng.standard_normal((2, columns)).astype(np.float32)
        assert device.linear(handle, x).shape == (2, rows)
        device.unload(handle)
    assert device.selftest().ok


@with_all
def test_golden_device(config):
    with connect("golden", config=config) as device:
        assert device.info.config == config
        products(device, config, 12)


@pytest.mark.sim
@with_all
def test_simulated_device(config):
    with connect("sim", config=config) as device:
        assert device.info.config == config
        products(device, config, 40)


@pytest.mark.sim
@pytest.mark.parametrize("name", ["engine and memory, 60 bits a word", "memory"])
def test_verilog(name, tmp_path, monkeypatch):
    from tritloom.gen.emit.generate import generate
    from tritloom.sim.verify.run import verify

    monkeypatch.syspath_prepend(ROOT)
    generate(CONFIGS[name], tmp_path)
    result = verify(tmp_path, plugins=[plugins.__name__])
    assert result.ok, [bench for bench in result.benches if not bench.ok]
