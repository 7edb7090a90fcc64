"""Blocks of a model on a device's vector unit: what of them fits, and their computation.

`plan_blocks` decides from the configuration and the model alone, so it can be shown before anything
is built or opened. `PlacedBlocks` takes the place of the model's own computation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tritloom.host.device import Device, Handle, ProgramHandle, ProgramStats
from tritloom.host.models.bitnet import Attend, BitNetModel
from tritloom.host.models.blocks import decoder_program, feed_forward_program
from tritloom.host.models.decoder import Decoder
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.host.placement import Placement
from tritloom.host.program import LEAST, Program
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError, DeviceError, InputError, NotFiniteError
from tritloom.rtl.spec.vector_program import Operation

__all__ = ["BlockPlan", "Form", "PlacedBlocks", "Verify", "plan_blocks"]

F32 = NDArray[np.float32]
Form = Literal["blocks", "feed_forward", "none"]
"""`blocks`: the hidden vector stays on the device from attention to attention. `feed_forward`: the
feed-forward of some blocks. `none`: no program."""
Verify = Literal["first", "always", "off"]
"""Which passes through the model are compared with the golden model."""

PARTS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
"""Layers of a block, in the order of use."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockPlan:
    """What of a model's blocks runs as a program of the vector unit.

    Members
    -------
    form : see `Form`
    program : None for the form `none`
    layers : names of the layers that the program's steps name, in the order of `Program.layers`
    blocks : numbers of the blocks that the program computes, or whose feed-forward it computes
    on_device, on_host : the operations of the model that are computed there; products of layers
        are not among them
    reason : why the device does not compute more of it; empty if nothing else could run there
    """

    form: Form
    program: Program | None = None
    layers: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    on_device: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """One line: which operations run where, and why not more on the device."""
        where = [f"on the host: {', '.join(self.on_host)}"]
        if self.on_device:
            where.insert(0, f"Floats on the device: {', '.join(self.on_device)}")
        else:
            where = ["All floats on the host"]
        why = f" ({self.reason})" if self.reason else ""
        return "; ".join(where) + why + "."


ATTENTION = ("embedding", "rotation", "attention")
"""Operations that no program computes."""


def plan_blocks(config: AcceleratorConfig, model: BitNetModel, placement: Placement) -> BlockPlan:
    """Decide which of a model's blocks run as a program.

    Parameters
    ----------
    config : of the device
    model : with fused layers
    placement : which layers the device has
    """
    if config.vector is None:
        return BlockPlan(form="none", reason="the device has no vector unit")
    try:
        decoder = model.decoder()
    except InputError as error:
        return BlockPlan(form="none", reason=str(error))
    whole = {
        layer.name for layer in placement.layers if layer.where == "device" and layer.slots == 1
    }
    names = [
        [f"model.layers.{index}.{part}" for part in PARTS] for index in range(len(decoder.blocks))
    ]
    missing = [name for block in names for name in block if name not in whole]
    reason = f"{missing[0]} is not on the device in one piece" if missing else ""
    if not missing:
        try:
            program = decoder_program(config.vector, decoder)
        except (CapacityError, InputError) as error:
            reason = str(error)
        else:
            return _whole_plan(decoder, program, [name for block in names for name in block])
    return _feed_forward_plan(config, decoder, names, whole, reason)


def _whole_plan(decoder: Decoder, program: Program, layers: Sequence[str]) -> BlockPlan:
    on_device = ["norms", "codes and scales", "residuals"]
    on_host = [*ATTENTION, "head"]
    reason = ""
    (on_device if decoder.relu2 else on_host).append("activation")
    if "hidden" not in program.vectors:
        on_host.append("final norm")
        reason = "the vector memory has no room for the final norm"
    return BlockPlan(
        form="blocks",
        program=program,
        layers=tuple(layers),
        blocks=tuple(range(len(decoder.blocks))),
        on_device=tuple(on_device),
        on_host=tuple(on_host),
        reason=reason,
    )


def _feed_forward_plan(
    config: AcceleratorConfig,
    decoder: Decoder,
    names: list[list[str]],
    whole: set[str],
    reason: str,
) -> BlockPlan:
    """As many blocks as fit, from the first."""
    assert config.vector is not None
    able = [index for index, block in enumerate(names) if set(block[2:]) <= whole]
    for count in range(len(able), 0, -1):
        blocks = able[:count]
        try:
            program = feed_forward_program(config.vector, decoder, blocks)
        except (CapacityError, InputError):
            continue
        some = "" if count == len(names) else f" of blocks {', '.join(map(str, blocks))}"
        return BlockPlan(
            form="feed_forward",
            program=program,
            layers=tuple(name for index in blocks for name in names[index][2:]),
            blocks=tuple(blocks),
            on_device=(f"feed-forward with its norms and residual{some}",),
            on_host=(*ATTENTION, "the other norms, codes, scales and residuals", "head"),
            reason=reason,
        )
    return BlockPlan(form="none", reason=reason)


@dataclass(slots=True)
class PlacedBlocks:
    """The blocks of a model, computed by a program on a device.

    `run_blocks` and `run_feed_forward` take the places of those of `BitNetModel`. One token is
    computed with its hidden vector on the device all the time. Of several tokens, which the device
    computes one behind the other, the hidden vectors come and go with the other vectors.

    Members
    -------
    model, plan : what is computed
    handle : of the program
    verify : which passes are compared with the golden model
    compared : floats that were compared
    left_to_host : tokens whose numbers the unit does not compute with; the host computed them again
    token : what the last pass of one token took
    seconds : time for which the host waited for the device
    """

    model: BitNetModel
    plan: BlockPlan
    handle: ProgramHandle
    verify: Verify = "off"
    compared: int = 0
    left_to_host: int = 0
    token: ProgramStats = field(default_factory=ProgramStats)
    seconds: float = 0.0
    _decoder: Decoder = field(init=False)
    _seen: set[str] = field(init=False, default_factory=set)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._decoder = self.model.decoder()

    @classmethod
    def load(
        cls,
        device: Device,
        model: BitNetModel,
        plan: BlockPlan,
        handles: Mapping[str, Handle],
        verify: Verify = "off",
    ) -> PlacedBlocks:
        """Load the plan's program, and let the model use it.

        Parameters
        ----------
        device, model : the model computes its blocks with the device from now on
        plan : of another form than `none`
        handles : of the layers on the device, by name
        verify : which passes are compared with the golden model

        Raises
        ------
        CapacityError, InputError, DeviceError : as `Device.load_program`
        """
        assert plan.program is not None
        handle = device.load_program(plan.program, [handles[name] for name in plan.layers])
        blocks = cls(model, plan, handle, verify)
        if plan.form == "blocks":
            model.run_blocks = blocks.run_blocks
        else:
            model.run_feed_forward = blocks.run_feed_forward
        return blocks

    def unload(self) -> None:
        """Give the blocks back to the host, and free the program's words and steps."""
        self.model.run_blocks = self.model.blocks_on_host
        self.model.run_feed_forward = self.model.feed_forward_on_host
        self.handle.unload()

    def run_blocks(self, x: F32, attend: Attend) -> F32:
        """All blocks and the final norm; see `BitNetModel.run_blocks`.

        Raises
        ------
        DeviceError : the device failed, or gave other floats than the golden model
        """
        # The hidden vector on the device belongs to one pass.
        with self._lock:
            before = self.handle.stats
            try:
                hidden = _Pass(self, self._decoder, x).run(attend)
            except NotFiniteError:
                self.left_to_host += len(x)
                return self.model.blocks_on_host(x, attend)
            if len(x) == 1:
                self.token = self.handle.stats - before
            return hidden

    def run_feed_forward(self, index: int, x: F32) -> F32:
        """The feed-forward of a block; see `BitNetModel.run_feed_forward`."""
        if index not in self.plan.blocks:
            return self.model.feed_forward_on_host(index, x)
        name = f"feed_forward {index}"
        try:
            y = self.run(name, {"x": x}, ["x"])["x"]
        except NotFiniteError:
            self.left_to_host += len(x)
            return self.model.feed_forward_on_host(index, x)
        if self.verifies(name):
            self.compare(name, y, GoldenBlocks(self._decoder).feed_forward(index, x))
        return y

    def run(self, routine: str, inputs: dict[str, F32], outputs: list[str]) -> dict[str, F32]:
        """Run a routine, and count the time; see `ProgramHandle.run`."""
        start = time.perf_counter()
        results = self.handle.run(routine, inputs, outputs)
        self.seconds += time.perf_counter() - start
        return results

    @property
    def executions(self) -> dict[str, int]:
        """How often a program has computed each layer, by its name."""
        program = self.handle.program
        return {
            self.plan.layers[step.a]: self.handle.stats_of(name).executions
            for name in program.routines
            for step in program.steps_of(name)
            if step.operation == Operation.RUN
        }

    def verifies(self, routine: str) -> bool:
        """Whether the routine is compared now, and, of whole blocks, the pass that it begins."""
        return self.verify == "always" or (self.verify == "first" and routine not in self._seen)

    def compare(self, routine: str, device: F32, golden: F32) -> None:
        """`DeviceError` if any bit differs; the unit takes what is below 2^-126 for zero."""
        self._seen.add(routine)
        bits, expected = (
            np.where(np.abs(values) < LEAST, np.copysign(np.float32(0), values), values).view(
                np.uint32
            )
            for values in (device, golden)
        )
        wrong = np.argwhere(bits != expected)
        if len(wrong):
            token, place = wrong[0]
            raise DeviceError(
                f"{routine}: the device gave {device[token, place]:.9g}, not "
                f"{golden[token, place]:.9g}, for token {token}, position {place} "
                f"({len(wrong)} of {bits.size} floats are wrong); run the device's self-test"
            )
        self.compared += bits.size


class _Pass:
    """One pass of some tokens through all blocks."""

    def __init__(self, blocks: PlacedBlocks, decoder: Decoder, x: F32) -> None:
        self._blocks = blocks
        self._decoder = decoder
        self._golden = GoldenBlocks(decoder) if blocks.verifies("begin") else None
        self._x = x  # of several tokens; of one, the embedding
        self._resident = len(x) == 1
        self._expected = x  # the hidden vectors by the golden model
        self._final = "hidden" if "hidden" in blocks.handle.program.vectors else "x"

    def run(self, attend: Attend) -> F32:
        decoder, golden = self._decoder, self._golden
        last = len(decoder.blocks) - 1
        output = self._routine("begin", {"x": self._x}, "qkv")
        if golden is not None:
            self._compare("begin", output, golden.qkv(0, self._expected))
        for index in range(last + 1):
            parts = np.split(output, np.cumsum(decoder.qkv_rows)[:-1], axis=1)
            given, name = {"attention": attend(index, parts)}, f"block {index}"
            if golden is not None:
                self._expected = golden.attention(index, self._expected, given["attention"])
            if not decoder.relu2:
                output = self._routine(name, given, "gate_up")
                if golden is not None:
                    self._compare(name, output, golden.gate_up(index, self._expected))
                gate, up = np.split(output, 2, axis=1)
                given, name = (
                    {"inner": self._blocks.model.activation(gate, up)},
                    f"feed_forward {index}",
                )
            output = self._routine(name, given, self._final if index == last else "qkv")
            if golden is not None:
                self._compare_end(index, name, given, output)
        return self._blocks.model.final_norm(output) if self._final == "x" else output

    def _compare_end(self, index: int, name: str, given: dict[str, F32], output: F32) -> None:
        """Compare what the last routine of a block has left."""
        golden = self._golden
        assert golden is not None
        if "inner" in given:
            self._expected = golden.down(index, self._expected, given["inner"])
        else:
            self._expected = golden.feed_forward(index, self._expected)
        if index + 1 < len(self._decoder.blocks):
            expected = golden.qkv(index + 1, self._expected)
        else:
            expected = self._expected if self._final == "x" else golden.final(self._expected)
        self._compare(name, output, expected)

    def _compare(self, name: str, output: F32, expected: F32) -> None:
        self._blocks.compare(name, output, expected)
        if not self._resident:
            self._blocks.compare(f"{name}, hidden vector", self._x, self._expected)

    def _routine(self, name: str, given: dict[str, F32], output: str) -> F32:
        """Run a routine for all tokens, and keep their hidden vectors if they are several."""
        if self._resident:
            return self._blocks.run(name, given, [output])[output]
        results = self._blocks.run(name, {"x": self._x} | given, ["x", output])
        self._x = results["x"]
        return results[output]
