"""The measurement of the driver's CPU time: what is measured, not how long it takes."""

from collections import Counter, deque
from dataclasses import replace

import numpy as np
import pytest

from tritloom.gen.measure import host
from tritloom.gen.measure.host import CALLS, COMMANDS, CONFIG, FEATURES, InstantTransport
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.commands import (
    COUNTER_BYTES,
    COUNTERS,
    Opcode,
    Request,
    Response,
    Status,
)


@pytest.mark.parametrize(
    ("opcode", "size"),
    [
        *((opcode, 0) for opcode in (Opcode.RESET, Opcode.DEFINE, Opcode.WRITE, Opcode.COMMIT)),
        *((opcode, 0) for opcode in (Opcode.LOAD, Opcode.RUN)),
        (Opcode.IDENTIFY, 3),
        (Opcode.READ, 3 * CONFIG.word_bytes),
        (Opcode.RESULTS, 3 * CONFIG.acc_bytes),
        (Opcode.COUNTERS, len(COUNTERS) * COUNTER_BYTES),
    ],
)
def test_a_response_is_sound(opcode, size):
    """Also the second one, which is made from what the first one has left."""
    transport = InstantTransport(CONFIG)
    for seq in (7, 0x1234):
        request = Request(opcode, seq=seq, session=0xABCDE, index=1, count=3, payload=b"12")
        transport.send(request.pack())
        response = Response.parse(transport.receive(0.0))
        assert (response.opcode, response.seq, response.session) == (opcode, seq, 0xABCDE)
        assert (response.status, len(response.payload)) == (Status.OK, size)
    assert transport.receive(0.0) is None


def test_commands_that_differ_get_responses_of_their_own():
    transport = InstantTransport(CONFIG)
    for count in (1, 2, 1):
        transport.send(Request(Opcode.RESULTS, count=count).pack())
        response = Response.parse(transport.receive(0.0))
        assert len(response.payload) == count * CONFIG.acc_bytes


def test_the_driver_takes_it_for_a_device():
    with Device(InstantTransport(CONFIG), url="instant") as device:
        assert device.info.config == CONFIG
        handle = device.load(TernaryLayer.from_trits(np.ones((3, 4), np.int8), 1.0))
        assert np.array_equal(device.matmul(handle, np.ones((2, 4), np.int8)), np.zeros((2, 3)))


def test_a_call_is_three_commands():
    work, transport = host._calls()
    packets = transport.run.__closure__
    assert work.count == transport.count == CALLS
    (sent,) = [cell.cell_contents for cell in packets if isinstance(cell.cell_contents, list)]
    opcodes = Counter(Request.parse(packet).opcode for packet in sent)
    assert opcodes == {Opcode.LOAD: CALLS, Opcode.RUN: CALLS, Opcode.RESULTS: CALLS}
    assert {Request.parse(p).count for p in sent if p[8] == Opcode.RESULTS} == {FEATURES}


@pytest.mark.parametrize("slots", host.SLOTS)
def test_the_window_is_kept_full(slots, monkeypatch):
    """From the first response to the last command, only one response is missing."""
    levels: deque[int] = deque()

    class Watched(InstantTransport):
        def receive(self, timeout_s):
            levels.append(len(self._responses))
            return super().receive(timeout_s)

    monkeypatch.setattr(host, "InstantTransport", Watched)
    work, _ = host._commands(slots)
    levels.clear()
    work.run()
    window = replace(CONFIG, slots=slots).window
    assert len(levels) == COMMANDS
    assert set(list(levels)[: COMMANDS - window]) == {window}


@pytest.mark.sim
def test_figures(monkeypatch):
    """The least time of all rounds counts, and the transport's is taken off."""
    clock = iter(range(10**6))
    monkeypatch.setattr(host.time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(host, "CALLS", 2)
    monkeypatch.setattr(host, "COMMANDS", 100)
    result = host.measure_host(rounds=2)
    python = result.pop("python")
    assert python.startswith("3.")
    # Each measurement takes a second of that clock, the transport's too.
    assert result == {
        "cpu_us_per_call": 0.0,
        "cpu_us_per_command": {"8": 0.0, "16": 0.0, "32": 0.0, "64": 0.0},
        "crc32_us_per_kb": 1e6 / host.CRC_CALLS,
        "transport_us_per_call": 1e6 / 2,
        "transport_us_per_command": 1e6 / 100,
        "command": "tritloom measure host --json",
    }


def test_the_least_time_counts(monkeypatch):
    times = iter([0.0, 3.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(host.time, "process_time", lambda: next(times))
    work = host._Work(lambda: None, 4)
    for _ in range(3):
        work.measure()
    assert work.least_us == 2e6 / 4
    assert host._difference(work, host._Work(lambda: None, 1, least_us=1e5)) == 4e5
