"""Feed-forwards of a transformers model as programs of the vector unit.

A program takes the place of the `forward` of a `BitNetMLP`: gate and up, relu² · up, norm and down.
Norm and residual around it stay in torch. The layers stay loaded as layers, so whoever calls one of
them by itself still gets its product.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MethodType
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from tritloom.host.device import Device, ProgramHandle
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.blocks import mlp_program
from tritloom.host.models.decoder import Mlp
from tritloom.host.models.golden_blocks import golden_mlp
from tritloom.host.placement import PlacedLayer
from tritloom.host.report import LayerReport
from tritloom.host.torch_tools import NoGradient, named, stamp
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import (
    CapacityError,
    DeviceError,
    InputError,
    NotFiniteError,
)

from tritloom.host.torch_ops import feed_forward, register  # isort: skip

import torch  # isort: skip
from torch.nn.modules.module import _has_any_global_hook
from transformers.activations import ReLUSquaredActivation
from transformers.integrations.bitnet import BitLinear
from transformers.models.bitnet.modeling_bitnet import BitNetMLP, BitNetRMSNorm

__all__ = ["MlpPrograms", "OffloadedLayer"]

PARTS = ("gate_proj", "up_proj", "down_proj")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class OffloadedLayer(Protocol):
    """What this module needs to know about a layer on the device."""

    weights: TernaryLayer

    @property
    def module(self) -> Any:
        """The module of transformers."""

    @property
    def placed(self) -> PlacedLayer | None:
        """Its part on the device; None before it is loaded."""

    def check_weights(self) -> None:
        """`InputError` if the module has other weights now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A feed-forward that a program may compute."""

    module: Any
    layers: tuple[OffloadedLayer, ...]
    mlp: Mlp
    eps: float
    dtype: torch.dtype


class MlpPrograms:
    """The feed-forwards of a model that a device computes by a program, until `restore`.

    Members
    -------
    reasons : why each other `BitNetMLP` has no program, by name; empty without a vector unit
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._mlps: list[_OffloadedMlp] = []
        self._handle: ProgramHandle | None = None

    @classmethod
    def load(
        cls,
        model: Any,
        device: Device,
        layers: Mapping[str, OffloadedLayer],
        verify: str,
        traced: bool,
    ) -> MlpPrograms:
        """Load a program of as many feed-forwards as fit, from the first.

        Parameters
        ----------
        model : a torch.nn.Module
        device : has the layers
        layers : the offloaded layers, by their names in the model
        verify : as in `offload`
        traced : whether each is one operation of a graph, `compile` of `offload`

        Raises
        ------
        DeviceError : the device failed
        """
        programs = cls()
        config = device.info.config
        if config.vector is None:
            return programs
        candidates: dict[str, _Candidate] = {}
        for name, module in model.named_modules():
            if type(module) is BitNetMLP:
                try:
                    candidates[name] = _candidate(name, module, layers, config)
                except InputError as error:
                    programs.reasons[name] = str(error)
        programs._load(device, candidates, verify, traced)
        return programs

    def _load(
        self, device: Device, candidates: dict[str, _Candidate], verify: str, traced: bool
    ) -> None:
        """All of them have the sizes, eps and dtype of the first."""
        unit = device.info.config.vector
        assert unit is not None
        while candidates:
            first = next(iter(candidates.values()))
            for name, each in list(candidates.items()):
                if _sizes(each) != _sizes(first):
                    del candidates[name]
                    self.reasons[name] = "its sizes, eps or dtype differ from those of the first"
            try:
                program = mlp_program(
                    unit,
                    {name: each.mlp for name, each in candidates.items()},
                    eps=first.eps,
                    bfloat16=first.dtype == torch.bfloat16,
                )
                handles = [
                    layer.placed.handle
                    for each in candidates.values()
                    for layer in each.layers
                    if layer.placed is not None and layer.placed.handle is not None
                ]
                self._handle = device.load_program(program, handles)
            except (CapacityError, InputError) as error:
                name, _ = candidates.popitem()
                self.reasons[name] = str(error)
                continue
            break
        for name, each in candidates.items():
            assert self._handle is not None
            self._mlps.append(_OffloadedMlp(name, each, self._handle, verify, traced))

    def replace(self) -> None:
        """Let the programs take the places of the modules' `forward`."""
        for mlp in self._mlps:
            mlp.replace()

    def restore(self) -> list[str]:
        """Give the modules back to torch, and free the program's words and steps.

        Returns
        -------
        Names of the modules whose `forward` something else has replaced since.
        """
        for mlp in self._mlps:
            mlp.restore()
        if self._handle is not None:
            with suppress(DeviceError):  # the session is over, and its programs with it
                self._handle.unload()
        return [mlp.name for mlp in self._mlps if mlp.replaced]

    def reports(self, where: str) -> tuple[LayerReport, ...]:
        """What was done up to now."""
        return tuple(mlp.report(where) for mlp in self._mlps)


def _sizes(candidate: _Candidate) -> tuple[object, ...]:
    down = candidate.mlp.down
    return down.out_features, down.in_features, candidate.eps, candidate.dtype


def _candidate(
    name: str, module: Any, layers: Mapping[str, OffloadedLayer], config: AcceleratorConfig
) -> _Candidate:
    """The feed-forward; `InputError` says why no program can compute it as the library does."""
    assert config.vector is not None
    if "forward" in vars(module):
        raise InputError("its forward was replaced")
    if type(module.act_fn) is not ReLUSquaredActivation:
        raise InputError("its activation is not relu²")
    if type(module.ffn_sub_norm) is not BitNetRMSNorm:
        raise InputError("its norm is not BitNetRMSNorm")
    parts = []
    for part in PARTS:
        layer = layers.get(f"{name}.{part}")
        if layer is None:
            raise InputError(f"{part} is not on the device")
        placed = layer.placed
        if placed is None or placed.handle is None or placed.placement.slots > 1:
            raise InputError(f"{part} is not on the device in one piece")
        if layer.module.rms_norm is not None:
            raise InputError(f"{part} has a norm of its own")
        parts.append(layer)
    norm = module.ffn_sub_norm.weight
    dtypes = {tensor.dtype for tensor in _watched(module)}
    dtypes |= {part.module.dtype for part in parts if isinstance(part.module, BitLinear)}
    (dtype, *others) = dtypes
    packed = all(isinstance(part.module, BitLinear) for part in parts)
    if others or dtype not in (torch.float32, torch.bfloat16):
        raise InputError("its dtype is not float32 or bfloat16 throughout")
    if dtype == torch.bfloat16 and not (packed and config.vector.bfloat16):
        raise InputError("bfloat16 needs BitLinear, and a vector unit with bfloat16")
    if any(tensor.device.type != "cpu" for tensor in _watched(module)):
        raise InputError("it is not on the CPU, whose order of sums the vector unit has")
    weights = [_with_bias(part) for part in parts]
    if weights[0].in_features == 1:
        raise InputError("a layer of one feature has another sign of zero")
    return _Candidate(
        module=module,
        layers=tuple(parts),
        mlp=Mlp(
            gate=weights[0],
            up=weights[1],
            down=weights[2],
            inner_norm=norm.detach().float().numpy(),
        ),
        eps=float(module.ffn_sub_norm.variance_epsilon),
        dtype=dtype,
    )


def _watched(module: Any) -> list[torch.Tensor]:
    """Tensors of a feed-forward that its program has as constants."""
    tensors = [module.ffn_sub_norm.weight]
    for part in PARTS:
        layer = getattr(module, part)
        for name in ("weight_scale", "bias"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensors.append(tensor)
    return tensors


def _with_bias(layer: OffloadedLayer) -> TernaryLayer:
    """The layer with its bias. `AutoBitLinear` adds it before it multiplies by the scale."""
    bias = layer.module.bias
    if bias is None:
        return layer.weights
    if not isinstance(layer.module, BitLinear):
        raise InputError("a layer of AutoBitLinear has a bias")
    weights = layer.weights
    return TernaryLayer.from_trits(
        weights.trits,
        weights.scale,
        scale_divides=weights.scale_divides,
        bias=bias.detach().float().numpy(),
    )


class _OffloadedMlp:
    """A `BitNetMLP` whose `forward` a program computes."""

    def __init__(
        self,
        name: str,
        candidate: _Candidate,
        handle: ProgramHandle,
        verify: str,
        traced: bool,
    ) -> None:
        self.name = name
        self.replaced = False
        self._it = candidate
        self._handle = handle
        self._verify = verify
        self._stamps = [stamp(tensor) for tensor in _watched(candidate.module)]
        self._lock = threading.Lock()  # for what `report` counts
        self._calls = 0
        self._checks = 0
        self._seconds = 0.0
        self._number = register(self) if traced else 0

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(f"{self.name}: a device computes this layer; restore() before a copy")

    def replace(self) -> None:
        self._it.module.forward = self.operation if self._number else self.forward
        self.replaced = True

    def restore(self) -> None:
        forward = vars(self._it.module).get("forward")
        if isinstance(forward, MethodType) and forward.__self__ is self:
            del self._it.module.forward
            self.replaced = False

    def report(self, where: str) -> LayerReport:
        down = self._it.mlp.down
        stats = self._handle.stats_of(self.name)
        return LayerReport(
            name=self.name,
            out_features=down.out_features,
            in_features=down.out_features,
            where=f"{where} (program)",
            calls=self._calls,
            tokens=stats.executions,
            cycles=stats.cycles,
            bytes_tx=stats.bytes_tx,
            bytes_rx=stats.bytes_rx,
            seconds=self._seconds,
            checks=self._checks,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output. The parameter must have the same name as in the library."""
        output = self._by_program(x)
        if output is None:
            return BitNetMLP.forward(self._it.module, x)
        if torch.is_grad_enabled():
            output = NoGradient.apply(output, self.name, x, self._it.module.down_proj.weight)
        return output

    def operation(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output as one operation of a graph; the parameter as of `forward`."""
        module = self._it.module
        # A graph that runs does not know what autocast was when it was made.
        if x.dtype != self._it.dtype or torch.is_autocast_enabled(x.device.type):
            return BitNetMLP.forward(module, x)
        weights = [getattr(module, part).weight for part in PARTS]
        return feed_forward(x, weights, self._number)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output, without gradient."""
        output = self._by_program(x)
        return BitNetMLP.forward(self._it.module, x) if output is None else output

    def output_like(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor of the output's shape and dtype."""
        return x.new_empty((*x.shape[:-1], self._it.mlp.down.out_features))

    def _by_program(self, x: torch.Tensor) -> torch.Tensor | None:
        """The module's output; None if the library has to compute it."""
        if not self._suits(x):
            return None
        try:
            with torch.no_grad(), named(self.name):
                for layer in self._it.layers:
                    layer.check_weights()
                return self._compute(x)
        except NotFiniteError:
            return None

    def _suits(self, x: torch.Tensor) -> bool:
        """Whether the program computes what the library would, and nobody watches the layers."""
        module, features = self._it.module, self._it.mlp.gate.in_features
        inner = [getattr(module, part) for part in PARTS] + [module.ffn_sub_norm, module.act_fn]
        return (
            x.dtype == self._it.dtype
            and x.shape[-1:] == (features,)
            and x.numel() > 0
            and x.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not _has_any_global_hook()
            and not any(getattr(each, hooks) for each in inner for hooks in HOOKS)
            and "forward" not in vars(module.ffn_sub_norm)
            and "forward" not in vars(module.act_fn)
            and self._stamps == [stamp(tensor) for tensor in _watched(module)]
        )

    @torch.compiler.disable
    def _compute(self, x: torch.Tensor) -> torch.Tensor:
        array = x.reshape(-1, x.shape[-1]).float().numpy()
        start = time.perf_counter()
        y = self._handle.run(self.name, {"x": array}, ["y"])["y"]
        seconds = time.perf_counter() - start
        compared = self._verify == "always" or (self._verify == "first" and not self._checks)
        with self._lock:
            self._seconds += seconds
            self._calls += 1
        if compared:
            bfloat16 = self._it.dtype == torch.bfloat16
            _compare(y, golden_mlp(self._it.mlp, array, self._it.eps, bfloat16))
            with self._lock:
                self._checks += 1
        return torch.from_numpy(y).to(x.dtype).reshape(x.shape)


def _compare(y: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """`DeviceError` if a bit differs."""
    wrong = np.argwhere(y.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        token, place = wrong[0]
        raise DeviceError(
            f"the device gave {y[token, place]:.9g}, not {expected[token, place]:.9g}, for token "
            f"{token}, position {place} ({len(wrong)} of {y.size} floats are wrong); "
            "run the device's self-test"
        )
