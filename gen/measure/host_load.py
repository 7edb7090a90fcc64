"""Measures the CPU time of packing a layer and of loading it, without the link.

Before the link a layer is packed and made into packets with their checksums. The driver as a whole
also keeps the window and reads the responses. For this the transport responds at once, and takes
packets in blocks, as fast links do. Its own time is taken off.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tritloom.gen.measure.host import CRC_CALLS, InstantTransport, make_checksums
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.requests import Requests
from tritloom.host.session import Session
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_into

__all__ = ["BlockTransport", "measure_host_load"]

SHAPE = (2560, 2560)
"""Outputs and inputs of the layer: it is larger than a core's cache."""
CONFIG = AcceleratorConfig(
    lanes=40,
    rows=2,
    fill=5,
    memory=Axi(words=1 << 17, width=128),
    max_in_features=SHAPE[1],
    max_out_features=SHAPE[0],
    packet_bytes=1024,
    slots=16,
    link=PacketStream(width=8),
)
ROUNDS = 40
"""How often everything is measured. The least time counts: other work on the computer only adds."""
SEED = 7


class BlockTransport(InstantTransport):
    """As `InstantTransport`, with several packets in a call."""

    block = 32

    def send_block(self, packets: Sequence[bytes]) -> None:
        """Make the responses to packets."""
        for packet in packets:
            self.send(packet)

    def receive_block(self, timeout_s: float) -> list[bytes]:
        """The oldest responses that were not received yet."""
        responses = self._responses
        return [responses.popleft() for _ in range(min(self.block, len(responses)))]


def measure_host_load(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure packing and loading on this computer, in CPU time of one core.

    Parameters
    ----------
    rounds : how often everything is measured; the least time of each counts

    Returns
    -------
    dict[str, Any]
        `packed_mb_per_second`, in 10^6 bytes of packed weights: of `packing`; of `packets`, which
        makes the commands of a packed layer and their packets, checksums included; of
        `before_link`, both together; and of `driver`, a whole `Device.load`, without the transport,
        whose share was `transport_us_per_packet`. `packets`, of `packet_bytes` at most, hold the
        layer's `packed_bytes`. `crc32_us_per_kb` is a yardstick of the same computer: `zlib.crc32`
        of 1024 bytes.
    """
    trits = np.random.default_rng(SEED).integers(-1, 2, SHAPE).astype(np.int8)
    layer = TernaryLayer.from_trits(trits, 1.0)
    image = np.empty(LayerShape.of(CONFIG, *SHAPE).words * CONFIG.word_bytes, np.uint8)
    pack_into(CONFIG, layer.trits, image)
    packed = image.tobytes()
    transport = BlockTransport(CONFIG)
    device = Device(transport, url="instant", config=CONFIG)
    transport.records = True
    device.unload(device.load(layer))
    transport.records = False
    packets = transport.packets

    def replay() -> None:
        for start in range(0, len(packets), CONFIG.window):
            transport.send_block(packets[start : start + CONFIG.window])
            while transport.receive_block(0.0):
                pass

    requests = Requests(Session(transport, "instant"), CONFIG)
    shape = LayerShape.of(CONFIG, *SHAPE)

    def make_packets() -> list[bytes]:
        commands = [requests.define(0, 0, shape), *requests.write(0, packed)]
        return [command.pack() for command in [*commands, requests.commit(0, packed)]]

    works: dict[str, Callable[[], object]] = {
        "packing": lambda: pack_into(CONFIG, layer.trits, image),
        "packets": make_packets,
        "driver": lambda: device.unload(device.load(layer)),
        "transport": replay,
        "crc32": make_checksums,
    }
    least_s = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            gc.collect()  # what earlier work has left behind is not this one's
            start_s = time.process_time()
            work()
            least_s[name] = min(least_s[name], time.process_time() - start_s)
    seconds = {
        "packing": least_s["packing"],
        "packets": least_s["packets"],
        "before_link": least_s["packing"] + least_s["packets"],
        "driver": least_s["driver"] - least_s["transport"],
    }
    return {
        "packed_mb_per_second": {
            name: round(len(packed) / 1e6 / value, 1) for name, value in seconds.items()
        },
        "packet_bytes": max(map(len, packets)),
        "packets": len(packets),
        "packed_bytes": len(packed),
        "transport_us_per_packet": round(1e6 * least_s["transport"] / len(packets), 2),
        "crc32_us_per_kb": round(1e6 * least_s["crc32"] / CRC_CALLS, 3),
        "python": platform.python_version(),
        "command": "tritloom measure host --load --json",
    }
