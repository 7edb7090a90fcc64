"""Models of memory chips at an accelerator's pads, in every simulation."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from amaranth.lib.wiring import In

from tests.support import outside
from tests.support.packets import assert_responses, run_packets
from tritloom.host import TernaryLayer
from tritloom.host.device import Device
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError, DeviceError, InputError
from tritloom.rtl.top import Accelerator
from tritloom.sim.device.simulated import SimulatedDevice, recipe
from tritloom.sim.models.contract import MemoryModel, create_model
from tritloom.sim.models.surrounded import SurroundedAccelerator, store_bench, surrounded
from tritloom.sim.verify.traffic import Traffic

outside.register()

CONFIG = dataclasses.replace(TINY, memory=outside.Outside(words=64))


def test_a_memory_without_a_model_is_not_surrounded():
    assert isinstance(surrounded(TINY), Accelerator)
    with pytest.raises(ConfigError, match="memory 'bram' has no model that takes options"):
        surrounded(TINY, {"latency": 3})
    with pytest.raises(ConfigError, match="memory 'bram' has no model to simulate"):
        create_model(TINY, {}, {})


def test_unknown_option():
    with pytest.raises(ConfigError) as raised:
        surrounded(CONFIG, {"latency": 3})
    assert str(raised.value) == (
        "memory 'test-outside': options of its model: got an unexpected keyword argument 'latency'"
    )


class Deaf(MemoryModel):
    """A model with a pad too narrow."""

    def __init__(self, config):
        pads = {name: member.flip() for name, member in outside.chip_pads(config).items()}
        super().__init__(config, pads | {"chip_data": In(3)}, ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong(outside.Outside):
    model: ClassVar[str] = f"{__name__}:Deaf"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoModel(outside.Outside):
    model: ClassVar[str] = "dataclasses:dataclass"


def test_a_model_that_does_not_fit(monkeypatch):
    with pytest.raises(ConfigError) as raised:
        surrounded(dataclasses.replace(CONFIG, memory=Wrong(words=64)))
    message = "memory 'test-outside': its model must have the pad chip_data in the other direction"
    assert str(raised.value) == message
    with pytest.raises(ConfigError) as raised:
        surrounded(dataclasses.replace(CONFIG, memory=NoModel(words=64)))
    message = "memory 'test-outside': dataclasses:dataclass is not a MemoryModel"
    assert str(raised.value) == message


def test_recipe_covers_the_model_and_its_options():
    assert recipe(CONFIG) == recipe(CONFIG, {}) is not None
    assert recipe(CONFIG, {"forbidden": 3}) not in (recipe(CONFIG), recipe(TINY))


@pytest.mark.sim
@pytest.mark.parametrize("stall_seed", [0, 5])
def test_product_on_the_simulated_fpga(stall_seed):
    rng = np.random.default_rng(6)
    trits = rng.integers(-1, 2, (8, 16)).astype(np.int8)
    codes = rng.integers(-128, 128, (3, 16)).astype(np.int8)
    transport = SimulatedDevice(CONFIG, stall_seed)
    with Device(transport, url="sim", config=CONFIG) as device:
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        assert np.array_equal(device.matmul(handle, codes), numerics.matmul(trits, codes))
        held = transport.read_memory((outside.CHIP_WORDS - 64) * CONFIG.word_bytes, 64)
        assert any(held)


@pytest.mark.sim
def test_violation_ends_the_simulation():
    transport = SimulatedDevice(CONFIG, memory_model={"forbidden": 5})
    with pytest.raises(
        DeviceError, match=r"the memory breaks a rule of the test.*, in cycle [1-9]"
    ):
        with Device(transport, url="sim", config=CONFIG) as device:
            device.load(TernaryLayer.from_trits(np.ones((8, 16), np.int8), 1.0))


@pytest.mark.sim
def test_store_of_the_simulated_fpga():
    transport = SimulatedDevice(CONFIG)
    last = outside.CHIP_WORDS * CONFIG.word_bytes
    transport.write_memory(last - 3, b"abc")
    assert transport.read_memory(last - 4, 4) == b"\0abc"
    with pytest.raises(InputError, match=f"store 0 has {last} bytes, not {last - 3} to {last + 1}"):
        transport.write_memory(last - 3, b"abcd")
    with pytest.raises(InputError, match="store 1 has 0 bytes"):
        transport.read_memory(0, 1, store=1)
    with pytest.raises(InputError, match="store 0 has 0 bytes"):
        SimulatedDevice(TINY).read_memory(0, 1)


@pytest.mark.sim
def test_store_in_amaranths_simulator():
    traffic = Traffic(CONFIG, 7)
    traffic.reset(3)
    traffic.product(0, 2, 2, 3)
    dut = SurroundedAccelerator(CONFIG, {})
    contents: dict[int, int] = {}
    responses = run_packets(dut, CONFIG, traffic.packets, background=[store_bench(dut, contents)])
    assert_responses(CONFIG, traffic.packets, responses)
    assert min(contents) >= outside.CHIP_WORDS - 64
