"""The driver: `connect`, and a device that holds layers and multiplies with them.

`submit` enqueues the commands of a job, and sends as many as the device can buffer. The others are
sent while a result is waited for. The device executes commands in the order of the calls. So
results can be waited for in any order, and a layer can be unloaded while jobs with it are enqueued.
An error in one job does not harm the others.

Several threads may use one device; they take turns. A forked process cannot use it, and a device
cannot be pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritloom.host.allocator import Allocator
from tritloom.host.execution import Execution, ProgramStats
from tritloom.host.group_layer import (
    GroupHandle,
    GroupJob,
    GroupLayer,
    load_groups,
    scales_of,
)
from tritloom.host.handle import Handle, Image, Stats, load_layer
from tritloom.host.identity import config_of, read_identity
from tritloom.host.inputs import (
    checked_codes,
    checked_floats,
    checked_norm,
    require_linear,
)
from tritloom.host.job import Job, Loaded, submit_product
from tritloom.host.layer import TernaryLayer
from tritloom.host.linear_program import LINEAR, linear_program, unit_is_sooner
from tritloom.host.links.contract import DeviceUrl, Transport, open_transport
from tritloom.host.program import Program
from tritloom.host.proved_session import ProvedSession
from tritloom.host.requests import Counters, Requests
from tritloom.host.selftest import Check, SelfTest, run_selftest
from tritloom.host.session import SMALLEST_PAYLOAD
from tritloom.host.vectors import ProgramHandle, Vectors
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import PROTOCOL_VERSION
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError, InputError, NotFiniteError, ProtocolError

__all__ = [
    "Check",
    "Counters",
    "Device",
    "DeviceInfo",
    "Execution",
    "GroupHandle",
    "GroupJob",
    "GroupLayer",
    "Handle",
    "Job",
    "ProgramHandle",
    "ProgramStats",
    "SelfTest",
    "Stats",
    "connect",
    "require_linear",
]

Floats = Literal["sooner", "unit", "host"]
"""What computes the floats of a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a device is, and what is free on it.

    Members
    -------
    url : by which it was connected
    config : its configuration, as the device says
    protocol_version : of the device and this driver
    layout_digest, build_digest : of the configuration, in hexadecimal
    free_words : words of weight memory that no layer has
    layers_used : layer slots in use
    free_vector_words, free_steps : vector words and steps that no program has; 0 without a vector
        unit
    """

    url: str
    config: AcceleratorConfig
    protocol_version: int
    layout_digest: str
    build_digest: str
    free_words: int
    layers_used: int
    free_vector_words: int
    free_steps: int


def connect(url: str = "sim", *, config: AcceleratorConfig | None = None) -> Device:
    """Open a device and start a session. Use the device in a `with` statement.

    What was loaded before is lost.

    Parameters
    ----------
    url : `sim`, `golden`, `sim?board=NAME`, `sim?preset=NAME`, `serial:///dev/ttyUSB0`,
        `udp://10.77.0.2`, …
    config : a simulated device is made from it, instead of from a board; any other device must have
        the same layout

    Raises
    ------
    InputError : the URL is wrong
    DeviceError : the device cannot be opened, does not respond, or is not one for this driver
    """
    parsed = DeviceUrl.parse(url)
    if config is not None and not isinstance(config, AcceleratorConfig):
        raise InputError(f"config must be an AcceleratorConfig, not {type(config).__name__}")
    transport, expected = open_transport(parsed, config)
    return Device(transport, url=url, config=expected)


class Device:
    """A connected device, made by `connect`.

    If the device cannot be used, the constructor closes the transport.
    """

    def __init__(
        self, transport: Transport, *, url: str, config: AcceleratorConfig | None = None
    ) -> None:
        self._session = ProvedSession(transport, url)
        try:
            version = self._session.open()
            if version != PROTOCOL_VERSION:
                raise ProtocolError(
                    f"{url} speaks protocol {version}, this driver {PROTOCOL_VERSION}; "
                    "build its bitstream with this version"
                )
            self._identity = read_identity(self._session, SMALLEST_PAYLOAD)
            self._config = config_of(url, self._identity, config)
            self._session.configure(self._config)
            self._session.prove(self._config)
        except BaseException:
            self._session.close()
            raise
        self._allocator = Allocator(self._config)
        self._vectors = Vectors(self._session, self._config, self._allocator)
        self._linear: dict[tuple[Handle, bytes], ProgramHandle | None] = {}  # by layer and norm

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session. Results not yet waited for are lost. A second call does nothing."""
        self._session.close()

    @property
    def info(self) -> DeviceInfo:
        """What the device is, and what is free on it; sends no command."""
        return DeviceInfo(
            url=self._session.name,
            config=self._config,
            protocol_version=PROTOCOL_VERSION,
            layout_digest=self._config.layout_digest.hex(),
            build_digest=self._config.build_digest.hex(),
            free_words=self._allocator.free_words,
            layers_used=self._allocator.layers_used,
            free_vector_words=self._vectors.free_words,
            free_steps=self._vectors.free_steps,
        )

    def allocation(self) -> Allocator:
        """A copy of what is free and taken in the weight memory, to plan with; sends no command."""
        with self._session.lock:
            return self._allocator.copy()

    def counters(self) -> Counters:
        """The device's counters since power-up."""
        with self._session.lock:
            return Requests(self._session, self._config).counters()

    @overload
    def load(self, layer: TernaryLayer, images: Sequence[Image] | None = None) -> Handle: ...
    @overload
    def load(self, layer: GroupLayer) -> GroupHandle: ...
    def load(
        self, layer: TernaryLayer | GroupLayer, images: Sequence[Image] | None = None
    ) -> Handle | GroupHandle:
        """Write a layer to the device's weight memory.

        A layer that exceeds the device's feature limits is stored, and computed, in pieces. A layer
        with groups of inputs that has a weight 2 is stored as two ternary layers, on a device with
        scales as one of twice as many inputs.

        Parameters
        ----------
        layer : what is computed
        images : of the pieces, if they are packed already, as `PackedFile.images` gives them

        Raises
        ------
        CapacityError : there is no room; the device is as before
        InputError : not a layer, a weight 0 for a device of the binary alphabet, groups that the
            device cannot have, or images of other sizes
        DeviceError : the memory does not keep it, or the session ended
        """
        with self._session.lock:
            self._session.check()
            device, allocator = (self._session, self._config), self._allocator
            if not isinstance(layer, GroupLayer):
                return load_layer(*device, allocator, layer, images)
            if images is not None:
                raise InputError("images must be None for a GroupLayer, which is packed here")
            return load_groups(*device, allocator, layer)

    def unload(self, handle: Handle | GroupHandle) -> None:
        """Free a layer's memory. Jobs that were submitted before still get their results."""
        with self._session.lock:
            self._session.check()
            if isinstance(handle, GroupHandle):
                for part in handle.parts:
                    part.pieces_on(self._session)
                    self._allocator.release(part)
                return
            _require_handle(handle).pieces_on(self._session)
            for key in [key for key in self._linear if key[0] is handle]:
                program = self._linear.pop(key)
                if program is not None:
                    program.unload()
            self._allocator.release(handle)

    @overload
    def submit(self, handle: Handle, codes: ArrayLike, scales: None = None) -> Job: ...
    @overload
    def submit(
        self, handle: GroupHandle, codes: ArrayLike, scales: ArrayLike | None = None
    ) -> GroupJob: ...
    def submit(
        self, handle: Handle | GroupHandle, codes: ArrayLike, scales: ArrayLike | None = None
    ) -> Job | GroupJob:
        """Start a product; `Job.result` waits for the sums. Any number of jobs may be enqueued.

        Parameters
        ----------
        handle : of `load`
        codes : int8 `[tokens, in_features]`; they are copied
        scales : of the codes, float32 `[tokens, groups]`, see `matmul_scaled`; they are copied

        Raises
        ------
        InputError : an unloaded layer, another dtype or shape, a code that does not fit in the
            device's `act_bits`, or scales as `matmul_scaled` refuses them
        """
        with self._session.lock:
            self._session.check()
            return self._submit(handle, codes, scales, None)[0]

    def submit_all(
        self,
        handles: Sequence[Handle | GroupHandle],
        codes: ArrayLike,
        scales: ArrayLike | None = None,
    ) -> list[Job | GroupJob]:
        """Start the products of several layers with the same codes, and the same scales of these.

        As `submit` for each of them in turn. But a layer that takes the codes as the one before it
        does uses what is loaded on the device, if all of it has room there at once.

        Raises
        ------
        InputError : as `submit`; the products of the layers before have been started
        """
        with self._session.lock:
            self._session.check()
            jobs: list[Job | GroupJob] = []
            loaded = None
            for handle in handles:
                job, loaded = self._submit(handle, codes, scales, loaded)
                jobs.append(job)
            return jobs

    def _submit(
        self,
        handle: Handle | GroupHandle,
        codes: ArrayLike,
        scales: ArrayLike | None,
        loaded: Loaded | None,
    ) -> tuple[Job | GroupJob, Loaded | None]:
        """A job, and what it leaves loaded."""
        device = (self._session, self._config)
        if not isinstance(handle, GroupHandle):
            pieces = _require_handle(handle).pieces_on(self._session)
            if scales is not None:
                raise InputError("scales must be None for a TernaryLayer, which has no groups")
            array = checked_codes(self._config, codes, handle.in_features)
            return submit_product(*device, handle, pieces, array, loaded)
        places = [part.pieces_on(self._session) for part in handle.parts]
        array = checked_codes(self._config, codes, handle.layer.in_features)
        acts = scales_of(*device, handle, scales, len(array))
        array = handle.device_codes(self._config, array)
        jobs = []
        for part, place in zip(handle.parts, places, strict=True):
            job, loaded = submit_product(*device, part, place, array, loaded, acts)
            jobs.append(job)
        return GroupJob(handle, jobs, acts), loaded

    def matmul(self, handle: Handle, codes: ArrayLike) -> NDArray[np.int32]:
        """Exact sums: int8 `[tokens, in_features]` → int32 `[tokens, out_features]`."""
        return self.submit(_require_handle(handle), codes).result()

    def matmul_groups(self, handle: GroupHandle, codes: ArrayLike) -> NDArray[np.int32]:
        """Exact sums of each group of inputs.

        int8 `[tokens, in_features]` → int32 `[tokens, out_features, groups]`, as
        `tritloom.rtl.spec.groups.matmul_groups`.
        """
        _require_groups("matmul_groups", handle)
        if self._config.scale is not None:
            raise InputError(
                f"{self._session.name} scales its sums and does not send them; use matmul_scaled"
            )
        return self.submit(handle, codes).result()

    def matmul_scaled(
        self, handle: GroupHandle, codes: ArrayLike, scales: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Sums of all groups of inputs, each times its scale.

        int8 `[tokens, in_features]` → float32 `[tokens, out_features]`.

        * Without `scales`: Σ sum · scale, exactly, and rounded once. A device whose scales are of
          the kind `fixed` computes it. The golden model is `fixed_totals` in
          `tritloom.rtl.spec.groups`.
        * With `scales`: total = RN(total + RN(sum · RN(act · scale))), group after group, where act
          is the scale of the codes, and RN rounds to float32. A device of the kind `float` computes
          it. The golden model is `float_totals`. A row whose numbers reach 2^128 is not finite.

        Of a device that sends the sums, the host scales them, and gets the same bits.

        Parameters
        ----------
        handle : of `load`, of a `GroupLayer` with scales
        codes : int8 `[tokens, in_features]`
        scales : of the codes, float32 `[tokens, groups]`

        Raises
        ------
        InputError : not the handle of such a layer; scales of another dtype or shape, or one that
            is not finite; a device of the other kind; or as `submit`
        """
        _require_groups("matmul_scaled", handle)
        return self.submit(handle, codes, scales).scaled()

    def linear(
        self,
        handle: Handle,
        x: ArrayLike,
        floats: Floats = "sooner",
        *,
        norm: tuple[ArrayLike, float] | None = None,
    ) -> NDArray[np.float32]:
        """The layer as BitLinear computes it.

        Each token is quantized, the device multiplies, and the layer's scale and bias are applied.
        The result is bit for bit that of `tritloom.rtl.spec.numerics.bitlinear`, with `norm` of
        the outputs of `numerics.rms_norm`.

        Parameters
        ----------
        handle : of `load`
        x : float `[tokens, in_features]`: an array, nested lists, or a torch tensor of any float
            dtype, whose gradient is not followed
        floats : what quantizes and rescales: the `host`, the `unit` (the device's vector unit), or
            whichever is `sooner` for one token. On a UART that is the host, because floats are more
            bytes. `linear_stats` has what the unit did
        norm : weight, float `[in_features]`, and eps of an RMSNorm of the inputs; None without one

        Returns
        -------
        y : float32 `[tokens, out_features]`

        Raises
        ------
        InputError : NaN or inf, another dtype or shape, an eps below `LEAST_EPS`, or a device of
            4-bit activations; with `unit` also what the unit does not compute
        CapacityError : with `unit`, the vector memory or program memory has no room
        """
        require_linear(self._config)
        layer = _require_handle(handle).layer
        if floats not in get_args(Floats):
            raise InputError(f'floats must be "sooner", "unit" or "host", not {floats!r}')
        checked = None if norm is None else checked_norm(*norm, layer.in_features)
        program = None if floats == "host" else self._linear_program(handle, floats, checked)
        if program is not None:
            try:
                return program.run(LINEAR, {"x": x}, ["y"])["y"]
            except NotFiniteError:
                if floats == "unit":
                    raise
        if checked is not None:
            x = numerics.rms_norm(checked_floats(x, layer.in_features), *checked)
        codes, s = numerics.absmax_quantize(x)
        if codes.shape[1] != layer.in_features:
            raise InputError(f"x must have {layer.in_features} features, not {codes.shape[1]}")
        sums = numerics.sums_as_floats(self.matmul(handle, codes), layer.trits, codes)
        return numerics.rescale(sums, s, layer.scale, layer.scale_divides, layer.bias)

    def linear_stats(self, handle: Handle) -> ProgramStats:
        """What `linear` with this layer did on the vector unit."""
        _require_handle(handle)
        programs = [each for key, each in self._linear.items() if key[0] is handle]
        return sum((each.stats for each in programs if each is not None), ProgramStats())

    def _linear_program(
        self, handle: Handle, floats: Floats, norm: tuple[NDArray[np.float32], float] | None
    ) -> ProgramHandle | None:
        """The program of a layer, loaded when it is needed first; None if the host is sooner."""
        weight, eps = (None, 0.0) if norm is None else norm
        key = handle, b"" if weight is None else weight.tobytes() + np.float64(eps).tobytes()
        with self._session.lock:
            self._session.check()
            handle.pieces_on(self._session)
            program = self._linear.get(key)
            if program is None and (floats == "unit" or key not in self._linear):
                self._linear[key] = None
                try:
                    if self._config.vector is None:
                        raise InputError(f"{self._session.name} has no vector unit; use the host")
                    unit = self._config.vector
                    made = linear_program(unit, handle.layer, norm=weight, eps=eps)
                    if floats == "unit" or unit_is_sooner(self._config, handle.layer, made):
                        program = self._linear[key] = self.load_program(made, [handle])
                except (CapacityError, InputError):
                    if floats == "unit":
                        raise
            return program

    def load_program(self, program: Program, layers: Sequence[Handle]) -> ProgramHandle:
        """Write a program to the vector unit, and commit it.

        Parameters
        ----------
        program : such as `tritloom.host.models.blocks.decoder_program` makes it
        layers : of `load`, one for each layer of the program, which must lie in one piece each

        Raises
        ------
        CapacityError : no room for its vector words or steps; the device is as before
        InputError : no vector unit, a program that it cannot run, or other layers
        DeviceError : the device does not keep it, or the session ended
        """
        with self._session.lock:
            try:
                return self._vectors.load(program, layers)
            except CapacityError:
                if not any(self._linear.values()):
                    raise
            # The programs of `linear` make room; it loads them again, or lets the host compute.
            for linear in self._linear.values():
                if linear is not None:
                    linear.unload()
            self._linear.clear()
            return self._vectors.load(program, layers)

    def selftest(self) -> SelfTest:
        """Check identity, free weight memory, a known layer, link and clock. Layers stay."""
        with self._session.lock:
            return run_selftest(self._session, self._config, self._allocator, self._identity)


def _require_groups(method: str, handle: GroupHandle) -> None:
    if not isinstance(handle, GroupHandle):
        raise InputError(
            f"{method} takes what load returned for a GroupLayer, not {type(handle).__name__}"
        )


def _require_handle(handle: Handle) -> Handle:
    if isinstance(handle, GroupHandle):
        raise InputError("the layer has groups of inputs; use matmul_groups or matmul_scaled")
    if not isinstance(handle, Handle):
        raise InputError(f"handle must be what load returned, not {type(handle).__name__}")
    return handle
