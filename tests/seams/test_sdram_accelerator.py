"""The whole accelerator on the simulated FPGA, its weights in a chip of SDRAM that checks rules."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.sdram import ACCELERATOR as CONFIG
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.simulated import SimulatedDevice

pytestmark = pytest.mark.sim


TWO_CLOCKS = replace(TINY, memory=Sdram(words=64, clock_hz=83_333_333), packet_bytes=256)
"""The chip's clock is five thirds of the accelerator's: their edges meet in every third cycle."""


def layers(*shapes):
    rng = np.random.default_rng(14)
    return [
        TernaryLayer.from_trits(rng.integers(-1, 2, shape).astype(np.int8), 1.0) for shape in shapes
    ]


def test_products():
    """Layers of several sizes, one after the other in the chip."""
    rng = np.random.default_rng(15)
    with Device(SimulatedDevice(CONFIG, stall_seed=3), url="sim", config=CONFIG) as device:
        loaded = [(layer, device.load(layer)) for layer in layers((37, 130), (1, 1), (128, 200))]
        for _ in range(2):
            for layer, handle in loaded:
                codes = rng.integers(-128, 128, (2, layer.trits.shape[1])).astype(np.int8)
                right = numerics.matmul(layer.trits, codes)
                assert np.array_equal(device.matmul(handle, codes), right)


def test_extreme_values():
    with Device(SimulatedDevice(CONFIG), url="sim", config=CONFIG) as device:
        trits = np.full((5, 2560), -1, np.int8)
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        codes = np.full((1, 2560), -128, np.int8)
        assert np.array_equal(device.matmul(handle, codes), np.full((1, 5), 128 * 2560))


@pytest.mark.parametrize("hz", [83_333_333, pytest.param(50_000_000, marks=pytest.mark.slow)])
def test_two_clocks(hz):
    """Loading, checking, reading back and products, with the chip at a clock of its own."""
    config = replace(TWO_CLOCKS, memory=replace(TWO_CLOCKS.memory, clock_hz=hz))
    rng = np.random.default_rng(16)
    with Device(SimulatedDevice(config, stall_seed=5), url="sim", config=config) as device:
        loaded = [(layer, device.load(layer)) for layer in layers((16, 20), (7, 11))]
        assert device.selftest().ok
        for layer, handle in loaded:
            codes = rng.integers(-128, 128, (3, layer.trits.shape[1])).astype(np.int8)
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer.trits, codes))


def test_a_broken_rule_is_named():
    model = {"stricter": {"rcd": 1}}
    transport = SimulatedDevice(CONFIG, memory_model=model)
    with pytest.raises(DeviceError, match="the memory breaks tRCD, from ACTIVE to READ or WRITE"):
        with Device(transport, url="sim", config=CONFIG) as device:
            device.load(layers((8, 40))[0])


@pytest.mark.slow
@pytest.mark.parametrize("round_trip_ns", [0.0, 7.0, 26.0])
def test_the_data_may_come_late(round_trip_ns):
    """The accelerator finds the phase of its data; results are exact."""
    model = {"round_trip_ns": round_trip_ns}
    transport = SimulatedDevice(TWO_CLOCKS, memory_model=model)
    with Device(transport, url="sim", config=TWO_CLOCKS) as device:
        (layer,) = layers((16, 20))
        handle = device.load(layer)
        codes = np.random.default_rng(17).integers(-128, 128, (3, 20)).astype(np.int8)
        assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer.trits, codes))


@pytest.mark.slow
def test_no_phase():
    """No layer is loaded, and the error and the self-test say why."""
    transport = SimulatedDevice(TWO_CLOCKS, memory_model={"round_trip_ns": 150.0})
    with Device(transport, url="sim", config=TWO_CLOCKS) as device:
        with pytest.raises(DeviceError) as raised:
            device.load(layers((16, 20))[0])
        report = device.selftest()
    assert re.fullmatch(
        r"sim refused COMMIT of index 0, count \d+, address \d+: MEMORY_ERROR: the weight memory "
        r"could not read a word; after power-up the SDRAM's data was right at no phase of its "
        r"clock; .*",
        str(raised.value),
    )
    assert [check.name for check in report.checks if not check.ok] == [
        "weight memory",
        "known layer",
    ]
    assert "right at no phase of its clock; switch the device off and on" in report.report()
