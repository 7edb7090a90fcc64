"""cocotb bench: the link `udp` between `GmiiSource` and `GmiiSink` of cocotbext-eth, in a loop.

Runs in the simulator's process.
"""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, with_timeout
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource

from tests.support.ethernet import arp_request, datagram, packet_of, payload_of, ping

DEVICE_NS, PHY_NS = 12, 8
TIMEOUT_US = 200


def padded(frame):
    return frame + bytes(max(0, 60 - len(frame)))


@cocotb.test()
async def a_dozen_frames(dut):
    """Packets, echoes and ARP come back; a frame with an error does not. The gap is kept."""
    rng = random.Random(4)
    dut.rst.value = 1
    for signal in (dut.rx, dut.rx_dv, dut.rx_er):
        signal.value = 0
    cocotb.start_soon(Clock(dut.clk, DEVICE_NS, unit="ns").start())
    cocotb.start_soon(Clock(dut.rx_clk, PHY_NS, unit="ns").start())
    source = GmiiSource(dut.rx, dut.rx_er, dut.rx_dv, dut.rx_clk)
    sink = GmiiSink(dut.tx, None, dut.tx_en, dut.rx_clk)
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 10)
    packets = [packet_of(rng, size) for size in (2, 19, 20, 21, 300, 301, 1471, 1472)]
    for packet in packets:
        await source.send(GmiiFrame.from_payload(padded(datagram(packet))))
    damaged = GmiiFrame.from_payload(padded(datagram(packet_of(rng, 40))))
    damaged.error = [0] * 30 + [1] + [0] * (len(damaged) - 31)
    await source.send(damaged)
    for packet in packets:
        frame = await with_timeout(sink.recv(), TIMEOUT_US, "us")
        assert frame.check_fcs()
        assert payload_of(bytes(frame.get_payload())) == packet
    for request in (ping(64), arp_request(), ping(3)):
        await source.send(GmiiFrame.from_payload(padded(request)))
        frame = await with_timeout(sink.recv(), TIMEOUT_US, "us")
        assert frame.check_fcs()
        reply = bytes(frame.get_payload())
        assert reply[:6] == request[6:12] and len(reply) >= 60
        if request[12:14] == b"\x08\0":
            assert payload_of(reply) == payload_of(request)
    assert sink.empty()
