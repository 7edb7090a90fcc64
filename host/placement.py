"""Which layers of a model a device computes, and which the host, if not all fit the device.

The decision needs the device's configuration and the layers' shapes alone, so it can be made, and
shown, before anything is built or opened. `place_layers` decides; `load_placed` carries it out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tritloom.host.allocator import Allocator, cut_layer
from tritloom.host.device import Device, Handle, Stats
from tritloom.host.handle import Image
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError

__all__ = [
    "Fit",
    "LayerPlacement",
    "PlacedLayer",
    "Placement",
    "Rectangle",
    "load_placed",
    "place_layers",
]

Fit = Literal["all", "layers"]
"""`all`: every layer must fit the device. `layers`: what does not fit stays on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """A part of a layer's weight matrix: its first row and column, and how many of each."""

    row: int
    rows: int
    column: int
    columns: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the part in the whole matrix."""
        rows = slice(self.row, self.row + self.rows)
        return rows, slice(self.column, self.column + self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlacement:
    """Where one layer is computed.

    Members
    -------
    name : the layer's name
    out_features, in_features : its shape
    on_device : the rectangles that the device computes: one that is the whole layer, some, or none
    words : weight words that they take
    slots : layer slots that they take
    """

    name: str
    out_features: int
    in_features: int
    on_device: tuple[Rectangle, ...]
    words: int
    slots: int

    @property
    def weights(self) -> int:
        """Weights of the layer: what one token saves on the host if the device computes it."""
        return self.out_features * self.in_features

    @property
    def device_weights(self) -> int:
        """Weights of the rectangles on the device."""
        return sum(part.rows * part.columns for part in self.on_device)

    @property
    def where(self) -> str:
        """`device`, `host`, or `device and host`."""
        if self.device_weights == self.weights:
            return "device"
        return "device and host" if self.on_device else "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What runs where; `str()` is a table.

    Members
    -------
    layers : all ternary layers, in the order of the model
    free_words, free_slots : weight words and layer slots of the device that were free for them
    largest_first : whether the largest layers got their words first; else the first of the model
    """

    layers: tuple[LayerPlacement, ...]
    free_words: int
    free_slots: int
    largest_first: bool = True

    @property
    def fit(self) -> Literal["all", "part", "none"]:
        """How much of the model fits the device."""
        on_device = sum(layer.device_weights for layer in self.layers)
        if on_device == sum(layer.weights for layer in self.layers):
            return "all"
        return "part" if on_device else "none"

    @property
    def words(self) -> int:
        """Weight words that the device's part takes."""
        return sum(layer.words for layer in self.layers)

    @property
    def slots(self) -> int:
        """Layer slots that the device's part takes."""
        return sum(layer.slots for layer in self.layers)

    @property
    def device_share(self) -> float:
        """Part of all weights that the device computes, 0 to 1."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.device_weights for layer in self.layers) / weights if weights else 1.0

    @property
    def load_order(self) -> tuple[LayerPlacement, ...]:
        """The layers with a part on the device, in the order in which their words were counted.

        Loaded in this order they find the same free words, also on a device that holds others.
        """
        chosen = [layer for layer in self.layers if layer.on_device]
        sizes = {layer.name: layer.weights if self.largest_first else 0 for layer in chosen}
        return tuple(sorted(chosen, key=lambda each: (each.where != "device", -sizes[each.name])))

    @property
    def summary(self) -> str:
        """One line: the share of the device, and what it takes of its memory."""
        whole = sum(layer.where == "device" for layer in self.layers)
        split = sum(layer.where == "device and host" for layer in self.layers)
        parts = f"{whole} of {len(self.layers)} layers" + (f" and a part of {split}" * bool(split))
        return (
            f"{100 * self.device_share:.0f} % of the weights on the device ({parts}), in "
            f"{self.words:,} of {self.free_words:,} words and {self.slots} of {self.free_slots} "
            "layer slots" + ("" if self.fit == "all" else "; the host computes the rest")
        )

    def require(self, fit: Fit) -> None:
        """Check that enough of the model fits.

        Raises
        ------
        CapacityError : not all layers fit, for `all`; or nothing fits at all
        """
        if self.fit == "all" or (fit == "layers" and self.fit == "part"):
            return
        left = next(layer for layer in self.layers if layer.where != "device")
        needs = f"{left.name} ({left.out_features} × {left.in_features})"
        memory = f"{self.free_words:,} words and {self.free_slots} layer slots"
        if self.fit == "none":
            raise CapacityError(
                f"no part of the model fits the device, not even a part of {needs}: it has "
                f"{memory} free; use a larger device"
            )
        raise CapacityError(
            f"the model does not fit the device, {needs} is too much for its {memory}; "
            'give fit="layers" (--fit layers) to leave the rest on the host, or use a larger device'
        )

    def to_dict(self) -> dict[str, Any]:
        """The placement as JSON can hold it."""
        return asdict(self) | {
            "layers": [
                asdict(layer)
                | {"on_device": list(map(asdict, layer.on_device)), "where": layer.where}
                for layer in self.layers
            ],
            "fit": self.fit,
            "device_share": self.device_share,
        }

    def __str__(self) -> str:
        rows = [("layer", "shape", "on the device", "words")]
        rows += [
            (
                layer.name,
                f"{layer.out_features} × {layer.in_features}",
                f"{100 * layer.device_weights / layer.weights:.0f} %" if layer.on_device else "-",
                f"{layer.words:,}" if layer.on_device else "-",
            )
            for layer in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{name:{widths[0]}}"
            + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            for name, *cells in rows
        ]
        return "\n".join([*lines, self.summary])


class _Planner:
    """Fills a device's memory, and records which rectangles of each layer are in it."""

    def __init__(self, config: AcceleratorConfig, allocator: Allocator) -> None:
        self._config = config
        self._allocator = allocator
        self._words: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self.chosen: dict[str, list[Rectangle]] = {}

    def take(self, name: str, part: Rectangle) -> bool:
        """Give the memory to a rectangle of a layer, if it fits."""
        pieces = self._allocator.find(part.rows, part.columns)
        if pieces is None:
            return False
        self._allocator.take((name, part), pieces)
        self.chosen.setdefault(name, []).append(part)
        self._words[name] = self._words.get(name, 0) + sum(p.shape.words for p in pieces)
        self._slots[name] = self._slots.get(name, 0) + len(pieces)
        return True

    def longest_part(self, part: Rectangle) -> Rectangle | None:
        """The first rows of a rectangle that the longest run of free words holds."""
        tiles = -(-part.columns // self._config.lanes)
        run = max((words for _, words in self._allocator.free_runs), default=0)
        rows = min(part.rows, run // tiles * self._config.rows)
        return (
            Rectangle(row=part.row, rows=rows, column=part.column, columns=part.columns)
            if rows
            else None
        )

    def result(self, name: str, shape: tuple[int, int]) -> LayerPlacement:
        return LayerPlacement(
            name=name,
            out_features=shape[0],
            in_features=shape[1],
            on_device=tuple(self.chosen.get(name, ())),
            words=self._words.get(name, 0),
            slots=self._slots.get(name, 0),
        )


def place_layers(
    config: AcceleratorConfig,
    shapes: Mapping[str, tuple[int, int]],
    allocator: Allocator | None = None,
) -> Placement:
    """Decide what the device computes; the same arguments always give the same placement.

    Whole layers come first: in the order of the model, so that blocks of a decoder stay together,
    or the largest before the others if that brings more weights to the device. Each weight there
    saves the host one multiplication a token. Of the layers that do not fit as a whole the device
    gets those of the pieces, into which its feature limits cut them, that fit in what is left. If
    the memory holds no piece either, the device gets as many rows of one as it holds.

    Parameters
    ----------
    config : of the device
    shapes : out_features and in_features of each layer by name, in the order of the model
    allocator : of a device that already holds layers; it stays as it is
    """
    allocator = Allocator(config) if allocator is None else allocator
    placements = [
        _place(config, shapes, allocator.copy(), largest_first) for largest_first in (False, True)
    ]
    return max(placements, key=lambda placement: placement.device_share)  # of equal ones the first


def _place(
    config: AcceleratorConfig,
    shapes: Mapping[str, tuple[int, int]],
    allocator: Allocator,
    largest_first: bool,
) -> Placement:
    """Fill the memory in one of the two orders."""
    free_words, free_slots = allocator.free_words, len(allocator.free_indices)
    planner = _Planner(config, allocator)
    order = list(shapes)
    if largest_first:
        order.sort(key=lambda name: -shapes[name][0] * shapes[name][1])
    split = []
    for name in order:
        out_features, in_features = shapes[name]
        whole = Rectangle(row=0, rows=out_features, column=0, columns=in_features)
        if not planner.take(name, whole):
            split.append(name)
    pieces = [
        (name, Rectangle(row=row, rows=rows, column=column, columns=columns))
        for name in split
        for row, rows, column, columns in cut_layer(config, *shapes[name])
    ]
    for name, piece in pieces:
        planner.take(name, piece)
    if not planner.chosen and pieces:
        name, piece = pieces[0]
        part = planner.longest_part(piece)
        if part is not None:
            planner.take(name, part)
    return Placement(
        layers=tuple(planner.result(name, shape) for name, shape in shapes.items()),
        free_words=free_words,
        free_slots=free_slots,
        largest_first=largest_first,
    )


class PlacedLayer:
    """A layer that the device computes as a whole or in part, and the host the rest.

    Members
    -------
    layer : the whole layer
    placement : which part the device computes
    """

    def __init__(
        self, device: Device, layer: TernaryLayer, placement: LayerPlacement, handles: list[Handle]
    ) -> None:
        self.layer = layer
        self.placement = placement
        self._device = device
        self._handles = handles
        self._tokens = 0
        self._lock = threading.Lock()  # for the tokens: several threads may use one layer
        if placement.where != "device":
            self._host_trits = layer.trits.copy()
            for part in placement.on_device:
                self._host_trits[part.slices] = 0

    @property
    def stats(self) -> Stats:
        """What the device did for the products so far; `tokens` are those of the layer."""
        device = [handle.stats for handle in self._handles]
        return Stats(
            out_features=self.layer.out_features,
            in_features=self.layer.in_features,
            tokens=self._tokens,
            runs=sum(stats.runs for stats in device),
            cycles=sum(stats.cycles for stats in device),
            bytes_tx=sum(stats.bytes_tx for stats in device),
            bytes_rx=sum(stats.bytes_rx for stats in device),
        )

    @property
    def handle(self) -> Handle | None:
        """The layer on the device, if the device has all of it."""
        return self._handles[0] if self.placement.where == "device" else None

    @property
    def words(self) -> int:
        """Words of weight memory that it takes; 0 after `unload`."""
        return sum(handle.words for handle in self._handles)

    def matmul(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """Exact sums: int8 `[tokens, in_features]` → int32 `[tokens, out_features]`.

        The host works while the device does.
        """
        parts = self.placement.on_device
        if self.placement.where == "device":
            sums = self._device.matmul(self._handles[0], codes)
        else:
            jobs = [
                self._device.submit(handle, codes[:, part.slices[1]])
                for handle, part in zip(self._handles, parts, strict=True)
            ]
            sums = numerics.matmul(self._host_trits, codes)
            for job, part in zip(jobs, parts, strict=True):
                sums[:, part.slices[0]] += job.result()
        with self._lock:
            self._tokens += len(codes)
        return sums

    def linear(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The layer as BitLinear computes it, bit for bit as `numerics.bitlinear`."""
        codes, s = numerics.absmax_quantize(x)
        layer = self.layer
        sums = numerics.sums_as_floats(self.matmul(codes), layer.trits, codes)
        return numerics.rescale(sums, s, layer.scale, layer.scale_divides, layer.bias)

    def unload(self) -> None:
        """Free the device's memory."""
        for handle in self._handles:
            if handle.words:
                self._device.unload(handle)


def load_placed(
    device: Device,
    layer: TernaryLayer,
    placement: LayerPlacement,
    images: Callable[[str, TernaryLayer], Sequence[Image]] | None = None,
) -> PlacedLayer:
    """Write the device's part of a layer to the device.

    Parameters
    ----------
    images : gives the images of a layer of that name, `PackedFile.images`; it is asked for layers
        that the device gets as a whole

    Raises
    ------
    CapacityError, DeviceError : as `Device.load`; nothing of the layer stays on the device
    """
    placed = PlacedLayer(device, layer, placement, [])
    try:
        if images is not None and placement.where == "device":
            placed._handles.append(device.load(layer, images(placement.name, layer)))
            return placed
        for part in placement.on_device:
            weights = TernaryLayer.from_trits(layer.trits[part.slices], 1.0)
            placed._handles.append(device.load(weights))
    except BaseException:
        placed.unload()
        raise
    return placed
