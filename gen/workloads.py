"""Layers of known models, and what a configuration reaches on them by the cycle formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritloom.host.checkpoints.gguf import GgufFile
from tritloom.host.checkpoints.gguf_header import is_gguf
from tritloom.host.checkpoints.values import read_json
from tritloom.host.models.config import BitNetConfig
from tritloom.host.models.run import find_model
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError, ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["MIXES", "Layer", "layer_cycles", "mix_figures", "model_layers", "utilization"]

MIXES: dict[str, tuple[str, tuple[tuple[str, int, int, int], ...]]] = {
    "bitnet-2b-4t": (
        "microsoft/BitNet-b1.58-2B-4T",  # 30 layers, hidden 2560, 5 of 20 heads × 128 for k and v
        (
            ("q_proj, o_proj", 2560, 2560, 60),
            ("k_proj, v_proj", 2560, 640, 60),
            ("gate_proj, up_proj", 2560, 6912, 60),
            ("down_proj", 6912, 2560, 30),
        ),
    )
}
"""By name: the model, and its layers as (names, in_features, out_features, count)."""

GGUF_STACKS = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_gate_up": ("ffn_gate", "ffn_up")}
"""Layers of a block that read the same input, by llama.cpp's names."""


def mix_figures(name: str, config: AcceleratorConfig, mhz: float | None) -> dict[str, Any]:
    """RUN alone on a model's ternary layers, by the cycle formula, at a clock."""
    model, mixed = MIXES[name]
    layers: list[dict[str, Any]] = []
    for names, in_features, out_features, count in mixed:
        cycles = layer_cycles(config, in_features, out_features)
        macs = in_features * out_features * config.tokens
        layers.append(
            {
                "names": names,
                "in_features": in_features,
                "out_features": out_features,
                "count": count,
                "macs": macs,
                "cycles": cycles,
                "utilization": round(macs / (cycles * config.macs_per_cycle), 4),
            }
        )
    macs, cycles = (sum(each["count"] * each[key] for each in layers) for key in ("macs", "cycles"))
    return {
        "name": name,
        "model": model,
        "layers": layers,
        "macs": macs,
        "cycles": cycles,
        "utilization": round(macs / (cycles * config.macs_per_cycle), 4),
        "gmac_per_s_sustained": (None if mhz is None else round(macs / cycles * mhz / 1e3, 2)),
    }


def layer_cycles(
    config: AcceleratorConfig,
    in_features: int,
    out_features: int,
    most: int | None = None,
    group: int = 0,
) -> int:
    """Cycles of a layer by the formula; `group` inputs have a sum of their own.

    A layer with more outputs than the core has partial sums, or than `most`, runs in pieces of at
    most that size. `ConfigError` for a layer of more inputs than the core takes.
    """
    if in_features > config.max_in_features:
        raise ConfigError(
            f"the layer {in_features} × {out_features} is wider than "
            f"max_in_features = {config.max_in_features}"
        )
    limit = min(config.max_out_features, most or out_features, out_features)
    if group and config.scale is None:
        limit = min(limit, config.result_row_groups // (in_features // group) * config.rows)
    whole, rest = divmod(out_features, limit)
    cycles = whole * _run_cycles(config, LayerShape.of(config, limit, in_features, group))
    if rest:
        cycles += _run_cycles(config, LayerShape.of(config, rest, in_features, group))
    return cycles


def _run_cycles(config: AcceleratorConfig, shape: LayerShape) -> int:
    cycles = config.planned_run_cycles(shape)
    if cycles is None:
        raise ConfigError(f"no formula gives the cycles with {config.memory} memory")
    return cycles


@dataclass(frozen=True, slots=True)
class Layer:
    """`count` layers of one shape; `group` inputs have a sum of their own, 0: the whole row."""

    name: str
    in_features: int
    out_features: int
    count: int = 1
    group: int = 0

    @property
    def weights(self) -> int:
        return self.in_features * self.out_features * self.count


def model_layers(model: str, group: int | None = 0, *, scale: str | None = None) -> list[Layer]:
    """The ternary layers of a model, counted by shape and group.

    Parameters
    ----------
    model : a name of `MIXES`, or a folder with a config.json, which is all that is read of it, or a
        GGUF file. The layers are those that `tritloom run` loads: q/k/v count as one and gate/up
        as one.
    group : inputs that have a sum of their own; 0: the whole row, which a GGUF file must allow;
        None: as many as share a scale in a tensor of a GGUF file that has several, else the whole
        row
    scale : kind of scales of the device. With scales the two passes of a layer with weights of 2
        are one layer of twice as many inputs; of the kind `float`, in groups of twice as many

    Raises
    ------
    CheckpointError : there is no such folder, or its config.json describes no model with ternary
        layers, or a layer of the GGUF file does not fit a device; the message names the key or the
        tensor
    """
    if model in MIXES:
        return [Layer(*layer, group or 0) for layer in MIXES[model][1]]
    if is_gguf(model):
        tensors = GgufFile(model)
        if group == 0:
            tensors.shapes()  # refuses scales by groups
        shapes = _stacked(tensors.grouped_shapes())
    else:
        file = find_model(model, "config.json") / "config.json"
        plain = BitNetConfig.from_files(read_json(file)).ternary_shapes
        shapes = {name: (*shape, 0, 1) for name, shape in plain.items()}
        if not shapes:
            raise CheckpointError(
                f"{file} describes no ternary layer; check modules_to_not_convert"
            )
    names: dict[tuple[int, int, int], str] = {}
    counts = Counter[tuple[int, int, int]]()
    for name, (out_features, in_features, own, passes) in shapes.items():
        size = own if group is None else group
        if scale is not None:
            in_features *= passes
            size *= passes if scale == "float" else 1
        shape = (in_features, out_features, size)
        names.setdefault(shape, name.rpartition(".")[2])
        counts[shape] += passes if scale is None else 1
    return [
        Layer(names[shape], shape[0], shape[1], count, shape[2]) for shape, count in counts.items()
    ]


def _stacked(
    shapes: dict[str, tuple[int, int, int, int]],
) -> dict[str, tuple[int, int, int, int]]:
    """The layers of a GGUF file with those of each row of `GGUF_STACKS` as one layer."""
    stacked: dict[str, tuple[int, int, int, int]] = {}
    for name, shape in shapes.items():
        block, dot, last = name.rpartition(".")
        stack = next((each for each, parts in GGUF_STACKS.items() if last in parts), last)
        parts = [f"{block}{dot}{part}" for part in GGUF_STACKS.get(stack, ())]
        if parts and all(part in shapes and shapes[part][1:] == shape[1:] for part in parts):
            rows = sum(shapes[part][0] for part in parts)
            stacked[f"{block}{dot}{stack}"] = rows, *shape[1:]
        else:
            stacked[name] = shape
    return stacked


def utilization(config: AcceleratorConfig, layers: Sequence[Layer]) -> float:
    """Useful MACs of the layers ÷ (their cycles by the formula × MACs a cycle)."""
    cycles = sum(
        layer.count * layer_cycles(config, layer.in_features, layer.out_features, group=layer.group)
        for layer in layers
    )
    macs = sum(layer.weights for layer in layers) * config.tokens
    return macs / (cycles * config.macs_per_cycle)
