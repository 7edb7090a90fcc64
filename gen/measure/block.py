"""Measures a model's blocks on a vector unit: floats, cycles, and bytes on the link."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.operations import Counts, Recorder, compare_calls
from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.device import Device, ProgramHandle, connect
from tritloom.host.layer import TernaryLayer
from tritloom.host.links.contract import DeviceUrl, known_config
from tritloom.host.models.bitnet import Attend, BitNetModel
from tritloom.host.models.blocks import decoder_program, feed_forward_program
from tritloom.host.models.decoder import Decoder
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.host.program import Program
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.rounding import round_to

__all__ = ["device_of", "measure_block", "reference"]

F32 = NDArray[np.float32]
SEQUENCE = 64
"""Most tokens that attend to each other, and that are computed in one pass."""
DECODED = 4
"""Tokens whose bytes on the link are counted, each in a pass of its own."""


def measure_block(
    path: Path,
    url: str,
    tokens: int,
    progress: Progress = lambda line: None,
    *,
    bfloat16: bool = False,
    lanes: int | None = None,
) -> dict[str, Any]:
    """Compute the blocks of a model for random tokens on a device, and compare each float.

    The layers' scales are made to divide, as those of transformers' packed layers do. What the
    device reads back of the blocks is compared: query, key and value of each block, the hidden
    vector after each block, the final norm where it is on the device, and each feed-forward by
    itself. Then each norm, BitLinear, activation and residual is computed alone, with the inputs
    that it had in the model, and its outputs are compared.

    Parameters
    ----------
    path : folder of the model
    url : of a device with a vector unit
    tokens : how many
    progress : gets lines about the progress
    bfloat16 : compute the model in bfloat16. A simulated device gets a unit that can.
    lanes : of the unit that a simulated device gets; the device's own by default

    Returns
    -------
    An object that `tritloom measure block --help` explains.

    Raises
    ------
    CheckpointError, InputError : the model cannot be computed so
    ConfigError : the device has no vector unit
    CapacityError : layers or programs do not fit
    DeviceError : the device failed
    """
    opened, config = device_of(url, bfloat16=bfloat16, lanes=lanes)
    model = BitNetModel(_dividing(load_checkpoint(path)))
    decoder = replace(model.decoder(), bfloat16=bfloat16)
    against, golden = reference(decoder)
    recorder = Recorder(decoder, golden)
    rng = np.random.default_rng(1)
    with connect(opened, config=config) as device:
        unit = _unit(device.info.config, url)
        whole, part = decoder_program(unit, decoder), feed_forward_program(unit, decoder)
        layers = [layer for block in decoder.blocks for layer in block.layers]
        handles = []
        for done, layer in enumerate(layers, 1):
            handles.append(device.load(layer))
            progress(f"loaded {done} of {len(layers)} layers")
        handle = device.load_program(whole, handles)
        blocks = _Blocks(model, decoder, recorder, handle)
        before = device.counters()
        model.run_blocks = blocks.compare_all
        for done in range(0, tokens, SEQUENCE):
            count = min(SEQUENCE, tokens - done)
            model.logits(_ids(rng, model, count))
            progress(f"{done + count} of {tokens} tokens, {blocks.counts.unlike} floats differ")
        after = device.counters()
        stats = handle.stats
        calls = list(recorder.calls.values())
        blocks.golden = golden
        link_bytes = _link_bytes(model, blocks, handle, _ids(rng, model, DECODED))
        handle.unload()
        feed_forward = _feed_forward(device, part, decoder, handles, blocks)
        for loaded in handles:
            device.unload(loaded)
        compare_calls(
            *(device, calls, blocks.counts),
            eps=decoder.eps,
            bfloat16=bfloat16,
            progress=progress,
        )
    each = tokens * len(decoder.blocks)
    vector_cycles = after.vector_cycles - before.vector_cycles
    waited = after.vector_stall_cycles - before.vector_stall_cycles
    return {
        "model": path.name,
        "device": url,
        "tokens": tokens,
        "bfloat16": bfloat16,
        "against": against,
        **blocks.counts.figures(),
        "cycles_feed_forward": round(feed_forward),
        "cycles_layer": round(stats.cycles / each),
        "engine_cycles": round((after.run_cycles - before.run_cycles) / each),
        "vector_cycles": round((vector_cycles - waited) / each),
        "link_bytes_per_token": round(link_bytes),
        "final_norm_on_device": "hidden" in whole.vectors,
        "config": device.info.config.to_dict(),
        "command": shlex.join(
            ["tritloom", "measure", "block", path.name, "--device", url, "--tokens", str(tokens)]
            + ["--bfloat16"] * bfloat16
            + ([] if lanes is None else ["--lanes", str(lanes)])
        ),
    }


def device_of(
    url: str,
    *,
    bfloat16: bool,
    lanes: int | None = None,
    needs: Callable[[AcceleratorConfig], AcceleratorConfig] | None = None,
) -> tuple[str, AcceleratorConfig | None]:
    """URL and configuration of the device to open.

    A simulated device gets a vector unit with bfloat16 and with several lanes where that is asked
    for, and what `needs` makes of its configuration; any other device has its own configuration.

    Raises
    ------
    ConfigError : a simulated device has no vector unit, or cannot have so many lanes
    InputError : lanes of a device that is not simulated
    """
    parsed = DeviceUrl.parse(url)
    known = known_config(parsed)
    if known is None:
        if lanes is not None:
            raise InputError(f"{url} has the lanes that it was built with; leave --lanes out")
        return url, None
    unit = _unit(known, url)
    config = known
    if bfloat16:
        config = replace(config, vector=replace(unit, bfloat16=True))
    if lanes is not None:
        config = replace(config, vector=replace(config.vector or unit, lanes=lanes))
    if needs is not None:
        config = needs(config)
    return (url, None) if config == known else (parsed.scheme, config)


def _unit(config: AcceleratorConfig, url: str) -> Any:
    if config.vector is None:
        raise ConfigError(
            f"{url} has no vector unit; name a device that has one, such as sim?preset=bitlinear"
        )
    return config.vector


def _ids(rng: np.random.Generator, model: BitNetModel, count: int) -> list[int]:
    return [int(each) for each in rng.integers(0, model.config.vocab_size, count)]


def _dividing(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with scales that divide; those that multiply become their reciprocals."""
    layers = {
        name: layer
        if layer.scale_divides
        else TernaryLayer.from_trits(
            layer.trits, np.float32(1) / layer.scale, bias=layer.bias, scale_divides=True
        )
        for name, layer in checkpoint.layers.items()
    }
    return replace(checkpoint, layers=layers)


def reference(decoder: Decoder) -> tuple[str, GoldenBlocks]:
    """What the floats are compared with, and its name."""
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        # Eager, as the contract is: compiled, transformers rounds fewer bfloat16 results.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        from tritloom.gen.measure.library_blocks import LibraryBlocks

        return "transformers", LibraryBlocks(decoder)
    return "golden model", GoldenBlocks(decoder)


@dataclass(slots=True)
class _Blocks:
    """Computes the blocks on the device and by the reference, and counts differing floats."""

    model: BitNetModel
    decoder: Decoder
    golden: GoldenBlocks
    handle: ProgramHandle
    counts: Counts = field(default_factory=Counts)
    inputs: dict[int, list[F32]] = field(default_factory=dict)
    """Of each feed-forward: float32 `[tokens, hidden]` of each pass."""

    def compare_all(self, x: F32, attend: Attend) -> F32:
        """All blocks and the final norm of some tokens, float32 `[tokens, hidden]`."""
        golden, decoder, compare = self.golden, self.decoder, self.counts.compare
        x = self._rounded(x)
        given, name = {"x": x}, "begin"
        hidden = x  # on the device, it comes and goes with each routine
        for index in range(len(decoder.blocks)):
            got = self.handle.run(name, {"x": hidden} | given, ["x", "qkv"])
            hidden = got["x"]
            qkv = golden.qkv(index, x)
            compare("hidden", hidden, x)
            compare("qkv", got["qkv"], qkv)
            parts = np.split(qkv, np.cumsum(decoder.qkv_rows)[:-1], axis=1)
            attention = self._rounded(attend(index, parts))
            given, name = {"attention": attention}, f"block {index}"
            x = golden.attention(index, x, attention)
            self.inputs.setdefault(index, []).append(x)
            x = golden.feed_forward(index, x)
        outputs = [each for each in ("x", "hidden") if each in self.handle.program.vectors]
        got = self.handle.run(name, {"x": hidden} | given, outputs)
        final = golden.final(x)
        compare("hidden", got["x"], x)
        if "hidden" in got:
            compare("final norm", got["hidden"], final)
        return final

    def one_token(self, x: F32, attend: Attend) -> F32:
        """The same of one token, whose hidden vector stays on the device."""
        given, name = {"x": self._rounded(x)}, "begin"
        for index in range(len(self.decoder.blocks)):
            qkv = self.handle.run(name, given, ["qkv"])["qkv"]
            parts = np.split(qkv, np.cumsum(self.decoder.qkv_rows)[:-1], axis=1)
            attention = self._rounded(attend(index, parts))
            given, name = {"attention": attention}, f"block {index}"
        if "hidden" in self.handle.program.vectors:
            return self.handle.run(name, given, ["hidden"])["hidden"]
        return self.golden.final(self.handle.run(name, given, ["x"])["x"])

    def _rounded(self, values: F32) -> F32:
        """Vectors that the model's own operations made: in its number format."""
        return round_to(values, self.decoder.bfloat16)


def _link_bytes(
    model: BitNetModel, blocks: _Blocks, handle: ProgramHandle, ids: Sequence[int]
) -> float:
    """Bytes on the link for a token, both directions, where tokens come one by one."""
    model.run_blocks = blocks.one_token
    before = handle.stats
    for token in ids:
        model.logits([token])
    after = handle.stats
    moved = after.bytes_tx + after.bytes_rx - before.bytes_tx - before.bytes_rx
    return moved / len(ids)


def _feed_forward(
    device: Device, program: Program, decoder: Decoder, handles: list[Any], blocks: _Blocks
) -> float:
    """Compare each feed-forward by itself; the cycles of one."""
    used = [each for start in range(0, len(handles), 4) for each in handles[start + 2 : start + 4]]
    handle = device.load_program(program, used)
    for index, x in _passes(blocks):
        name = f"feed_forward {index}"
        y = handle.run(name, {"x": x}, ["x"])["x"]
        blocks.counts.compare("feed-forward", y, blocks.golden.feed_forward(index, x))
    stats = handle.stats
    handle.unload()
    return stats.cycles / stats.executions


def _passes(blocks: _Blocks) -> Iterator[tuple[int, F32]]:
    for index, passes in blocks.inputs.items():
        for x in passes:
            yield index, x
