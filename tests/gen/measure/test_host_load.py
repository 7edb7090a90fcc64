"""The measurement of packing and loading: what is measured, not how long it takes."""

import time
from collections import Counter

import pytest

from tritloom.gen.measure import host_load
from tritloom.gen.measure.host import CRC_CALLS
from tritloom.gen.measure.host_load import CONFIG, SHAPE, BlockTransport, measure_host_load
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode, Request, Response, Status
from tritloom.rtl.spec.layer_shape import LayerShape

PACKED_BYTES = LayerShape.of(CONFIG, *SHAPE).words * CONFIG.word_bytes


def test_blocks():
    """Responses come in the order of the packets, at most as many as a block has."""
    transport = BlockTransport(CONFIG)
    packets = [Request(Opcode.WRITE, seq=seq).pack() for seq in range(transport.block + 2)]
    transport.send_block(packets)
    responses = [*transport.receive_block(0.0), *transport.receive_block(0.0)]
    assert transport.receive_block(0.0) == []
    parsed = [Response.parse(response) for response in responses]
    assert [response.seq for response in parsed] == list(range(len(packets)))
    assert {response.status for response in parsed} == {Status.OK}
    transport.send_block(packets)
    assert len(transport.receive_block(0.0)) == transport.block


@pytest.mark.sim
def test_figures(monkeypatch):
    """Each work takes a second of that clock; the transport's is taken off the driver's two."""
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)))
    plain = host_load.Device.load
    sent: list[bytes] = []

    def load(device, layer):
        next(clock)  # the driver takes two seconds
        handle = plain(device, layer)
        sent.extend(device._session._transport.packets)
        return handle

    monkeypatch.setattr(host_load.Device, "load", load)
    result = measure_host_load(rounds=1)
    assert result.pop("python").startswith("3.")
    one = round(PACKED_BYTES / 1e6, 1)
    packets = result["packets"]
    assert result == {
        "packed_mb_per_second": {
            "packing": one,
            "packets": one,
            "before_link": round(PACKED_BYTES / 2e6, 1),
            "driver": one,
        },
        "packet_bytes": CONFIG.max_payload // CONFIG.word_bytes * CONFIG.word_bytes
        + OVERHEAD_BYTES,
        "packets": packets,
        "packed_bytes": PACKED_BYTES,
        "transport_us_per_packet": round(1e6 / packets, 2),
        "crc32_us_per_kb": 1e6 / CRC_CALLS,
        "command": "tritloom measure host --load --json",
    }
    # What is replayed as the transport's work is one whole load.
    opcodes = Counter(Request.parse(packet).opcode for packet in sent[:packets])
    assert opcodes == {Opcode.DEFINE: 1, Opcode.COMMIT: 1, Opcode.WRITE: packets - 2}
