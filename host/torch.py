"""Offload: a device computes the BitLinear layers of a Hugging Face transformers model.

The library's own quantizer makes the activation codes of a layer, in the model's dtype. The device
multiplies them exactly. The library's own arithmetic makes the output. The modules stay where they
are, with their names, weights, hooks and classes: only their `forward` is replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import MethodType, TracebackType
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from tritloom.host.device import Device, require_linear
from tritloom.host.match import Match, name_matcher
from tritloom.host.placement import (
    Fit,
    LayerPlacement,
    PlacedLayer,
    Placement,
    load_placed,
    place_layers,
)
from tritloom.host.report import LayerReport, Report, Totals
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError

# Its error says how to install torch and transformers.
from tritloom.host.torch_tools import NoGradient, named, stamp  # isort: skip

import torch
from transformers.integrations.bitnet import ActQuant, AutoBitLinear, BitLinear

from tritloom.host.torch_mlp import MlpPrograms  # isort: skip
from tritloom.host.torch_ops import linear, register  # isort: skip
from tritloom.host.torch_rest import RestLayer  # isort: skip
from tritloom.host.torch_weights import require_finite, ternary  # isort: skip

__all__ = [
    "Fit",
    "LayerReport",
    "Match",
    "Offload",
    "Report",
    "Totals",
    "Verify",
    "offload",
    "plan_offload",
]

Verify = Literal["first", "always", "off"]
Product = Callable[[torch.Tensor], torch.Tensor]
"""Codes, int8 [..., in_features] → their sums, int32 [..., out_features]."""


def offload(
    model: Any,
    device: Device,
    match: Match = "*",
    verify: Verify = "first",
    *,
    fit: Fit = "all",
    compile: bool = False,  # noqa: A002
) -> Offload:
    """Let a device compute the BitLinear and AutoBitLinear layers of a model.

    All layers are replaced, or none. Each error begins with the layer's name. Use the result in a
    `with` statement, or call its `restore`.

    Parameters
    ----------
    model : torch.nn.Module
    device : of `connect`; it stores the weights until `restore`
    match : which of the layers, by full name: a glob (`"*.mlp.*"`), a compiled regular expression
        (`search`), or a function of the name
    verify : which calls of each layer are compared with the golden model: the first, all or none
    fit : `all` refuses a model if a chosen layer does not fit the device; `layers` leaves to
        torch what does not fit, as `tritloom.host.placement.place_layers` decides
    compile : make each layer one operation, `torch.ops.tritloom.linear`, so that `torch.compile`
        and `torch.export` of the model keep one graph; the results are the same

    Returns
    -------
    plan : undoes all of it at the end of `with`, or by `restore`

    Raises
    ------
    InputError : a layer that the device cannot compute exactly as the library does
    CheckpointError : a weight code 3
    CapacityError : the layers do not fit
    DeviceError : the device failed
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(device, Device):
        raise InputError(f"device must be what connect returned, not {type(device).__name__}")
    if verify not in get_args(Verify):
        raise InputError(f'verify must be "first", "always" or "off", not {verify!r}')
    if fit not in get_args(Fit):
        raise InputError(f'fit must be "all" or "layers", not {fit!r}')
    require_linear(device.info.config)
    chosen, rest = _choose(model, name_matcher(match))
    placement = place_layers(device.info.config, _shapes(chosen), device.allocation())
    placement.require(fit)
    places = {layer.name: layer for layer in placement.load_order}
    layers: list[_Layer] = []
    left: list[RestLayer] = []
    for name, module in chosen:
        if name not in places:
            rest.append(name)
            if not compile:  # a hook would break the graph
                left.append(RestLayer(name, module))
            continue
        with named(name):
            layers.append(_Layer(name, module, device, verify, places[name], compile))
    plan = Offload(device, layers, rest, left)
    by_name = {layer.name: layer for layer in layers}
    try:
        for name in places:
            by_name[name].load()
        plan.load_programs(model, verify, compile)
        for layer in layers:
            layer.replace()
        for each in left:
            each.watch()
    except BaseException:
        plan.restore()
        raise
    return plan


class Offload:
    """Layers of a model that a device computes, until `restore` or the end of `with`."""

    def __init__(
        self,
        device: Device,
        layers: list[_Layer],
        not_offloaded: list[str],
        left: list[RestLayer],
    ) -> None:
        self._left = left
        self._where = device.info.url
        self._device = device
        self._layers = layers
        self._programs = MlpPrograms()
        self._not_offloaded = tuple(not_offloaded)

    def __enter__(self) -> Offload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def load_programs(self, model: Any, verify: Verify, traced: bool) -> None:
        """Let a vector unit compute the feed-forwards that it can; the layers must be loaded."""
        layers = {layer.name: layer for layer in self._layers}
        self._programs = MlpPrograms.load(model, self._device, layers, verify, traced)
        self._programs.replace()

    def restore(self) -> None:
        """Give the layers back to torch, and free the device's memory.

        A second call does nothing.

        Raises
        ------
        InputError : something else has replaced the `forward` of a layer since. All other layers
            are restored. Undo that replacement, and call `restore` again.
        """
        stuck = self._programs.restore()
        for each in self._left:
            each.restore()
        for layer in self._layers:
            layer.restore()
        for layer in self._layers:
            layer.unload()
        stuck += [layer.name for layer in self._layers if layer.replaced]
        if stuck:
            raise InputError(
                f"{', '.join(stuck)}: forward was replaced again since offload; undo that, then "
                "restore() again"
            )

    def report(self) -> Report:
        """What was done up to now; also after `restore`."""
        return Report(
            layers=tuple(layer.report(self._where) for layer in self._layers),
            not_offloaded=self._not_offloaded,
            on_host=tuple(layer.report() for layer in self._left),
            programs=self._programs.reports(self._where),
            without_program=tuple(self._programs.reasons.items()),
        )


class _Layer:
    """A module, and its weights as the device has them.

    Its `forward` replaces that of the module. `weights.scale` is the module's weight scale in its
    own convention; for an online AutoBitLinear, the factor of its ternary weights.
    """

    def __init__(
        self,
        name: str,
        module: Any,
        device: Device,
        verify: Verify,
        place: LayerPlacement,
        traced: bool,
    ) -> None:
        self.name = name
        self.weights = ternary(module)
        self.replaced = False
        self._module = module
        self._device = device
        self._place = place
        self._verify = verify
        self._stamp = stamp(module.weight)
        # torch does not count the writes to a tensor that was made in inference mode.
        watched = module.weight.is_inference() or verify == "always"
        self._copy = module.weight.detach().clone() if watched else None
        self._lock = threading.Lock()  # for what `report` counts
        self._handle: PlacedLayer | None = None
        self._calls = 0
        self._checks = 0
        self._seconds = 0.0
        self._dtypes = self._output_dtypes() if traced else {}
        self._number = register(self) if traced else 0

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(f"{self.name}: a device computes this layer; restore() before a copy")

    @property
    def module(self) -> Any:
        """The module of transformers."""
        return self._module

    @property
    def placed(self) -> PlacedLayer | None:
        """Its part on the device; None before it is loaded."""
        return self._handle

    @property
    def _share(self) -> str:
        """How much of the layer the device computes, if it is not all of it."""
        if self._place.where == "device":
            return ""
        return f" ({100 * self._place.device_weights / self._place.weights:.0f} %)"

    def load(self) -> None:
        with named(self.name):
            self._handle = load_placed(self._device, self.weights, self._place)

    def unload(self) -> None:
        if self._handle is not None and self._handle.words:
            with suppress(DeviceError):  # the session is over, and its layers with it
                self._handle.unload()

    def replace(self) -> None:
        self._module.forward = self.operation if self._number else self.forward
        self.replaced = True

    def restore(self) -> None:
        if _replaced(self._module) is self:
            del self._module.forward
            self.replaced = False

    def report(self, where: str) -> LayerReport:
        layer = LayerReport(
            name=self.name,
            out_features=self.weights.out_features,
            in_features=self.weights.in_features,
            where=where + self._share,
        )
        if self._handle is None:
            return layer
        stats = self._handle.stats
        return replace(
            layer,
            calls=self._calls,
            tokens=stats.tokens,
            cycles=stats.cycles,
            bytes_tx=stats.bytes_tx,
            bytes_rx=stats.bytes_rx,
            seconds=self._seconds,
            checks=self._checks,
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The module's output. The parameter must have the same name as in the library."""
        output = self.compute(input)
        if torch.is_grad_enabled():
            output = NoGradient.apply(output, self.name, input, self._module.weight)
        return output

    def operation(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The module's output as one operation of a graph."""
        # A graph that runs does not know what autocast was when it was made.
        self._check_autocast(input)
        return linear(input, self._module.weight, self._number)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output, without gradient."""
        with torch.no_grad(), named(self.name):
            self._check(x)
            return self._compute(x, self._product)

    def output_like(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor of the output's shape and dtype; with a wrong dtype `compute` fails."""
        dtype = self._dtypes.get(x.dtype, x.dtype)
        return x.new_empty((*x.shape[:-1], self._module.out_features), dtype=dtype)

    def _output_dtypes(self) -> dict[torch.dtype, torch.dtype]:
        """The output's dtype by that of the activations, from one token of zeros."""
        module, dtypes = self._module, {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            x = torch.zeros((1, module.in_features), dtype=dtype, device=module.weight.device)
            with torch.no_grad(), suppress(InputError):
                self._check(x)
                dtypes[dtype] = self._compute(x, self._zeros).dtype
        return dtypes

    def _compute(self, x: torch.Tensor, product: Product) -> torch.Tensor:
        module = self._module
        x = x if module.rms_norm is None else module.rms_norm(x)
        require_finite(x, "activations")
        bitlinear = isinstance(module, BitLinear)
        return self._bitlinear(x, product) if bitlinear else self._autobitlinear(x, product)

    def _check(self, x: torch.Tensor) -> None:
        """`InputError` where the library would not compute what this class computes."""
        module = self._module
        self.check_weights()
        if not x.is_floating_point():
            raise InputError(f"activations must be floating point, not {x.dtype}")
        if x.shape[-1:] != (module.in_features,):
            raise InputError(
                f"activations must have {module.in_features} features, not {tuple(x.shape)}"
            )
        if isinstance(module, AutoBitLinear) and x.dtype != module.weight.dtype:
            raise InputError(
                f"activations are {x.dtype} and weights {module.weight.dtype}, which "
                "AutoBitLinear cannot multiply; cast the whole model, model.to(dtype)"
            )
        self._check_autocast(x)

    def _check_autocast(self, x: torch.Tensor) -> None:
        if torch.is_autocast_enabled(x.device.type):
            raise InputError("autocast changes the layer's arithmetic; cast the model instead")

    def check_weights(self) -> None:
        """`InputError` if the module has other weights than the device."""
        if stamp(self._module.weight) != self._stamp or not self._has_copied_weights():
            raise InputError(
                "the weight was moved, cast or written since offload; restore() and offload again"
            )

    def _has_copied_weights(self) -> bool:
        return self._copy is None or torch.equal(self._module.weight, self._copy)

    def _bitlinear(self, x: torch.Tensor, product: Product) -> torch.Tensor:
        module = self._module
        codes, scale = module.activation_quant(x)
        require_finite(scale, f"scales of activations in {x.dtype}")
        y = self._floats(product(codes), codes)
        y = module.post_quant_process(y, module.weight_scale, scale)
        if module.bias is not None:
            y += module.bias
        return y

    def _autobitlinear(self, x: torch.Tensor, product: Product) -> torch.Tensor:
        """`ActQuant` returns codes / scale. Times the scale, in float32, it rounds to the codes."""
        module = self._module
        x32 = x.float()
        scale = 127 / x32.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)
        codes = (ActQuant.apply(x32) * scale).round().to(torch.int8)
        y = product(codes) / scale
        if module.online_quant:
            y *= float(self.weights.scale)
        if module.bias is not None:
            y += module.bias
        y = y.to(x.dtype)
        return y if module.online_quant else y * module.weight_scale

    def _floats(self, sums: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The sums in the module's dtype, with the sign of zero of the library's product."""
        module = self._module
        if module.in_features > 1 or module.dtype != torch.float32:
            return sums.to(module.dtype)
        arrays = (tensor.reshape(-1, tensor.shape[-1]).cpu().numpy() for tensor in (sums, codes))
        acc, features = arrays
        floats = numerics.sums_as_floats(acc, self.weights.trits, features)
        return torch.from_numpy(floats).to(sums.device).reshape(sums.shape)

    def _zeros(self, codes: torch.Tensor) -> torch.Tensor:
        """Sums of a layer whose weights are 0."""
        return torch.zeros((*codes.shape[:-1], self.weights.out_features), dtype=torch.int32)

    @torch.compiler.disable
    def _product(self, codes: torch.Tensor) -> torch.Tensor:
        """Exact sums, int32, of int8 codes; the last dimension is the features."""
        *shape, features = codes.shape
        array = codes.reshape(-1, features).cpu().numpy()
        if not len(array):
            return self._zeros(codes)
        assert self._handle is not None
        start = time.perf_counter()
        sums = self._handle.matmul(array)
        seconds = time.perf_counter() - start
        compared = self._verify == "always" or (self._verify == "first" and not self._checks)
        with self._lock:
            self._seconds += seconds
            self._calls += 1
        if compared:
            self._compare(sums, numerics.matmul(self.weights.trits, array))
            with self._lock:
                self._checks += 1
        return torch.from_numpy(sums).to(codes.device).reshape(*shape, -1)

    def _compare(self, sums: npt.NDArray[np.int32], expected: npt.NDArray[np.int32]) -> None:
        if sums.shape != expected.shape or sums.dtype != expected.dtype:
            raise DeviceError(
                f"the device gave {sums.dtype} {sums.shape}, not {expected.dtype} {expected.shape}"
            )
        wrong = np.argwhere(sums != expected)
        if len(wrong):
            token, row = wrong[0]
            raise DeviceError(
                f"the device gave {sums[token, row]}, not {expected[token, row]}, for token "
                f"{token}, row {row} ({len(wrong)} of {sums.size} sums are wrong); "
                "run the device's self-test"
            )


def plan_offload(config: AcceleratorConfig, model: Any, match: Match = "*") -> Placement:
    """What an empty device of this configuration would compute of a model; see `offload`."""
    return place_layers(config, _shapes(_choose(model, name_matcher(match))[0]))


def _shapes(chosen: list[tuple[str, Any]]) -> dict[str, tuple[int, int]]:
    """Shape of each chosen layer by name."""
    return {name: (module.out_features, module.in_features) for name, module in chosen}


def _choose(model: Any, matches: Callable[[str], bool]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The layers to offload, and the names of the others.

    Raises
    ------
    InputError : a chosen layer cannot be offloaded, or none was chosen
    """
    chosen, rest = [], []
    for path, module in model.named_modules():
        kind = type(module)
        if not (
            isinstance(module, BitLinear | AutoBitLinear) or kind.__name__.endswith("BitLinear")
        ):
            continue
        name = path or kind.__name__
        if not matches(path):
            rest.append(name)
        elif kind not in (BitLinear, AutoBitLinear):
            raise InputError(
                f"{name}: class {kind.__module__}.{kind.__qualname__} is not one of transformers' "
                "BitLinear and AutoBitLinear; leave it out with match="
            )
        elif _replaced(module) is not None:
            raise InputError(f"{name}: a device computes this layer already; restore() first")
        elif "forward" in vars(module):
            raise InputError(
                f"{name}: its forward was replaced, by accelerate's device_map perhaps; load the "
                "model without, or leave it out with match="
            )
        else:
            chosen.append((name, module))
    if not chosen:
        known = f"has {len(rest)}, such as {rest[0]}" if rest else "has none"
        raise InputError(f"no BitLinear layer matches; the model {known}")
    return chosen, rest


def _replaced(module: Any) -> _Layer | None:
    """The `_Layer` that computes a module, if any."""
    forward = vars(module).get("forward")
    owner = forward.__self__ if isinstance(forward, MethodType) else None
    return owner if isinstance(owner, _Layer) else None
