"""What a platform will do for a model: tokens a second, what binds, and the CPU beside it.

The ternary layers follow the time model of `tritloom.gen.plan.timing`. Attention and head are
computed on the host, unless the platform says otherwise: their time is that of this computer, as
measured, or that of the platform's own host by the bytes that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from tritloom.gen.plan.cpu import Cpu, measure_cpu
from tritloom.gen.plan.platform import Platform, stored_bytes, weight_bits
from tritloom.gen.plan.shapes import ModelShape
from tritloom.gen.plan.timing import PARTS, Times, layer_times, resident_counts
from tritloom.gen.workloads import Layer
from tritloom.host.allocator import cut_layer
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["LayerPlan", "Prediction", "predict"]

CACHE_BYTES = 2
"""Bytes of a key or value, and of a weight of the head, on a platform's own host: bfloat16."""
MEASURED_METHOD = "this computer, as measured"

Measure = Callable[[Sequence[Layer], int], Cpu]
"""Times some layers on this computer, for some tokens at once: `measure_cpu`."""
AlsoMeasure = Callable[[Sequence[Layer], int], Cpu | None]
"""The same in another way; None if this computer cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """Layers of one shape on a platform, for one token.

    Members
    -------
    layer : shape, and how many compute a token
    resident : how many of them stay in the memory
    words : weight words of one of them, padding included
    cycles : of all their RUNs
    roofline : share of the cycles × the memory's width that useful weight bits take
    times : of all of them, what the link and the driver need included
    """

    layer: Layer
    resident: int
    words: int
    cycles: int
    roofline: float
    times: Times

    def to_dict(self, config: AcceleratorConfig) -> dict[str, Any]:
        """As JSON can hold it; bytes and seconds are those of all the layers."""
        layer = self.layer
        return {
            "name": layer.name,
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "count": layer.count,
            "resident": self.resident,
            "bytes": layer.count * stored_bytes(config, self.words),
            "bits_per_weight": round(
                self.words * config.word_bits / (layer.in_features * layer.out_features), 4
            ),
            "cycles": self.cycles,
            "share_of_roofline": round(self.roofline, 4),
            "seconds": round(self.times.total_s, 9),
            "binds": self.times.bound,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A model on a platform.

    Members
    -------
    platform, shape : shape is None where only the layers are known
    layers : for one token
    times : of all layers for one token
    fits : how much of the model the memory holds: all, part or none
    needed_bytes : what all of its weights take
    parts_s : seconds a token by part: those of `Times`, then attention, head and other
    cpu : the ternary layers on this computer, by the method that is fastest
    cpus : the same by each method that was measured
    cpu_s : seconds a token on this computer, attention and head included
    context : positions that attention reads
    on_host_s : seconds a token if this computer computes the layers that do not stay in the memory,
        instead of loading them; None if all stay
    batches : seconds of several tokens at once, by name: `prefill` of one sequence, `sequences` of
        one token each; and how many they are
    """

    platform: Platform
    shape: ModelShape | None
    layers: list[LayerPlan]
    times: Times
    fits: str
    needed_bytes: int
    parts_s: dict[str, float]
    cpu: Cpu
    cpus: tuple[Cpu, ...]
    cpu_s: float
    context: int
    on_host_s: float | None
    batches: dict[str, tuple[int, float]]

    @property
    def token_s(self) -> float:
        """Seconds a token: the ternary layers, then what follows them."""
        return self.times.total_s + sum(self.parts_s[name] for name in _AFTER)

    @property
    def binds(self) -> str:
        """The part that takes longest; `memory` if RUN does, and mostly waits for weights."""
        part = max(self.parts_s, key=lambda name: self.parts_s[name])
        return "memory" if part == "engine" and self._memory_bound else part

    @property
    def roofline(self) -> float:
        """Share of RUN's cycles × the memory's width that useful weight bits take."""
        cycles = sum(each.cycles for each in self.layers)
        return sum(each.cycles * each.roofline for each in self.layers) / cycles

    @property
    def _memory_bound(self) -> bool:
        """Whether more of RUN's cycles go to the words than to anything else."""
        return self.roofline > 1 / 2

    def _rest_on_host(self) -> dict[str, Any] | None:
        """What does not stay in the memory, and a token's time if this computer computes it."""
        if self.on_host_s is None:
            return None
        rest = [(each.layer, each.layer.count - each.resident, each.words) for each in self.layers]
        return {
            "layers": sum(count for _, count, _ in rest),
            "weights": sum(
                count * layer.in_features * layer.out_features for layer, count, _ in rest
            ),
            "bytes": sum(
                count * stored_bytes(self.platform.config, words) for _, count, words in rest
            ),
            "token_s": round(self.on_host_s, 9),
            "tokens_per_second": _digits(1 / self.on_host_s),
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        config = self.platform.config
        return {
            "tokens_per_second": _digits(1 / self.token_s),
            "binds": self.binds,
            "cpu_tokens_per_second": _digits(1 / self.cpu_s),
            "faster": "platform" if self.token_s < self.cpu_s else "cpu",
            "fits": self.fits,
            "platform": self.platform.name,
            "model": None if self.shape is None else self.shape.name,
            "source": None if self.shape is None else self.shape.source,
            "context": self.context,
            "memory_bytes": self.platform.memory_bytes,
            "needed_bytes": self.needed_bytes,
            "token_s": round(self.token_s, 9),
            "parts_s": {name: round(value, 9) for name, value in self.parts_s.items()},
            "layers": [each.to_dict(config) for each in self.layers],
            "total": {
                "bytes": sum(
                    each.layer.count * stored_bytes(config, each.words) for each in self.layers
                ),
                "cycles": sum(each.cycles for each in self.layers),
                "share_of_roofline": round(self.roofline, 4),
                "seconds": round(self.times.total_s, 9),
            },
            **{
                name: {"tokens": count, "seconds": round(value, 9), "tokens_per_second": rate}
                for name, (count, value) in self.batches.items()
                for rate in [_digits(count / value)]
            },
            "rest_on_host": self._rest_on_host(),
            "cpu": self.cpu.to_dict(),
            "cpu_methods": [cpu.to_dict() for cpu in self.cpus],
            "config": config.to_dict(),
        }


_AFTER = ("attention", "head", "other")


def predict(
    platform: Platform,
    shape: ModelShape | None,
    layers: Sequence[Layer],
    stored: Sequence[Layer],
    *,
    context: int = 64,
    prefill: int = 128,
    sequences: int = 4,
    measure: Measure = measure_cpu,
    also: AlsoMeasure = lambda layers, tokens: None,
) -> Prediction:
    """Predict a model on a platform.

    Parameters
    ----------
    platform : where it runs
    shape : of the model; without it attention and head count as nothing
    layers, stored : the ternary layers that compute a token, and those that are stored, in the same
        order
    context : positions that attention reads for a token
    prefill, sequences : tokens of a prompt, and sequences that are computed together
    measure : times layers on this computer
    also : times the ternary layers in another way, `measure_onnx`

    Raises
    ------
    ConfigError : the platform cannot run such layers, or its memory gives no cycles
    """
    config = platform.config
    if config.alphabet != "ternary" or config.act_bits != 8:
        raise ConfigError(
            f"{platform.name}: ternary layers with 8-bit activations need another configuration"
        )
    plans, fits = _plans(platform, layers, stored, 1)
    times = _sum(plans)
    first, second = measure(layers, 1), also(layers, 1)
    cpus = (first,) if second is None else (first, second)
    cpu = min(cpus, key=lambda each: each.total_s)
    after = _after(platform, shape, context, measure)
    here = (
        _after(
            replace(platform, host_bytes_per_s=None, device_head=False, measured_s={}),
            shape,
            context,
            measure,
        )
        if _elsewhere(platform)
        else after
    )
    parts = times.parts_s | after
    on_host_s = _with_rest_on_host(platform, plans, measure)
    if on_host_s is not None:
        on_host_s += sum(after[name] for name in _AFTER)
    together = {}
    for name, count, reads in (
        ("prefill", prefill, context / 2),
        ("sequences", sequences, context),
    ):
        batch = _sum(_plans(platform, layers, stored, count)[0]).total_s
        scale = reads / context if context else 0.0
        rest = count * (after["attention"] * scale + after["other"])
        heads = 1 if name == "prefill" else count
        together[name] = (count, batch + rest + heads * after["head"])
    return Prediction(
        platform=platform,
        shape=shape,
        layers=plans,
        times=times,
        fits=fits,
        needed_bytes=sum(
            stored_bytes(config, layer.count * _words(config, layer)) for layer in stored
        ),
        parts_s=parts,
        cpu=cpu,
        cpus=cpus,
        cpu_s=cpu.total_s + here["attention"] + here["head"],
        context=context,
        on_host_s=on_host_s,
        batches=together,
    )


def _elsewhere(platform: Platform) -> bool:
    """Whether something besides the ternary layers is computed elsewhere than on this computer."""
    return bool(platform.host_bytes_per_s or platform.device_head or platform.measured_s)


def _plans(
    platform: Platform, layers: Sequence[Layer], stored: Sequence[Layer], tokens: int
) -> tuple[list[LayerPlan], str]:
    """The layers for some tokens at once, and how much of the model fits."""
    config = platform.config
    resident, free_words = resident_counts(config, stored)
    plans = []
    for layer, whole, stay in zip(layers, stored, resident, strict=True):
        # Of experts, those that compute a token are any; so many of them have to be loaded.
        loads = ceil(layer.count * (whole.count - stay) / whole.count)
        words = _words(config, layer)
        times = Times()
        for count, loading_words in ((layer.count - loads, None), (loads, free_words)):
            if count:
                times += _times(platform, layer, tokens, loading_words) * count
        batches = ceil(tokens / config.tokens)
        bits = weight_bits(config, layer.weights) * batches
        plans.append(
            LayerPlan(
                layer=layer,
                resident=layer.count - loads,
                words=words,
                cycles=times.run_cycles,
                roofline=bits / (times.run_cycles * platform.memory_bits),
                times=times,
            )
        )
    if all(stay == layer.count for stay, layer in zip(resident, stored, strict=True)):
        return plans, "all"
    return plans, "part" if any(resident) else "none"


def _times(platform: Platform, layer: Layer, tokens: int, loading_words: int | None) -> Times:
    """One layer of that shape for some tokens."""
    config = platform.config
    times = layer_times(
        config,
        layer.out_features,
        layer.in_features,
        tokens=tokens,
        host=platform.host,
        loading_words=loading_words,
    )
    if platform.linked or loading_words is not None:
        return times
    engine_s = times.run_cycles / config.clock_hz
    total_s = max(engine_s, times.commands * platform.host.command_s) + platform.host.call_s
    return replace(times, link_in_s=0.0, link_out_s=0.0, front_end_s=0.0, total_s=total_s)


def _with_rest_on_host(
    platform: Platform, plans: Sequence[LayerPlan], measure: Measure
) -> float | None:
    """Seconds of all layers for a token, if this computer computes those that do not stay."""
    rest = [
        replace(each.layer, count=each.layer.count - each.resident)
        for each in plans
        if each.resident < each.layer.count
    ]
    if not rest:
        return None
    stay = sum(
        (_times(platform, each.layer, 1, None) * each.resident).total_s
        for each in plans
        if each.resident
    )
    return stay + measure(rest, 1).total_s


def _sum(plans: Sequence[LayerPlan]) -> Times:
    total = Times()
    for plan in plans:
        total += plan.times
    return total


def _words(config: AcceleratorConfig, layer: Layer) -> int:
    """Weight words of one layer, in the pieces that the driver makes of it."""
    pieces = cut_layer(config, layer.out_features, layer.in_features)
    return sum(LayerShape.of(config, rows, columns).words for _, rows, _, columns in pieces)


def _after(
    platform: Platform, shape: ModelShape | None, context: int, measure: Measure
) -> dict[str, float]:
    """Seconds a token of what follows the ternary layers, by the names of `_AFTER`."""
    measured = platform.measured_s
    seconds = {name: measured.get(name, 0.0) for name in _AFTER}
    if shape is None:
        return seconds
    if "attention" not in measured and context:
        values = shape.cache_values(context)
        if platform.host_bytes_per_s:
            seconds["attention"] = CACHE_BYTES * values / platform.host_bytes_per_s
        else:
            width = shape.kv_heads * shape.head_size
            seconds["attention"] = measure(
                [Layer("attention", width, context, 2 * shape.layers)], 1
            ).total_s
    if "head" not in measured:
        if platform.device_head:
            seconds["head"] = _times(platform, shape.head, 1, None).total_s
        elif platform.host_bytes_per_s:
            seconds["head"] = CACHE_BYTES * shape.head.weights / platform.host_bytes_per_s
        else:
            seconds["head"] = measure([shape.head], 1).total_s
    return seconds


def _digits(rate: float) -> float:
    """A rate with six significant digits."""
    return float(f"{rate:.6g}")


assert set(_AFTER).isdisjoint(PARTS)
