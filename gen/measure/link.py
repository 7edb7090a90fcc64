"""Measures how much a link carries: alone, and with the device behind it. Time is simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from amaranth.back import rtlil

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.link_loop import LinkLoop
from tritloom.host.command import Command
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import MAX_BAUD, Uart
from tritloom.rtl.links.udp_facts import ETHERNET_HZ, PACKET_PORT, Udp
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError
from tritloom.rtl.spec.frames import encode_frame
from tritloom.rtl.spec.packing import act_limits
from tritloom.sim.conformance.operands import random_trits
from tritloom.sim.device.cxxrtl import Simulation, UartSimulation, build
from tritloom.sim.device.ethernet import IDLE_CYCLES, EthernetBoard, EthernetSimulation
from tritloom.sim.device.frame_transport import FrameTransport, datagram_of, payload_of
from tritloom.sim.device.simulated import SimulatedDevice
from tritloom.sim.device.uart_transport import UartTransport

__all__ = ["KINDS", "PACKET_BYTES", "link_config", "measure_alone", "measure_with_device"]

SEED = 1
PACKET_BYTES = 1024
PACKETS = {Udp.name: 400, PacketStream.name: 400, Uart.name: 4}
"""Packets of a measurement of the link alone, by kind: a UART is simulated bit by bit."""
PAIRS = {Udp.name: 200, PacketStream.name: 200, Uart.name: 3}
"""A LOAD and a RESULTS each, of a measurement with the device."""
CLOCK_HZ = 80_000_000
KINDS: dict[str, Callable[[], Any]] = {
    Udp.name: Udp,
    Uart.name: lambda: Uart(baud=MAX_BAUD),
    PacketStream.name: lambda: PacketStream(width=2),
}
"""The links that are measured alone, at `CLOCK_HZ`."""


def link_config(kind: str) -> AcceleratorConfig:
    """A small accelerator with the link, at `CLOCK_HZ`."""
    return AcceleratorConfig(
        lanes=5,
        rows=1,
        memory=BlockRam(words=64),
        max_in_features=20,
        max_out_features=16,
        packet_bytes=2048,
        slots=8,
        clock_hz=CLOCK_HZ,
        link=KINDS[kind](),
    )


def measure_alone(config: AcceleratorConfig, packet_bytes: int = PACKET_BYTES) -> dict[str, Any]:
    """Packets through the link and back, in both directions at once, each after the other.

    Parameters
    ----------
    config : says the link
    packet_bytes : of each packet

    Returns
    -------
    `payload_bytes_per_second_in` and `payload_bytes_per_second_out`, where a payload is a packet,
    and `bound_bytes_per_second`, what the wire carries with the frames of the link.
    """
    random = np.random.default_rng(SEED)
    count = PACKETS[config.link.name]
    packets = [
        packet_bytes.to_bytes(2, "little") + random.bytes(packet_bytes - 2) for _ in range(count)
    ]
    loops = {Udp.name: _loop_udp, Uart.name: _loop_uart, PacketStream.name: _loop_stream}
    seconds = loops[config.link.name](config, packets)
    framed = _byte_times(config, packet_bytes)
    rate = round(count * packet_bytes / seconds)
    return {
        "payload_bytes_per_second_in": rate,
        "payload_bytes_per_second_out": rate,
        "bound_bytes_per_second": round(packet_bytes / framed * _bytes_a_second(config)),
    }


def _bytes_a_second(config: AcceleratorConfig) -> float:
    """Bytes that the wire carries in a second, in each direction."""
    return config.clock_hz / config.link.cycles_per_byte(config)


def _byte_times(config: AcceleratorConfig, packet_bytes: int) -> int:
    """What a packet takes on the wire, its frame included."""
    return config.link.framed_bytes(packet_bytes)


def _rtlil(config: AcceleratorConfig) -> str:
    text: str = rtlil.convert(LinkLoop(config), name="top", emit_src=False)
    return text


def _same(came: list[bytes], packets: list[bytes]) -> None:
    if came != packets:
        raise DeviceError(f"{len(came)} of {len(packets)} packets came back, or not as they went")


def _loop_udp(config: AcceleratorConfig, packets: list[bytes]) -> float:
    link = config.link
    assert isinstance(link, Udp)
    simulation = EthernetSimulation(lambda: _rtlil(config), None, config.clock_hz, running=False)
    simulation.run(limit_cycles=100)
    host = (bytes((2, 0, 0, 0, 0, 1)), bytes((10, 77, 0, 1)), 5000)
    for packet in packets:
        to = (link.mac_bytes, link.address_bytes, PACKET_PORT)
        simulation.send(datagram_of(packet, host, to))
    before = simulation.cycles
    frames = simulation.run()
    _same([payload_of(frame) for frame in frames], packets)
    return (simulation.cycles - before - IDLE_CYCLES) / ETHERNET_HZ


def _loop_uart(config: AcceleratorConfig, packets: list[bytes]) -> float:
    link = config.link
    assert isinstance(link, Uart)
    library = build(lambda: _rtlil(config), None, link.divisor(config))
    simulation = UartSimulation(library)
    frames = b"".join(map(encode_frame, packets))
    simulation.send(frames)
    came = b""
    while len(came) < len(frames):
        came += simulation.run(link.cycles_per_byte(config))
    if came != frames:
        raise DeviceError("the packets came back, but not as they went")
    return simulation.cycles / config.clock_hz


def _loop_stream(config: AcceleratorConfig, packets: list[bytes]) -> float:
    simulation = Simulation(build(lambda: _rtlil(config)))
    for packet in packets:
        simulation.send(packet)
    came = [simulation.receive(1 << 20) or b"" for _ in packets]
    _same(came, packets)
    return simulation.cycles / config.clock_hz


class _Transport(Protocol):
    """A transport to a simulated device."""

    @property
    def timeout_s(self) -> float: ...
    def send(self, packet: bytes) -> None: ...
    def receive(self, timeout_s: float) -> bytes | None: ...
    def close(self) -> None: ...


def _open(config: AcceleratorConfig) -> tuple[_Transport, Callable[[], float]]:
    """A transport to the simulated device, and its time in seconds."""
    if isinstance(config.link, Udp):
        board = EthernetBoard(config)
        board.exchange([])
        return FrameTransport(board), lambda: board.cycles / ETHERNET_HZ
    if isinstance(config.link, Uart):
        uart = UartTransport(config)
        return uart, lambda: uart.cycles / config.clock_hz
    if isinstance(config.link, PacketStream):
        device = SimulatedDevice(config)
        return device, lambda: device.cycles / config.clock_hz
    raise InputError(f"link {config.link.name!r} cannot be measured; take {', '.join(KINDS)}")


def measure_with_device(
    config: AcceleratorConfig,
    shape: tuple[int, int] | None = None,
    tokens: int = 64,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """The link with the device behind it, at the device's clock, and a host that takes no time.

    Without a shape LOADs go in and RESULTS come out at once, each as long as a packet may be. With
    one, a layer is computed for some tokens, in a RUN each.

    Returns
    -------
    The payloads of LOADs and RESULTS a second; the bound, which is that of the longest packets; and
    `busy_share_of_bottleneck`: the time that the busiest part needs alone, of the wire in each
    direction, the device's front end and the engine, of the time that all took.
    """
    transport, now = _open(config)
    shape = shape or _small(config)
    random = np.random.default_rng(SEED)
    trits = random_trits(config, random, shape)
    least, most = act_limits(config)
    flow = tokens == 0
    codes = random.integers(least, most + 1, (max(1, tokens), shape[1])).astype(np.int8)
    progress("the simulated device is made, and the layer is loaded")
    with Device(transport, url="sim", config=config) as device:
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        if flow:
            device.matmul(handle, codes)
            commands = _pairs(config, shape)
            session: Any = device._session
            start = now()
            session.enqueue(*commands)
            for command in commands:
                session.wait(command)
            run_cycles, seconds = 0, now() - start
        else:
            start = now()
            job: Any = device.submit(handle, codes)
            commands = list(job._commands)
            sums = job.result()
            seconds = now() - start
            if not np.array_equal(sums, numerics.matmul(trits, codes)):
                raise DeviceError("a result differs from the golden model; run tritloom verify")
            stats = job.stats
            assert stats is not None
            run_cycles = stats.cycles
    return _figures(config, commands, run_cycles, seconds)


def _small(config: AcceleratorConfig) -> tuple[int, int]:
    """A layer of one tile with as many results as there can be."""
    return min(config.max_out_features, config.memory_words * config.rows), config.lanes


def _pairs(config: AcceleratorConfig, shape: tuple[int, int]) -> list[Command]:
    """LOADs to one bank, and RESULTS of another RUN, in turn."""
    words = min(config.max_payload // config.fill, config.activation_words)
    count = min(shape[0], config.max_payload // config.acc_bytes)
    commands = []
    for number in range(PAIRS[config.link.name]):
        payload = bytes(words * config.fill)
        bank = min(number % 2, config.banks - 1)
        commands.append(Command(opcode=Opcode.LOAD, payload=payload, activation_bank=bank))
        commands.append(
            Command(
                opcode=Opcode.RESULTS,
                count=count,
                result_bank=0,
                response_bytes=count * config.acc_bytes,
            )
        )
    return commands


def _figures(
    config: AcceleratorConfig, commands: list[Command], run_cycles: int, seconds: float
) -> dict[str, Any]:
    """What the commands moved, and how busy the busiest part was."""
    link = config.link
    loaded = sum(len(each.payload) for each in commands if each.opcode == Opcode.LOAD)
    read = sum(each.response_bytes for each in commands if each.opcode == Opcode.RESULTS)
    sizes_in = [len(each.payload) + OVERHEAD_BYTES for each in commands]
    sizes_out = [each.response_bytes + OVERHEAD_BYTES for each in commands]
    wire = _bytes_a_second(config)
    front_in = min(config.fill, link.command_bytes)
    needs = {
        "wire in": sum(_byte_times(config, size) for size in sizes_in) / wire,
        "wire out": sum(_byte_times(config, size) for size in sizes_out) / wire,
        "device in": loaded / front_in / config.clock_hz,
        "device out": sum(sizes_out) / link.beat_bytes / config.clock_hz,
        "engine": run_cycles / config.clock_hz,
    }
    bottleneck = max(needs, key=lambda name: needs[name])
    longest = config.max_payload + OVERHEAD_BYTES
    return {
        "payload_bytes_per_second_in": round(loaded / seconds),
        "payload_bytes_per_second_out": round(read / seconds),
        "bound_bytes_per_second": round(longest / _byte_times(config, longest) * wire),
        "busy_share_of_bottleneck": round(needs[bottleneck] / seconds, 4),
        "bottleneck": bottleneck,
        "seconds": seconds,
    }
