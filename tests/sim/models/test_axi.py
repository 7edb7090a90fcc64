# amaranth: UnusedElaboratable=no
"""The simulated accelerator with its weights behind AXI."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import outside
from tests.support.packets import assert_responses, run_packets
from tritloom.host import DeviceError, TernaryLayer
from tritloom.host.device import Device
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_pads import axi_pads
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.packing import pack_weights
from tritloom.sim.device.simulated import SimulatedDevice
from tritloom.sim.models.axi import AxiModel
from tritloom.sim.models.contract import create_model
from tritloom.sim.models.surrounded import store_bench, surrounded
from tritloom.sim.verify.traffic import Traffic

pytestmark = pytest.mark.sim


def config_of(width, lanes, ports=1, **options):
    return AcceleratorConfig(
        lanes=lanes,
        rows=1,
        engine="table",
        encoding=options.pop("encoding", "base3x5"),
        fill=options.pop("fill", 2),
        memory=Axi(words=1 << 14, width=width, ports=ports, **options),
        max_in_features=700,
        max_out_features=500,
        packet_bytes=4096,
    )


CONFIGS = {
    "64": config_of(64, 40),
    "512, AXI3": config_of(512, 320, version=3),
    "4 × 64, offsets": config_of(64, 160, 4, offsets=(0x90000, 0x20000, 0, 0x60000)),
    "70 bits from 64": config_of(64, 42, encoding="sym6x10", fill=1),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_exact(name):
    """Also, each word lies where `write_words` would put it."""
    config, random = CONFIGS[name], np.random.default_rng(len(name))
    options = {"latency": 40, "stalls": 0.1 if "offsets" in name else 0.0, "seed": 3}
    transport = SimulatedDevice(config, memory_model=options)
    model = create_model(config, axi_pads(config.memory), {})
    with Device(transport, url="sim") as device:
        for shape in ((500, 700), (33, 320), (1, 1)):
            trits = random.integers(-1, 2, shape).astype(np.int8)
            codes = random.integers(-128, 128, (3, shape[1])).astype(np.int8)
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(trits, codes))
            (piece,) = device.allocation().pieces(handle)
            contents = model.contents(piece.base, pack_weights(config, trits))
            assert len(contents) == config.memory.ports
            for number, (start, data) in enumerate(contents):
                assert transport.read_memory(start, len(data), number) == data
            transport.write_words(piece.base, pack_weights(config, -trits))
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(-trits, codes))


def test_contents_are_refused():
    """Words that begin within a block, and a memory without lines or without a model."""
    config = CONFIGS["70 bits from 64"]
    model = create_model(config, axi_pads(config.memory), {})
    with pytest.raises(InputError, match=r"^base must be a multiple of 32 words, not 33$"):
        model.contents(33, bytes(config.word_bytes))
    far = replace(config, memory=outside.Outside(words=64))
    with pytest.raises(InputError, match=r"^memory 'test-outside' moves no lines; load its words$"):
        outside.OutsideModel(far).contents(0, bytes(config.word_bytes))
    transport = SimulatedDevice(TINY)
    assert not transport.holds_lines
    with pytest.raises(InputError, match=r"^the memory has no model that holds words; load them$"):
        transport.write_words(0, bytes(TINY.word_bytes))


def test_a_beat_that_fails_is_an_error_of_its_product():
    """SLVERR in one layer: its products fail, another layer's are exact."""
    config, random = CONFIGS["64"], np.random.default_rng(1)
    options = {"error": "SLVERR", "error_from": 400, "error_lines": 1}
    with Device(SimulatedDevice(config, memory_model=options), url="sim") as device:
        trits = random.integers(-1, 2, (2, 100, 80)).astype(np.int8)  # 200 words each
        codes = random.integers(-128, 128, (1, 80)).astype(np.int8)
        handles = [device.load(TernaryLayer.from_trits(layer, 1.0)) for layer in trits]
        with pytest.raises(DeviceError, match="memory"):
            device.load(TernaryLayer.from_trits(trits[0], 1.0))
        for layer, handle in zip(trits, handles, strict=True):
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer, codes))


def test_a_memory_that_falls_silent():
    """The product fails after the time-out; the next one is exact."""
    config = replace(CONFIGS["64"], memory=replace(CONFIGS["64"].memory, timeout_cycles=300))
    random = np.random.default_rng(2)
    trits = random.integers(-1, 2, (100, 80)).astype(np.int8)
    codes = random.integers(-128, 128, (1, 80)).astype(np.int8)
    # COMMIT reads 200 beats, and a product as many.
    options = {"silent_from": 300, "silent_cycles": 2000}
    with Device(SimulatedDevice(config, memory_model=options), url="sim") as device:
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        with pytest.raises(DeviceError, match="memory"):
            device.matmul(handle, codes)
        for _ in range(20):
            try:
                sums = device.matmul(handle, codes)
                break
            except DeviceError:
                continue
        assert np.array_equal(sums, numerics.matmul(trits, codes))


TRAFFIC = replace(TINY, lanes=15, memory=Axi(words=64, width=64, burst=4, latency_cycles=12))


@pytest.mark.parametrize("stalls", [0.0, 0.3])
def test_random_traffic(stalls):
    """Everything that a link can bring; words of 48 bits share lines of 64."""
    assert TRAFFIC.align == 4
    traffic = Traffic(TRAFFIC, 5)
    traffic.reset(0xC0FFEE)
    traffic.random(60)
    dut = surrounded(TRAFFIC, {"latency": 9, "stalls": stalls})
    responses = run_packets(dut, TRAFFIC, traffic.packets, background=[store_bench(dut, {})])
    assert_responses(TRAFFIC, traffic.packets, responses)


def test_refuses():
    for options, message in (
        ({"latency": 1}, "latency must be at least 2, not 1"),
        ({"stalls": 1.0}, "stalls must be 0 or more and less than 1, not 1.0"),
        ({"error": "FAIL"}, "error must be one of OKAY, SLVERR, DECERR, not 'FAIL'"),
    ):
        with pytest.raises(ConfigError, match=message):
            AxiModel(TRAFFIC, **options)
    with pytest.raises(ConfigError, match="a model of AXI needs the memory axi, not 'bram'"):
        AxiModel(TINY)
