"""Products of several layers with the same codes: exact sums, and the codes loaded once."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.layers import GROUPS, SMALL
from tritloom.host import DeviceError, GroupLayer, InputError, TernaryLayer
from tritloom.host.device import Device
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.groups import matmul_groups
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.device.reference import ReferenceTransport

ROOMY = replace(GROUPS, max_layers=16, memory=BlockRam(words=600))


class Watched(ReferenceTransport):
    """Counts LOADs, and refuses the one with the number `refused`."""

    loads = 0
    refused = -1

    def send(self, packet: bytes) -> None:
        request = Request.parse(packet)
        if request.opcode != Opcode.LOAD:
            super().send(packet)
            return
        self.loads += 1
        super().send(packet)
        if self.loads == self.refused:
            response = replace(Response.parse(self._responses.pop()), status=Status.BAD_LENGTH)
            self._responses.append(response.pack())


@pytest.fixture
def random():
    return np.random.default_rng(3)


def made(random, out_features, in_features):
    trits = random.integers(-1, 2, (out_features, in_features)).astype(np.int8)
    return TernaryLayer.from_trits(trits, 1.0)


def codes_of(random, tokens, in_features):
    return random.integers(-128, 128, (tokens, in_features)).astype(np.int8)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, banks=1)])
@pytest.mark.parametrize(
    ("tokens", "in_features", "loads"),
    [
        (1, 100, 1),
        (2, 90, 2),  # as many as the device computes at once
        (3, 20, 9),  # more: the bank holds the last ones
        (1, 130, 6),  # two pieces of inputs: the bank holds the last one
    ],
)
def test_codes_are_loaded_once(random, config, tokens, in_features, loads):
    transport = Watched(config)
    with Device(transport, url="test") as device:
        # The second layer has more outputs than a bank holds, so it is several pieces.
        layers = [made(random, rows, in_features) for rows in (7, 70, 30)]
        handles = [device.load(layer) for layer in layers]
        for _ in range(3):
            codes = codes_of(random, tokens, in_features)
            transport.loads = 0
            jobs = device.submit_all(handles, codes)
            for job, layer in zip(jobs, layers, strict=True):
                assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes))
            assert transport.loads == loads
            assert np.array_equal(
                device.matmul(handles[0], codes), numerics.matmul(layers[0].trits, codes)
            )
        assert device.submit_all([], codes) == []


def test_bytes_count_once(random):
    with Device(ReferenceTransport(SMALL), url="test") as device:
        handles = [device.load(made(random, 7, 40)) for _ in range(2)]
        codes = codes_of(random, 1, 40)
        alone = [device.submit(handle, codes) for handle in handles]
        together = device.submit_all(handles, codes)
        for job in (*alone, *together):
            job.result()
        sent = [job.stats.bytes_tx for job in (*alone, *together)]
        assert sent[0] == sent[1] == sent[2]
        assert sent[3] == sent[0] - 60  # a packet with 40 codes


def test_groups_and_passes(random):
    """A layer whose groups are others loads the codes for itself; two passes load them once."""
    transport = Watched(ROOMY)
    with Device(transport, url="test") as device:
        weights = random.integers(-1, 3, (4, 24)).astype(np.int8)
        layers = [GroupLayer.from_weights(weights, group) for group in (8, 8, 0, 12)]
        layers.append(made(random, 5, 24))
        codes = codes_of(random, 1, 24)
        for chosen, loads in (([0], 1), ([2, 4], 1), ([4, 2], 1), ([0, 2], 2), ([4, 3, 2], 3)):
            handles = [device.load(layers[number]) for number in chosen]
            transport.loads = 0
            jobs = device.submit_all(handles, codes)
            for number, job in zip(chosen, jobs, strict=True):
                layer = layers[number]
                if isinstance(layer, GroupLayer):
                    assert np.array_equal(job.result(), matmul_groups(weights, codes, layer.group))
                else:
                    assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes))
            assert transport.loads == loads
            for handle in handles:
                device.unload(handle)


def test_passes_side_by_side(random):
    """On a device with scales a layer with a weight 2 takes the codes twice."""
    config = replace(ROOMY, max_group_sums=0, scale=ScaleConfig(group=10), max_in_features=80)
    transport = Watched(config)
    with Device(transport, url="test") as device:
        scales = np.full((4, 2), 0.5, np.float16)
        layers = [
            GroupLayer.from_weights(random.integers(-1, most, (4, 20)).astype(np.int8), 10, scales)
            for most in (2, 3, 2, 3)
        ]
        assert (layers[1].weights == 2).any()
        handles = [device.load(layer) for layer in layers]
        codes = codes_of(random, 1, 20)
        expected = [device.matmul_scaled(handle, codes) for handle in handles]
        transport.loads = 0
        for job, floats in zip(device.submit_all(handles, codes), expected, strict=True):
            assert np.array_equal(job.scaled(), floats)
        assert transport.loads == 4


def test_a_refused_load_fails_each_job_that_needs_it(random):
    """Without these codes their sums would be wrong."""
    transport = Watched(SMALL)
    with Device(transport, url="test") as device:
        handles = [device.load(made(random, 7, 40)) for _ in range(3)]
        codes = codes_of(random, 1, 40)
        transport.refused = transport.loads + 1
        jobs = device.submit_all(handles, codes)
        for job in reversed(jobs):
            with pytest.raises(DeviceError, match="refused LOAD"):
                job.result()
        sums = device.matmul(handles[0], codes)
        assert np.array_equal(sums, numerics.matmul(handles[0].layer.trits, codes))


def test_what_it_refuses(random):
    """The products of the layers before are there."""
    with Device(ReferenceTransport(SMALL), url="test") as device:
        handles = [device.load(made(random, 7, features)) for features in (40, 50)]
        codes = codes_of(random, 1, 40)
        with pytest.raises(InputError, match="codes must have 50 features, not 40"):
            device.submit_all(handles, codes)
        device.unload(handles[0])
        with pytest.raises(InputError, match="unload"):
            device.submit_all(handles[:1], codes)
