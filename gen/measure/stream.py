"""Measures how well a device streams: one token a RUN, on the simulated FPGA, link always ready.

The engine, the bytes to the device and the bytes from it share the time. Whichever of the three
needs most is the bottleneck; a device that does everything else meanwhile keeps it busy always.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

import numpy as np

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.engine import engine_config
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits
from tritloom.rtl.spec.plugins import engines
from tritloom.sim.device.simulated import SimulatedDevice

__all__ = ["measure_stream", "stream_config"]

FEATURES = 2560
"""Outputs and inputs of the largest layer, if the measured one is smaller."""
BOARD_ENCODING, BOARD_FILL = "base3x5", 5
"""Of the boards' configurations."""
PACKET_BYTES, SLOTS = 512, 16
"""Of the buffers: as much memory as the ULX3S 25F has, in more and shorter packets. So that nothing
waits, a link that moves a byte a cycle needs more commands under way than a UART."""
SEED = 12
"""Of the weights and activations. No count of cycles depends on them."""


def stream_config(
    family: str,
    engine: str,
    out_features: int,
    in_features: int,
    *,
    memory: str = "bram",
    link_bytes: int = 1,
    banks: int | None = None,
    packet_bytes: int | None = None,
    slots: int | None = None,
    **geometry: int | str | None,
) -> AcceleratorConfig:
    """The configuration to measure: an accelerator behind a packet stream.

    It takes layers of up to `FEATURES` outputs and inputs, or the layer if that is larger, and its
    weight memory holds one of that size. So one simulated FPGA serves many layers.

    Parameters
    ----------
    family, engine : of the best known geometry
    out_features, in_features : of the layer
    memory : name of the weight memory
    link_bytes : bytes that the stream moves in a cycle in each direction
    banks : if not those of the ULX3S 25F
    packet_bytes, slots : of the buffers, if not `PACKET_BYTES` and `SLOTS`
    geometry : fields of the configuration in place of the best known ones. With `lanes` but without
        `encoding` or `fill`, these are what the boards have, as far as the engine takes it.

    Raises
    ------
    ConfigError : no such accelerator can be made
    """
    from tritloom.boards.ulx3s import ULX3S_25F

    most_out, most_in = max(FEATURES, out_features), max(FEATURES, in_features)
    given = {name: value for name, value in geometry.items() if value is not None}
    core = _core(family, engine, most_in, most_out, given)
    board = ULX3S_25F.config
    words = LayerShape.of(core, most_out, most_in).words
    return AcceleratorConfig.from_dict(
        core.to_dict()
        | {
            "memory": {"kind": memory, "words": words},
            "link": {"kind": PacketStream.name, "width": link_bytes},
            "banks": banks or board.banks,
            "packet_bytes": packet_bytes or PACKET_BYTES,
            "slots": slots or SLOTS,
            "clock_hz": board.clock_hz,
        }
    )


def _core(
    family: str, engine: str, most_in: int, most_out: int, given: dict[str, int | str]
) -> AcceleratorConfig:
    """The engine's configuration; see `stream_config`."""
    if "lanes" in given and BOARD_ENCODING in engines[engine].encodings:
        given.setdefault("encoding", BOARD_ENCODING)
    if "lanes" not in given or "fill" in given:
        return engine_config(family, engine, most_in, most_out, **given)
    for fill in range(BOARD_FILL, 1, -1):
        with suppress(ConfigError):
            return engine_config(family, engine, most_in, most_out, **given, fill=fill)
    return engine_config(family, engine, most_in, most_out, **given, fill=1)


def measure_stream(
    config: AcceleratorConfig,
    out_features: int,
    in_features: int,
    tokens: int,
    *,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Compute a layer for some tokens, each in a RUN of its own.

    Parameters
    ----------
    config : of the accelerator, whose link is a packet stream
    out_features, in_features : of the layer
    tokens : how many; all are in one job

    Returns
    -------
    dict[str, Any]
        `cycles` from the first byte of the first LOAD to the last byte of the last result;
        `run_cycles`, the sum over the RUNs; `bytes_in` and `bytes_out`, of whole packets;
        `busy_share_of_bottleneck`, what the bottleneck needs alone ÷ `cycles`; `exact`, whether
        each result is that of the golden model; and what was measured.

    Raises
    ------
    InputError : the link is no packet stream, or a RUN would compute several tokens
    DeviceError : the device stops responding
    """
    if not isinstance(config.link, PacketStream):
        raise InputError(
            f"link must be a packet stream to measure a stream, not {config.link.name}; "
            'give "link": {"kind": "stream"}'
        )
    if config.tokens != 1:
        raise InputError(f"tokens must be 1 to measure a stream, not {config.tokens}")
    random = np.random.default_rng(SEED)
    shape = (out_features, in_features)
    alphabet = np.array(ALPHABETS[config.alphabet], np.int8)
    trits = random.choice(alphabet, shape)
    least, most = act_limits(config)
    codes = random.integers(least, most + 1, (tokens, in_features)).astype(np.int8)
    progress("the simulated FPGA is made, and the layer is loaded")
    transport = SimulatedDevice(config)
    with Device(transport, url="sim", config=config) as device:
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        progress(f"{tokens} tokens are computed")
        start = transport.cycles
        sums = device.submit(handle, codes).result()
        cycles = transport.cycles - start
    exact = bool(np.array_equal(sums, numerics.matmul(trits, codes)))
    stats = handle.stats
    width = config.link.beat_bytes
    needs = {
        "engine": float(stats.cycles),
        "bytes in": stats.bytes_tx / width,
        "bytes out": stats.bytes_rx / width,
    }
    bottleneck = max(needs, key=lambda name: needs[name])
    return {
        "cycles": cycles,
        "run_cycles": stats.cycles,
        "bytes_in": stats.bytes_tx,
        "bytes_out": stats.bytes_rx,
        "busy_share_of_bottleneck": round(needs[bottleneck] / cycles, 4),
        "bottleneck": bottleneck,
        "exact": exact,
        "out_features": out_features,
        "in_features": in_features,
        "tokens": tokens,
        "mac_per_cycle": round(tokens * trits.size / cycles, 2),
        "mac_per_cycle_peak": config.macs_per_cycle,
        "config": config.to_dict(),
        "command": _command(config, shape, width, tokens),
    }


def _command(config: AcceleratorConfig, shape: tuple[int, int], width: int, tokens: int) -> str:
    """The command that gives these figures, every choice said."""
    options = {
        "memory": config.memory.name,
        "link-bytes": width,
        "shape": f"{shape[0]}x{shape[1]}",
        "tokens": tokens,
        "engine": config.engine,
        "encoding": config.encoding,
        "lanes": config.lanes,
        "rows": config.rows,
        "fill": config.fill,
        "banks": config.banks,
        "packet-bytes": config.packet_bytes,
        "slots": config.slots,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["tritloom", "measure", "stream", *words, "--json"])
