"""The driver on the reference device: every result exact, or a clear error."""

import copy
import os
import pickle
import sys
import threading
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import product
from types import FrameType

import numpy as np
import pytest

from tests.support import plugins, quick_first
from tests.support.faults import FaultyTransport
from tests.support.floats import different
from tests.support.layers import CONFIGS, ODD, SMALL, WIDE, codes_of, layer_of
from tritloom.host import (
    CapacityError,
    Device,
    DeviceError,
    DeviceTimeout,
    InputError,
    TernaryLayer,
    connect,
)
from tritloom.host.allocator import cut_layer
from tritloom.host.handle import COMMIT_TRIES
from tritloom.host.requests import Counters
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import COUNTERS, VECTOR_COUNTERS, Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.sim.device.reference import ReferenceTransport
from tritloom.sim.device.simulated import SimulatedDevice

WIDE_8 = replace(WIDE, link=PacketStream(width=8))
"""The streams move 8 bytes in a cycle."""


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_random_layers_are_exact(config, random):
    with connect("golden", config=config) as device:
        for _ in range(60):
            limit = int(random.integers(1, 1 + min(60, config.max_out_features)))
            shape = random.integers(1, 1 + limit), random.integers(1, 1 + config.max_in_features)
            layer = layer_of(random, *map(int, shape))
            if random.random() < 0.2:
                layer = TernaryLayer.from_trits(np.full_like(layer.trits, -1), 1.0)
            codes = codes_of(random, int(random.integers(1, 6)), layer.in_features)
            codes[0] = random.choice([-128, 127])
            handle = device.load(layer)
            sums = device.matmul(handle, codes)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, numerics.matmul(layer.trits, codes))
            device.unload(handle)
        assert device.info.free_words == config.memory_words
        assert device.info.layers_used == 0


@pytest.mark.parametrize(
    "shape", [(61, 101), (200, 30), (30, 200), (60, 100), (121, 100), (60, 201), (1, 300)]
)
def test_layers_beyond_the_limits_are_split(shape, random):
    with connect("golden", config=replace(SMALL, memory=BlockRam(words=4096))) as device:
        layer = layer_of(random, *shape)
        handle = device.load(layer)
        codes = codes_of(random, 5, shape[1])
        codes[1] = -128
        assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer.trits, codes))
        assert device.info.layers_used == -(-shape[0] // 60) * -(-shape[1] // 100)


def test_activations_are_sent_once_for_all_rows_of_a_split_layer(random):
    with connect("golden", config=replace(SMALL, memory=BlockRam(words=4096))) as device:
        handle = device.load(layer_of(random, 180, 100))
        job = device.submit(handle, codes_of(random, 2, 100))
        opcodes = [command.opcode for command in job._commands]
        assert opcodes.count(Opcode.LOAD) == 2
        assert opcodes.count(Opcode.RUN) == 3
        job.result()


def test_limits_that_are_no_multiple_of_the_geometry(random):
    config = replace(SMALL, max_in_features=17, max_out_features=7, memory=BlockRam(words=2048))
    config = replace(config, max_layers=64)
    with connect("golden", config=config) as device:
        layer = layer_of(random, 20, 40)
        codes = codes_of(random, 3, 40)
        handle = device.load(layer)
        assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer.trits, codes))
        assert handle.words == 4 * 7, "pieces are whole tiles and groups: no padding inside"


def test_limits_below_one_tile_and_group(random):
    config = replace(SMALL, max_in_features=7, max_out_features=2, max_layers=64)
    with connect("golden", config=config) as device:
        layer = layer_of(random, 5, 20)
        codes = codes_of(random, 3, 20)
        sums = device.matmul(device.load(layer), codes)
        assert np.array_equal(sums, numerics.matmul(layer.trits, codes))


def test_many_layers_at_once_and_jobs_in_any_order(random):
    with connect("golden", config=SMALL) as device:
        layers = [layer_of(random, 5 + 7 * i, 9 + 11 * i) for i in range(6)]
        handles = [device.load(layer) for layer in layers]
        inputs = [codes_of(random, 1 + i, layers[i % 6].in_features) for i in range(24)]
        jobs = [device.submit(handles[i % 6], inputs[i]) for i in range(24)]
        for i in random.permutation(24).tolist():
            expected = numerics.matmul(layers[i % 6].trits, inputs[i])
            assert np.array_equal(jobs[i].result(), expected)
            assert jobs[i].result() is jobs[i].result()


def test_codes_are_copied_at_submit(random):
    with connect("golden", config=SMALL) as device:
        layer = layer_of(random, 30, 100)
        codes = codes_of(random, 9, 100)
        expected = numerics.matmul(layer.trits, codes)
        job = device.submit(device.load(layer), codes)
        codes[:] = 0
        assert np.array_equal(job.result(), expected)


@pytest.mark.parametrize("divides", [False, True])
def test_linear_is_the_golden_bitlinear(divides, random):
    with connect("golden", config=SMALL) as device:
        trits = random.integers(-1, 2, (40, 70), np.int8)
        scale = random.uniform(0.1, 2, 40).astype(np.float32)
        bias = random.normal(size=40).astype(np.float32)
        layer = TernaryLayer.from_trits(trits, scale, scale_divides=divides, bias=bias)
        x = random.normal(size=(5, 70)).astype(np.float32)
        x[3] = 0
        y = device.linear(device.load(layer), x)
        assert y.dtype == np.float32
        assert different(y, numerics.bitlinear(x, trits, scale, divides, bias)) == 0


def test_linear_of_one_feature_keeps_the_sign_of_zero(random):
    with connect("golden", config=SMALL) as device:
        trits = random.integers(-1, 2, (20, 1), np.int8)
        x = random.choice([-1.5, 0, 2], (6, 1)).astype(np.float32)
        y = device.linear(device.load(TernaryLayer.from_trits(trits, np.float32(3))), x)
        assert np.signbit(y[y == 0]).any()
        assert different(y, numerics.bitlinear(x, trits, np.float32(3))) == 0


def banks_of(job) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Banks of a job's LOADs (one a token batch), of its RUNs, and of the RESULTS of each RUN."""
    loads, runs, results = [], [], []
    for command in job._commands:
        if command.opcode == Opcode.LOAD and command.index == command.address == 0:
            loads.append(command.activation_bank)
        elif command.opcode == Opcode.RUN:
            runs.append((command.activation_bank, command.result_bank))
        elif command.opcode == Opcode.RESULTS:
            results.append(command.result_bank)
    return loads, runs, results


class TestBanks:
    """Jobs take the banks in turn; results are exact with one bank and with two."""

    def test_batches_and_jobs_alternate(self, random):
        with connect("golden", config=SMALL) as device:
            handle = device.load(layer_of(random, 3, 20))
            jobs = [device.submit(handle, codes_of(random, 5, 20)) for _ in range(3)]
            loads, runs, results = (
                [bank for of_job in part for bank in of_job]
                for part in zip(*map(banks_of, jobs), strict=True)
            )
            # 5 tokens of each job in batches of 2, 2 and 1: nine RUNs.
            assert loads == [1, 0, 1, 0, 1, 0, 1, 0, 1]
            assert runs == [(bank, bank) for bank in loads]
            assert results == [
                bank
                for bank, tokens in zip(loads, 3 * [2, 2, 1], strict=True)
                for _ in range(tokens)
            ]

    def test_pieces_that_share_activations(self, random):
        """They are loaded once; the results of each piece go into the next bank."""
        with connect("golden", config=replace(SMALL, memory=BlockRam(words=4096))) as device:
            handle = device.load(layer_of(random, 180, 100))
            job = device.submit(handle, codes_of(random, 2, 100))
            loads, runs, results = banks_of(job)
            assert loads == [1] and runs == [(1, 1), (1, 0), (1, 1)]
            assert [bank for n, bank in enumerate(results) if bank != results[n - 1] or n == 0] == [
                1,
                0,
                1,
            ]

    def test_one_bank(self, random):
        with connect("golden", config=replace(SMALL, banks=1)) as device:
            handle = device.load(layer_of(random, 3, 20))
            for _ in range(2):
                loads, runs, results = banks_of(device.submit(handle, codes_of(random, 5, 20)))
                assert (set(loads), set(runs), set(results)) == ({0}, {(0, 0)}, {0})

    @pytest.mark.parametrize("banks", [1, 2])
    def test_patience(self, banks, random):
        """With two banks a RUN waits for the one before, and the first RESULTS for its own RUN."""
        config = replace(SMALL, banks=banks, memory=BlockRam(words=4096))
        cycles = [
            config.run_cycles(LayerShape.of(config, rows, columns))
            for _, rows, _, columns in cut_layer(config, 130, 100)
        ]
        with connect("golden", config=config) as device:
            job = device.submit(device.load(layer_of(random, 130, 100)), codes_of(random, 1, 100))
            runs = [command.cycles for command in job._commands if command.opcode == Opcode.RUN]
            results = [
                command.cycles
                for command in job._commands
                if command.opcode == Opcode.RESULTS and command.address == 0
            ]
        before = [0, *cycles[:-1]] if banks == 2 else [0] * len(cycles)
        assert runs == [sum(each) for each in zip(cycles, before, strict=True)]
        assert results == cycles and len(set(cycles)) > 1

    @pytest.mark.parametrize("banks", [1, 2])
    def test_exact(self, banks, random):
        """Layers in pieces, jobs in any order: no bank is overwritten before it is read."""
        self.campaign("golden", banks, random, 24)

    @pytest.mark.sim
    @pytest.mark.parametrize("banks", [1, 2])
    def test_exact_on_the_hardware(self, banks, random):
        self.campaign("sim", banks, random, 8)

    def campaign(self, url, banks, random, count):
        config = replace(SMALL, banks=banks, memory=BlockRam(words=2048), max_in_features=70)
        with connect(url, config=config) as device:
            layers = [layer_of(random, 30, 50), layer_of(random, 100, 130), layer_of(random, 7, 90)]
            handles = [device.load(layer) for layer in layers]
            inputs = [codes_of(random, 1 + n % 4, layers[n % 3].in_features) for n in range(count)]
            jobs = [device.submit(handles[n % 3], codes) for n, codes in enumerate(inputs)]
            for n in random.permutation(count).tolist():
                expected = numerics.matmul(layers[n % 3].trits, inputs[n])
                assert np.array_equal(jobs[n].result(), expected)
            for handle, _layer in zip(handles, layers, strict=True):
                assert handle.stats.cycles > handle.stats.runs > 0


def test_a_memory_that_fails_in_a_run(random):
    """The job has no sums, and says what to do; those before and after it are whole."""
    transport = ReferenceTransport(SMALL)
    device = Device(transport, url="test")
    layer = layer_of(random, 30, 50)
    handle = device.load(layer)
    codes = [codes_of(random, 3, 50) for _ in range(3)]
    jobs = [device.submit(handle, each) for each in codes]
    (doomed,) = [command for command in jobs[1]._commands if command.opcode == Opcode.RUN][1:]
    bank, process, failing = doomed.result_bank, transport.device.process, [False]

    def fail(packet: bytes) -> bytes | None:
        request = Request.parse(packet)
        if request.opcode == Opcode.RUN and request.result_bank == bank:
            failing[0] = request.seq == doomed.seq
        response = process(packet)
        if request.opcode == Opcode.RESULTS and request.result_bank == bank and failing[0]:
            parsed = Response.parse(response)
            return replace(parsed, status=Status.MEMORY_ERROR, value=0, payload=b"").pack()
        return response

    transport.device.process = fail
    for _ in range(2):
        with pytest.raises(
            DeviceError, match=r"^test refused RESULTS of .*: MEMORY_ERROR: the wei"
        ):
            jobs[1].result()
    for n in (0, 2):
        assert np.array_equal(jobs[n].result(), numerics.matmul(layer.trits, codes[n]))
    assert np.array_equal(device.matmul(handle, codes[1]), numerics.matmul(layer.trits, codes[1]))


def test_stats(random):
    with connect("golden", config=SMALL) as device:
        layer = layer_of(random, 60, 100)
        handle = device.load(layer)
        job = device.submit(handle, codes_of(random, 3, 100))
        assert job.stats is None
        job.result()
        stats = job.stats
        assert (stats.out_features, stats.in_features) == (60, 100)
        assert (stats.tokens, stats.runs, stats.macs) == (3, 2, 3 * 60 * 100)
        assert stats.cycles == 2 * SMALL.run_cycles(LayerShape.of(SMALL, 60, 100))
        # 3 tokens of 100 activations; 2 passes; 3 × 60 results; packets of at most 108 bytes
        results = 3 * 60 * SMALL.acc_bytes
        pieces = 3 * -(-60 // (108 // SMALL.acc_bytes // 3 * 3))
        assert stats.bytes_tx == 3 * (100 + 20) + (2 + pieces) * 20
        assert stats.bytes_rx == (3 + 2 + pieces) * 20 + results
        second = device.submit(handle, codes_of(random, 1, 100))
        assert handle.stats == stats, "what was not waited for is not counted"
        second.result()
        assert handle.stats == stats + second.stats
        assert (handle.stats.tokens, handle.stats.runs) == (4, 3)


def test_info_and_counters():
    with connect("golden", config=TINY) as device:
        info = device.info
        assert (info.url, info.config, info.protocol_version) == ("golden", TINY, 2)
        assert info.layout_digest == TINY.layout_digest.hex()
        assert info.build_digest == TINY.build_digest.hex()
        counters = device.counters()
        assert Counters.__slots__ == COUNTERS + VECTOR_COUNTERS
        assert counters.packets > 3
        assert device.counters().packets == counters.packets + 1


class TestMemory:
    """Weight words and layer slots: taken, refused, given back."""

    def test_full_and_given_back(self, random):
        with connect("golden", config=TINY) as device:
            layer = layer_of(random, 16, 20)  # 32 of 64 words
            first, second = device.load(layer), device.load(layer)
            before = device.info
            assert (before.free_words, before.layers_used) == (0, 2)
            with pytest.raises(CapacityError) as caught:
                device.load(layer_of(random, 2, 5))
            assert str(caught.value) == (
                "layer 2 × 5 needs 1 words (2 bytes), the largest piece 1 in one run, and 1 layer "
                "slots; free are 0 words (0 bytes), the largest run 0, and 2 of 4 slots; "
                "unload layers, use a larger device, or leave a part of the model on the host: "
                'fit="layers" of offload, --fit layers of tritloom run'
            )
            assert device.info == before
            device.unload(first)
            third = device.load(layer)
            codes = codes_of(random, 2, 20)
            for handle in (second, third):
                expected = numerics.matmul(layer.trits, codes)
                assert np.array_equal(device.matmul(handle, codes), expected)

    def test_no_layer_slot(self, random):
        with connect("golden", config=TINY) as device:
            handles = [device.load(layer_of(random, 1, 1)) for _ in range(4)]
            with pytest.raises(CapacityError, match="0 of 4 slots"):
                device.load(layer_of(random, 1, 1))
            device.unload(handles[2])
            device.load(layer_of(random, 1, 1))

    def test_pieces_of_a_layer_need_slots_each(self, random):
        with connect("golden", config=replace(TINY, memory=BlockRam(words=1024))) as device:
            with pytest.raises(CapacityError, match=r"and 6 layer slots; .* 4 of 4 slots"):
                device.load(layer_of(random, 48, 40))
            assert device.info.free_words == 1024

    def test_fragments_are_joined(self, random):
        with connect("golden", config=TINY) as device:
            quarter, half = layer_of(random, 8, 20), layer_of(random, 16, 20)
            handles = [device.load(quarter) for _ in range(4)]
            device.unload(handles[0])
            device.unload(handles[2])
            with pytest.raises(CapacityError, match=r"free are 32 words .* the largest run 16"):
                device.load(half)
            device.unload(handles[1])
            handle = device.load(half)
            codes = codes_of(random, 2, 20)
            for loaded, layer in ((handles[3], quarter), (handle, half)):
                assert np.array_equal(
                    device.matmul(loaded, codes), numerics.matmul(layer.trits, codes)
                )

    def test_words_are_reused_while_jobs_with_the_old_layer_are_queued(self, random):
        with connect("golden", config=TINY) as device:
            old, new = layer_of(random, 16, 20), layer_of(random, 16, 20)
            handle = device.load(old)
            codes = codes_of(random, 5, 20)
            job = device.submit(handle, codes)
            device.unload(handle)
            others = [device.load(new), device.load(new)]
            assert np.array_equal(job.result(), numerics.matmul(old.trits, codes))
            for other in others:
                expected = numerics.matmul(new.trits, codes)
                assert np.array_equal(device.matmul(other, codes), expected)

    def test_random_loads_and_unloads_never_overlap(self, random):
        with connect("golden", config=SMALL) as device:
            loaded: list[tuple[object, TernaryLayer]] = []
            refused = 0
            for _ in range(150):
                if loaded and random.random() < 0.4:
                    device.unload(loaded.pop(int(random.integers(len(loaded))))[0])
                layer = layer_of(random, *random.integers(1, 90, 2).tolist())
                try:
                    loaded.append((device.load(layer), layer))
                except CapacityError:
                    refused += 1
                used = sum(handle.words for handle, _ in loaded)
                assert device.info.free_words == SMALL.memory_words - used
                handle, layer = loaded[int(random.integers(len(loaded)))]
                codes = codes_of(random, 2, layer.in_features)
                expected = numerics.matmul(layer.trits, codes)
                assert np.array_equal(device.matmul(handle, codes), expected)
            assert refused > 10

    def test_a_word_that_cannot_keep_its_value(self, random):
        transport = ReferenceTransport(TINY)
        device = Device(transport, url="test")
        good = device.load(layer_of(random, 16, 20))
        image = transport.device._image

        def stuck(layer: object) -> np.ndarray:
            words = image(layer)
            if layer.base <= 40 < layer.base + len(words):
                words[40 - layer.base, 0] |= 0x10
            return words

        transport.device._image = stuck
        before = device.info
        zeros = TernaryLayer.from_trits(np.full((16, 20), -1, np.int8), 1.0)
        with pytest.raises(DeviceError) as caught:
            device.load(zeros)
        assert str(caught.value) == (
            f"test does not keep what is written to words 32 to 63: wrong checksum "
            f"{COMMIT_TRIES} times; run its self-test"
        )
        assert device.info == before
        codes = codes_of(random, 1, 20)
        expected = numerics.matmul(good.layer.trits, codes)
        assert np.array_equal(device.matmul(good, codes), expected)
        report = device.selftest()
        assert not report.ok
        assert "FAIL weight memory: word 40 did not keep its value" in str(report)

    def test_a_write_that_fails_once_is_repeated(self, random):
        transport = ReferenceTransport(TINY)
        device = Device(transport, url="test")
        image = transport.device._image
        calls = []

        def flaky(layer: object) -> np.ndarray:
            words = image(layer)
            calls.append(len(words))
            if len(calls) < COMMIT_TRIES:
                words[0, 0] ^= 1
            return words

        transport.device._image = flaky
        layer = layer_of(random, 16, 20)
        codes = codes_of(random, 1, 20)
        sums = device.matmul(device.load(layer), codes)
        assert np.array_equal(sums, numerics.matmul(layer.trits, codes))


class Mortal(ReferenceTransport):
    """Stops responding when `dead`."""

    dead = False

    def send(self, packet: bytes) -> None:
        if not self.dead:
            super().send(packet)


def test_a_device_that_stops_responding_and_comes_back(random):
    transport = Mortal(SMALL)
    device = Device(transport, url="test")
    layer = layer_of(random, 30, 50)
    handle = device.load(layer)
    codes = codes_of(random, 4, 50)
    done = device.submit(handle, codes)
    done.result()
    transport.dead = True
    with pytest.raises(DeviceTimeout, match=r"^test does not respond to LOAD, tried 9 times; "):
        device.matmul(handle, codes)
    with pytest.raises(DeviceError, match="connect again"):
        device.submit(handle, codes)
    assert np.array_equal(done.result(), numerics.matmul(layer.trits, codes))
    transport.dead, transport._closed = False, False
    again = Device(transport, url="test")
    assert again.info.free_words == SMALL.memory_words
    sums = again.matmul(again.load(layer), codes)
    assert np.array_equal(sums, numerics.matmul(layer.trits, codes))


def test_a_device_that_is_reset_by_another(random):
    transport = ReferenceTransport(SMALL)
    device = Device(transport, url="test")
    handle = device.load(layer_of(random, 3, 5))
    Device(transport, url="test")
    with pytest.raises(DeviceError, match=r"^test was reset; connect again$"):
        device.matmul(handle, codes_of(random, 1, 5))


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.RUN, Opcode.RESULTS])
def test_a_failed_job_leaves_the_others_whole(opcode, random):
    transport = ReferenceTransport(SMALL)
    device = Device(transport, url="test")
    layer = layer_of(random, 30, 50)
    handle = device.load(layer)
    codes = [codes_of(random, 3, 50) for _ in range(5)]
    jobs = [device.submit(handle, codes[i]) for i in range(2)]
    doomed = device.submit(handle, codes[2])
    for command in doomed._commands:  # not sent yet: the window is full
        if command.opcode == opcode:
            command.index = 9
    jobs += [device.submit(handle, codes[i]) for i in (3, 4)]
    for _ in range(2):
        with pytest.raises(DeviceError, match=f"^test refused {opcode.name} of index 9, "):
            doomed.result()
    for job, i in zip(jobs, (0, 1, 3, 4), strict=True):
        assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes[i]))
    assert handle.stats.tokens == 12


def test_commands_fill_the_window_and_patience_covers_their_work(random):
    class Recorder(ReferenceTransport):
        def receive(self, timeout_s: float) -> bytes | None:
            timeouts.append(round(timeout_s * config.clock_hz / 2))
            return super().receive(timeout_s)

    timeouts: list[int] = []
    for config in (
        replace(ODD, slots=2),
        replace(ODD, slots=2, memory=plugins.Stalling(words=4096)),
        ODD,
    ):
        transport = Recorder(config)
        device = Device(transport, url="test")
        handle = device.load(layer_of(random, 7, 200))  # 40 words of 7 bytes
        timeouts.clear()
        job = device.submit(handle, codes_of(random, 5, 200))
        assert len(transport._responses) == config.window
        job.result()
        cycles = config.run_cycles(LayerShape(40, 1)) or 1000 + 4 * 40 * 8
        assert max(timeouts) >= cycles + 16 * 40
        timeouts.clear()
        device.load(layer_of(random, 7, 5))
        assert timeouts[-1] == 2 * 7 + 16 * 40


def test_a_refused_write_gives_the_memory_back(random):
    transport = ReferenceTransport(SMALL)
    device = Device(transport, url="test")
    process = transport.device.process

    def refuse(packet: bytes) -> bytes | None:
        response = process(packet)
        if Request.parse(packet).opcode == Opcode.WRITE:
            return replace(Response.parse(response), status=Status.OUT_OF_RANGE).pack()
        return response

    transport.device.process = refuse
    with pytest.raises(DeviceError, match=r"^test refused WRITE of index 0, .*: OUT_OF_RANGE$"):
        device.load(layer_of(random, 30, 50))
    assert (device.info.free_words, device.info.layers_used) == (SMALL.memory_words, 0)


def test_an_interrupted_wait_mixes_nothing_up(random):
    class Interrupted(ReferenceTransport):
        countdown = 1000

        def receive(self, timeout_s: float) -> bytes | None:
            self.countdown -= 1
            if self.countdown == 0:
                raise KeyboardInterrupt
            packet = super().receive(timeout_s)
            if self.countdown == -4:
                raise KeyboardInterrupt  # the packet is lost with it
            return packet

    transport = Interrupted(SMALL)
    device = Device(transport, url="test")
    layer = layer_of(random, 60, 100)
    handle = device.load(layer)
    for countdown in range(1, 19):
        codes = [codes_of(random, 3, 100) for _ in range(2)]
        jobs = [device.submit(handle, each) for each in codes]
        transport.countdown = countdown
        interrupts = 0
        while True:
            try:
                results = [job.result() for job in jobs]
                break
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 2
        for sums, each in zip(results, codes, strict=True):
            assert np.array_equal(sums, numerics.matmul(layer.trits, each))


class Tracer:
    """Raises KeyboardInterrupt at the n-th line that the driver and the device execute."""

    FILES = ("reference.py", "session.py", "device.py", "handle.py", "job.py", "allocator.py")

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> object:
        if not frame.f_code.co_filename.endswith(self.FILES):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line_leaves_the_golden_device_working(random):
    """At every 37th line of loading, computing and unloading; then all is done once more."""
    layer = layer_of(random, 7, 30)
    codes = codes_of(random, 3, 30)
    expected = numerics.matmul(layer.trits, codes)
    trace = sys.gettrace()
    line = 0
    interrupted = True
    while interrupted:
        line += 37
        with connect("golden", config=SMALL) as device:
            first = device.load(layer)
            interrupted = False
            try:
                sys.settrace(Tracer(line))
                handle = device.load(layer)
                device.matmul(handle, codes)
                device.unload(handle)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.settrace(trace)
            assert np.array_equal(device.matmul(first, codes), expected), line
            assert np.array_equal(device.matmul(device.load(layer), codes), expected), line
    assert line > 1000


def test_an_interrupted_load_gives_the_memory_back(random):
    transport = ReferenceTransport(SMALL)
    device = Device(transport, url="test")
    receive = transport.receive
    layer = layer_of(random, 60, 100)

    def interrupt(timeout_s: float) -> bytes | None:
        transport.receive = receive
        raise KeyboardInterrupt

    transport.receive = interrupt
    with pytest.raises(KeyboardInterrupt):
        device.load(layer)
    assert device.info.free_words == SMALL.memory_words
    codes = codes_of(random, 2, 100)
    sums = device.matmul(device.load(layer), codes)
    assert np.array_equal(sums, numerics.matmul(layer.trits, codes))


def bad_link_campaign(faulty: FaultyTransport, config: AcceleratorConfig) -> list[str]:
    """10,000 commands and more; every sum is checked. Returns the errors that ended a session."""
    random = np.random.default_rng(3)
    commands = 0
    errors: list[str] = []
    while commands < 10_000:
        device = Device(faulty, url="test")
        assert device.info.config == config
        try:
            while commands < 10_000:
                layer = layer_of(
                    random,
                    int(random.integers(1, 1 + config.max_out_features)),
                    int(random.integers(1, 1 + config.max_in_features)),
                )
                handle = device.load(layer)
                inputs = [codes_of(random, 1 + i, layer.in_features) for i in range(4)]
                jobs = [device.submit(handle, codes) for codes in inputs]
                commands += sum(len(job._commands) for job in jobs)
                for job, codes in zip(jobs, inputs, strict=True):
                    assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes))
                device.unload(handle)
        except DeviceError as error:
            errors.append(str(error))
    assert all("connect again" in error for error in errors)
    assert min(faulty.faults.values()) > 50
    assert len(faulty.faults) == 8
    return errors


@quick_first(("name", "rate"), [("tiny", 0.01), ("small", 0.01), ("odd", 0.05)])
def test_ten_thousand_commands_on_a_bad_link(name, rate):
    """Lost, repeated, reordered and corrupt packets both ways: exact, or a clear error."""
    rates = {"lose": rate, "duplicate": rate, "reorder": rate, "corrupt": rate}
    config = CONFIGS[name]
    faulty = FaultyTransport(ReferenceTransport(config), **rates, seed=3)
    assert len(bad_link_campaign(faulty, config)) <= 1


@pytest.mark.sim
@pytest.mark.parametrize("config", [SMALL, WIDE_8], ids=["1-byte", "8-bytes"])
@pytest.mark.parametrize("stall_seed", [0, 5])
def test_ten_thousand_commands_on_a_bad_link_to_the_hardware(config, stall_seed):
    """Every sum is exact and no session ends, also when both streams pause at random."""
    rates = {"lose": 0.01, "duplicate": 0.01, "reorder": 0.01, "corrupt": 0.01}
    faulty = FaultyTransport(SimulatedDevice(config, stall_seed), **rates, seed=4)
    try:
        assert bad_link_campaign(faulty, config) == []
    finally:
        faulty.close()


@pytest.mark.sim
def test_the_hardware_with_wide_streams(random):
    """Packets of all lengths modulo a beat, in both directions."""
    with connect("sim", config=WIDE_8) as device:
        assert device.info.config == WIDE_8
        for out_features, in_features in product(range(1, 20), (1, 9, 35)):
            layer = layer_of(random, out_features, in_features)
            handle = device.load(layer)
            codes = codes_of(random, 5, in_features)
            codes[0], codes[1] = -128, 127
            expected = numerics.matmul(layer.trits, codes)
            assert np.array_equal(device.matmul(handle, codes), expected)
            device.unload(handle)
        assert device.counters().bad_packets == 0
        assert device.selftest().ok


@pytest.mark.sim
def test_the_hardware(random):
    with connect("sim", config=SMALL) as device:
        layer = layer_of(random, 61, 101)
        handle = device.load(layer)
        codes = codes_of(random, 5, 101)
        codes[0] = -128
        job = device.submit(handle, codes)
        assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes))
        shapes = [(60, 100), (1, 100), (60, 1), (1, 1)]
        once = [SMALL.run_cycles(LayerShape.of(SMALL, *shape)) for shape in shapes]
        assert job.stats.cycles == 3 * sum(once)
        assert device.selftest().ok


@pytest.mark.parametrize(
    "board", sorted(entry.name for entry in entry_points(group="tritloom.boards"))
)
def test_boards(board, random):
    with connect(f"golden?board={board}") as device:
        layer = layer_of(random, 100, 130)
        codes = codes_of(random, 3, 130)
        sums = device.matmul(device.load(layer), codes)
        assert np.array_equal(sums, numerics.matmul(layer.trits, codes))
    if board == "ulx3s-85f":
        assert connect("golden").info.config == device.info.config


class TestThreads:
    def products(self, url, config, threads, each):
        """Every thread has a layer of its own, and all use one device."""
        with connect(url, config=config) as device:
            layers = [layer_of(np.random.default_rng(i), 20 + i, 40 + i) for i in range(threads)]
            wrong: list[str] = []

            def work(number: int) -> None:
                random = np.random.default_rng(number)
                layer = layers[number]
                try:
                    for i in range(each):
                        handle = device.load(layer)
                        codes = codes_of(random, 3, layer.in_features)
                        sums = device.matmul(handle, codes)
                        if not np.array_equal(sums, numerics.matmul(layer.trits, codes)):
                            wrong.append(f"wrong sums in thread {number}, product {i}")
                        device.unload(handle)
                except Exception as error:  # noqa: BLE001 - the test reports all of them
                    wrong.append(repr(error))

            before = sys.getswitchinterval()
            sys.setswitchinterval(1e-6)
            try:
                workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
            finally:
                sys.setswitchinterval(before)
            assert wrong == []
            assert device.info.layers_used == 0
            assert device.selftest().ok

    def test_golden(self):
        self.products("golden", SMALL, threads=4, each=15)

    @pytest.mark.sim
    def test_hardware(self):
        self.products("sim", SMALL, threads=4, each=6)

    def test_jobs_of_one_handle_and_close(self, random):
        """Threads that wait for each other's jobs; then one closes the device."""
        with connect("golden", config=SMALL) as device:
            layer = layer_of(random, 30, 50)
            handle = device.load(layer)
            codes = [codes_of(random, 2, 50) for _ in range(12)]
            jobs = [device.submit(handle, each) for each in codes]
            results: dict[int, np.ndarray] = {}

            def work(numbers: list[int]) -> None:
                for number in numbers:
                    results[number] = jobs[number].result()

            orders = [list(range(12)), list(range(12))[::-1]]
            workers = [threading.Thread(target=work, args=(order,)) for order in orders]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            for number, each in enumerate(codes):
                assert np.array_equal(results[number], numerics.matmul(layer.trits, each))
            assert handle.stats.tokens == 24
            closer = threading.Thread(target=device.close)
            closer.start()
            closer.join()
            with pytest.raises(DeviceError, match=r"^golden is closed; connect again$"):
                device.counters()


class TestProcesses:
    @pytest.mark.filterwarnings("default")
    def test_a_forked_process_gets_an_error_and_ends(self, random):
        """Also if another thread had the lock; the device goes on in the first process."""
        with connect("golden", config=SMALL) as device:
            layer = layer_of(random, 20, 30)
            handle = device.load(layer)
            codes = codes_of(random, 2, 30)
            locked, done = threading.Event(), threading.Event()

            def hold() -> None:
                with device._session.lock:
                    locked.set()
                    done.wait(60)

            holder = threading.Thread(target=hold)
            holder.start()
            locked.wait(60)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    device.matmul(handle, codes)
                except DeviceError as error:
                    status = 0 if "was connected by another process" in str(error) else 2
                    device.close()
                finally:
                    os._exit(status)
            done.set()
            holder.join()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            sums = device.matmul(handle, codes)
            assert np.array_equal(sums, numerics.matmul(layer.trits, codes))

    def test_pickles_and_copies(self, random):
        with connect("golden", config=SMALL) as device:
            handle = device.load(layer_of(random, 4, 10))
            job = device.submit(handle, codes_of(random, 1, 10))
            for thing in (device, handle, job):
                for duplicate in (pickle.dumps, copy.deepcopy):
                    with pytest.raises(InputError, match=r"^golden: a connected device cannot be "):
                        duplicate(thing)
            layer = pickle.loads(pickle.dumps(handle.layer))
            assert np.array_equal(layer.trits, handle.layer.trits)
