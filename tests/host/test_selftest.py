"""The self-test: what it finds, and its report."""

import os
import platform
import re
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

from tests.support.faults import FaultyTransport
from tests.support.layers import CONFIGS, SMALL, codes_of, layer_of
from tritloom.host import (
    Device,
    DeviceError,
    connect,
)
from tritloom.host.links.contract import DeviceUrl
from tritloom.host.selftest import keeps_real_time
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import Opcode, Request, identity
from tritloom.rtl.spec.config import TINY
from tritloom.sim.device.reference import ReferenceTransport


@pytest.fixture
def random():
    return np.random.default_rng(7)


class TestSelfTest:
    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    def test_passes_and_leaves_layers(self, config, random):
        with connect("golden", config=config) as device:
            layer = layer_of(random, 10, 10)
            handle = device.load(layer)
            before = device.info
            report = device.selftest()
            assert report.ok
            assert [check.name for check in report.checks] == [
                "identity",
                "weight memory",
                "known layer",
                "link",
                "clock",
            ]
            assert report.checks[4].detail == "simulated, so at its own pace"
            free = config.memory_words - handle.words
            assert report.checks[1].detail == f"{free} of {free} free words keep two patterns"
            assert device.info == before
            codes = codes_of(random, 2, 10)
            sums = device.matmul(handle, codes)
            assert np.array_equal(sums, numerics.matmul(layer.trits, codes))

    def test_without_room_says_so(self, random):
        with connect("golden", config=TINY) as device:
            layers = [layer_of(random, 16, 20) for _ in range(2)]
            handles = [device.load(layer) for layer in layers]
            report = device.selftest()
            assert report.ok
            assert str(report).count("nothing tested: no free layer slot or no free words") == 2
            codes = codes_of(random, 1, 20)
            for handle, layer in zip(handles, layers, strict=True):
                sums = device.matmul(handle, codes)
                assert np.array_equal(sums, numerics.matmul(layer.trits, codes))

    def test_finds_words_that_are_seen_twice(self):
        transport = ReferenceTransport(TINY)
        words = transport.device._words
        transport.device._words = lambda layer: words(replace(layer, base=layer.base & 31))
        report = Device(transport, url="test").selftest()
        assert not report.checks[1].ok

    def test_finds_wrong_sums(self):
        transport = ReferenceTransport(TINY)
        decoded = transport.device._decoded
        transport.device._decoded = lambda index: abs(decoded(index))
        report = Device(transport, url="test").selftest()
        assert [check.ok for check in report.checks] == [True, True, False, True, True]
        assert report.checks[2].detail.endswith("wrong sums")

    def test_finds_link_errors(self):
        transport = FaultyTransport(ReferenceTransport(SMALL), corrupt=0.05, seed=2)
        report = Device(transport, url="test").selftest()
        assert [check.ok for check in report.checks] == [True, True, True, False, True]
        assert re.match(r"[1-9]\d* bad_packets \([1-9]\d* in all\)", report.checks[3].detail)

    @pytest.mark.parametrize("stuck_at", [0, 1])
    def test_finds_a_stuck_bit(self, stuck_at):
        transport = ReferenceTransport(TINY)
        image = transport.device._image

        def stuck(layer: object) -> np.ndarray:
            words = image(layer)
            if layer.base <= 17 < layer.base + len(words):
                word = words[17 - layer.base]
                word[1] = word[1] | 0x04 if stuck_at else word[1] & 0xFB
            return words

        transport.device._image = stuck
        report = Device(transport, url="test").selftest()
        assert report.checks[1].detail == "word 17 did not keep its value"

    def test_finds_another_identity(self):
        transport = ReferenceTransport(TINY)
        device = Device(transport, url="test")
        other = replace(TINY, clock_hz=TINY.clock_hz + 1)
        assert len(identity(other)) == len(identity(TINY))
        transport.device._identity = identity(other)
        report = device.selftest()
        assert [check.ok for check in report.checks] == [False, True, True, True, True]

    def test_with_one_word_left(self, random):
        with connect("golden", config=TINY) as device:
            for shape in ((16, 20), (14, 20), (6, 5)):
                device.load(layer_of(random, *shape))
            assert device.info.free_words == 1
            report = device.selftest()
            assert report.ok
            assert report.checks[2].detail.startswith("2 × 5, 4 tokens")

    def test_old_link_errors_are_not_held_against_it(self):
        transport = ReferenceTransport(TINY)
        device = Device(transport, url="test")
        transport.send(b"noise")
        report = device.selftest()
        assert report.ok
        assert report.checks[3].detail.startswith("0 bad_packets (1 in all)")

    def test_large_memories_are_sampled(self, monkeypatch):
        monkeypatch.setattr("tritloom.host.selftest.MEMORY_TEST_BYTES", 1 << 14)
        config = replace(SMALL, memory=BlockRam(words=1 << 15))
        report = connect("golden", config=config).selftest()
        assert report.ok
        tested, free = map(int, re.findall(r"\d+", report.checks[1].detail)[:2])
        assert free == 1 << 15
        assert free / 20 < tested < free

    @pytest.mark.parametrize(("opcode", "check"), [(Opcode.READ, 1), (Opcode.RUN, 2)])
    def test_a_device_that_dies_meanwhile_fails_the_check(self, opcode, check):
        transport = ReferenceTransport(TINY)
        device = Device(transport, url="test")
        process = transport.device.process
        transport.device.process = lambda packet: (
            None if Request.parse(packet).opcode == opcode else process(packet)
        )
        report = device.selftest()
        assert [each.ok for each in report.checks] == [i < check for i in range(5)]
        assert f"does not respond to {opcode.name}" in report.checks[check].detail


class RealTime(ReferenceTransport):
    """A device whose cycles follow the host's clock, `speed` times as fast as they should."""

    def __init__(self, speed, latency_s=0.0, tries=None):
        super().__init__(SMALL)
        self._speed, self._latency_s, self._tries = speed, latency_s, tries or []

    def send(self, packet: bytes) -> None:
        time.sleep(self._latency_s + (self._tries.pop() if self._tries else 0))
        cycles = self._speed * SMALL.clock_hz * time.perf_counter()
        self.device._counters["cycles"] = int(cycles)
        super().send(packet)
        time.sleep(self._latency_s)


class TestClock:
    """With latencies as of USB bridges; the interval is shortened, the tolerance is not."""

    @pytest.fixture(autouse=True)
    def _shorter(self, monkeypatch):
        monkeypatch.setattr("tritloom.host.selftest.CLOCK_S", 0.2)

    def clock(self, speed, **options):
        device = Device(RealTime(speed, **options), url="serial:///dev/ttyUSB0")
        (check,) = [check for check in device.selftest().checks if check.name == "clock"]
        return check

    @pytest.mark.parametrize("latency_s", [0, 0.001])
    @pytest.mark.parametrize("speed", [0.99, 1.0, 1.01])
    def test_right(self, speed, latency_s):
        check = self.clock(speed, latency_s=latency_s)
        assert check.ok
        least, most = map(float, re.findall(r"[\d.]+(?= to|(?<=\d) MHz by this)", check.detail))
        assert least <= 50 * speed * 1.001 and most >= 50 * speed * 0.999
        assert check.detail.endswith(
            " by this computer's clock, 50 MHz by the device's configuration"
        )

    @pytest.mark.parametrize("speed", [0, 0.5, 0.9, 1.1, 2.0])
    def test_wrong(self, speed):
        assert not self.clock(speed).ok

    def test_one_slow_response(self):
        """A response that comes late makes nothing wrong, and hides nothing."""
        late = [0.0] * 3 + [0.2]
        for speed, ok in ((1.0, True), (1.2, False)):
            assert self.clock(speed, tries=[*late, *[0.0] * 1000]).ok is ok

    @pytest.mark.parametrize(
        ("url", "real"),
        [
            ("serial:///dev/ttyUSB0", True),
            ("serial://COM3", True),
            ("serial:///dev/pts/5", False),
            ("sim", False),
            ("golden?board=icebreaker", False),
        ],
    )
    def test_which(self, url, real):
        assert keeps_real_time(DeviceUrl.parse(url)) is real

    def test_link_to_a_pseudo_terminal(self, tmp_path):
        link = tmp_path / "board"
        link.symlink_to("/dev/pts/5")
        assert not keeps_real_time(DeviceUrl.parse(f"serial://{link}"))


class TestReport:
    def test_all_is_in_it(self, random):
        with connect("golden", config=SMALL) as device:
            result = device.selftest()
            text = result.report()
        assert result.kind == "golden"
        assert result.config == SMALL
        assert result.counters.packets > 20
        assert all(check.seconds > 0 for check in result.checks)
        lines = text.splitlines()
        assert lines[0] == "tritloom self-test: passed"
        assert text.endswith("\n")
        assert max(map(len, lines)) < 800
        for name, value in (
            ("tritloom", version("tritloom")),
            ("numpy", np.__version__),
            ("device", "golden"),
            ("layout digest", SMALL.layout_digest.hex()),
            ("build digest", SMALL.build_digest.hex()),
            ("configuration", SMALL.to_json()),
            ("packets", str(result.counters.packets)),
        ):
            assert f"{name:18}{value}" in lines
        for check in result.checks:
            assert f"ok   {check.seconds:7.3f} s  {check.name}: {check.detail}" in lines

    def test_it_names_no_host_and_no_path(self):
        url = "serial:///dev/serial/by-id/usb-FTDI_ULX3S_K00123-if00?baud=3000000"

        class Dying(ReferenceTransport):
            dead = False

            def receive(self, timeout_s: float) -> bytes | None:
                if self.dead:
                    raise DeviceError("the link at /dev/serial/by-id/usb-FTDI_ULX3S_K00123-if00 br")
                return super().receive(timeout_s)

        transport = Dying(TINY)
        device = Device(transport, url=url)
        process = transport.device.process

        def die_at_run(packet: bytes) -> bytes | None:
            transport.dead = Request.parse(packet).opcode == Opcode.RUN
            return process(packet)

        transport.device.process = die_at_run
        result = device.selftest()
        assert not result.ok
        assert result.counters is None
        text = result.report()
        assert text.startswith("tritloom self-test: FAILED\n")
        assert f"{'device':18}serial\n" in text
        assert "serial: the link failed (the link at its port br)" in text
        for secret in ("/dev", "K00123", platform.node(), os.path.expanduser("~"), "baud="):
            assert secret not in text
