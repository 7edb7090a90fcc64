"""How long a device takes for a layer or a token, with all that a user waits for.

One model for every figure that is printed: loading of weights, link, front end, engine, host. The
cycles are those of `tritloom.gen.plan.schedule`. The rest of a language model (attention, norms,
the head) is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from tritloom.gen.plan.schedule import Rectangle, loading_cycles, product_cycles
from tritloom.gen.workloads import Layer
from tritloom.host.allocator import cut_layer
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["HOST", "PARTS", "Host", "Times", "layer_times", "resident_counts", "token_times"]

PARTS = ("loading", "link in", "link out", "front end", "engine", "host")
"""What may bind, in the order in which it is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the driver takes of the host's CPU, in seconds.

    Members
    -------
    call_s : for a call, beside its commands
    command_s : for a command of a call
    """

    call_s: float
    command_s: float


HOST = Host(call_s=14.62e-6, command_s=3.69e-6)
"""As `tritloom measure host --json` measured it (docs/reference/speed/host.json): a command is
`cpu_us_per_command` at 8 slots, a call is `cpu_us_per_call` without its three commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What calls take. `+` adds two of them, `*` repeats one.

    The parts overlap: `total_s` is less than their sum. It is never less than the largest.

    Members
    -------
    tokens : tokens whose results are there at the end
    macs : useful multiply-accumulates
    calls, commands : of the driver; those that load weights are not counted
    bytes_in, bytes_out : bytes of whole packets to and from the device, without loading
    loading_bytes : bytes of the packets that load weights, both ways
    run_cycles : cycles of RUN
    total_s : seconds from the first call to the last result
    loading_s : of these, the loading of weights: layers that do not stay in the device
    link_in_s, link_out_s : in which the link is busy, in each direction, without loading
    front_end_s : in which the command processor is busy with anything but RUN, without loading
    engine_s : of RUN
    host_s : of the host's CPU
    """

    tokens: int = 0
    macs: int = 0
    calls: int = 0
    commands: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    loading_bytes: int = 0
    run_cycles: int = 0
    total_s: float = 0.0
    loading_s: float = 0.0
    link_in_s: float = 0.0
    link_out_s: float = 0.0
    front_end_s: float = 0.0
    engine_s: float = 0.0
    host_s: float = 0.0

    def __add__(self, other: Times) -> Times:
        return Times(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Times)}
        )

    def __mul__(self, number: int) -> Times:
        return Times(**{f.name: getattr(self, f.name) * number for f in fields(Times)})

    @property
    def parts_s(self) -> dict[str, float]:
        """Seconds of each part by its name, in the order of `PARTS`."""
        return {name: getattr(self, f"{name.replace(' ', '_')}_s") for name in PARTS}

    @property
    def bound(self) -> str:
        """The part that takes longest: the limit that binds."""
        parts = self.parts_s
        return max(parts, key=lambda name: parts[name])

    @property
    def tokens_per_s(self) -> float:
        """End to end."""
        return self.tokens / self.total_s

    @property
    def gmac_per_s(self) -> float:
        """End to end."""
        return self.macs / self.total_s / 1e9

    @property
    def gmac_per_s_run(self) -> float:
        """Of RUN alone."""
        return self.macs / self.engine_s / 1e9

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it, seconds to the nanosecond; end to end comes first."""
        return {
            "tokens_per_s": _digits(self.tokens_per_s),
            "gmac_per_s": _digits(self.gmac_per_s),
            "total_s": round(self.total_s, 9),
            "bound": self.bound,
            **{f"{name.replace(' ', '_')}_s": round(s, 9) for name, s in self.parts_s.items()},
            "gmac_per_s_run": _digits(self.gmac_per_s_run),
            **{f.name: getattr(self, f.name) for f in fields(Times) if f.type == "int"},
        }


def _digits(rate: float) -> float:
    """A rate with six significant digits, enough for any use."""
    return float(f"{rate:.6g}")


def _times(
    config: AcceleratorConfig,
    pieces: tuple[Rectangle, ...],
    tokens: int,
    host: Host,
    group: int,
    *,
    load: bool,
) -> Times:
    """One call of a layer, in these pieces; with `load` they are written first.

    The host makes packets while the device and the link work, so the longer of the two counts.
    """
    clock_hz = config.clock_hz
    call = product_cycles(config, pieces, tokens, group)
    commands_s = call.commands * host.command_s
    call_s = max(call.cycles / clock_hz, commands_s) + host.call_s
    loading_s, loading_bytes = 0.0, 0
    if load:
        loading_s = host.call_s
        for _, rows, _, columns in pieces:
            loading = loading_cycles(config, LayerShape.of(config, rows, columns, group))
            loading_s += max(loading.cycles / clock_hz, loading.commands * host.command_s)
            loading_bytes += loading.bytes_in + loading.bytes_out
    return Times(
        tokens=tokens,
        macs=tokens * sum(rows * columns for _, rows, _, columns in pieces),
        calls=1,
        commands=call.commands,
        bytes_in=call.bytes_in,
        bytes_out=call.bytes_out,
        loading_bytes=loading_bytes,
        run_cycles=call.engine,
        total_s=call_s + loading_s,
        loading_s=loading_s,
        link_in_s=call.link_in / clock_hz,
        link_out_s=call.link_out / clock_hz,
        front_end_s=call.front_end / clock_hz,
        engine_s=call.engine / clock_hz,
        host_s=commands_s + host.call_s,
    )


def layer_times(
    config: AcceleratorConfig,
    out_features: int,
    in_features: int,
    *,
    tokens: int = 1,
    host: Host = HOST,
    loading_words: int | None = None,
    group: int = 0,
) -> Times:
    """A layer, as the driver runs it.

    Parameters
    ----------
    config : of the device, with its link and clock
    out_features, in_features : of the layer
    tokens : tokens of the call
    host : what the driver takes
    loading_words : None if the weights are in the device. Else they are loaded first, into that
        many free words of the weight memory: as a whole if they fit, else piece by piece, each
        with a call of its own, with as many inputs as the device takes.
    group : inputs that have a sum of their own; 0: the whole row

    Raises
    ------
    ConfigError : the memory gives no bound on a run's cycles
    """
    words, slots = _needs(config, out_features, in_features, group)
    load = loading_words is not None
    if loading_words is None or (words <= loading_words and slots <= config.max_layers):
        pieces = tuple(cut_layer(config, out_features, in_features, group))
        return _times(config, pieces, tokens, host, group, load=load)
    least = 1
    widest = min(in_features, config.max_in_features)
    if group:
        widest = max(piece[3] for piece in cut_layer(config, 1, in_features, group))
        least = LayerShape.of(config, 1, group, group).tiles
    tiles = LayerShape.of(config, 1, widest, group).tiles
    tiles = min(tiles, max(loading_words, least))
    groups = max(1, loading_words // tiles)
    small = replace(
        config,
        max_in_features=min(config.max_in_features, tiles * config.lanes),
        max_out_features=min(config.max_out_features, groups * config.rows),
    )
    total = Times()
    for (rows, width), number in _pieces(small, out_features, in_features, group).items():
        total += _times(config, ((0, rows, 0, width),), tokens, host, group, load=True) * number
    return replace(total, tokens=tokens)


def _needs(
    config: AcceleratorConfig, out_features: int, in_features: int, group: int
) -> tuple[int, int]:
    """Weight words that a layer occupies, and its layer slots."""
    pieces = _pieces(config, out_features, in_features, group)
    words = [
        number * config.stored_words(LayerShape.of(config, rows, columns, group).words)
        for (rows, columns), number in pieces.items()
    ]
    return sum(words), pieces.total()


def _pieces(
    config: AcceleratorConfig, out_features: int, in_features: int, group: int = 0
) -> Counter[tuple[int, int]]:
    """How many pieces of each number of rows and columns `cut_layer` makes of a layer.

    Without groups it cuts rows and columns separately, so a layer in a million pieces needs no list
    of them.
    """
    if group:
        pieces = cut_layer(config, out_features, in_features, group)
        return Counter((rows, columns) for _, rows, _, columns in pieces)
    heights = Counter(piece[1] for piece in cut_layer(config, out_features, 1))
    widths = Counter(piece[3] for piece in cut_layer(config, 1, in_features))
    counts = Counter[tuple[int, int]]()
    for (rows, high), (columns, wide) in product(heights.items(), widths.items()):
        counts[rows, columns] += high * wide
    return counts


def resident_counts(config: AcceleratorConfig, layers: Sequence[Layer]) -> tuple[list[int], int]:
    """How many of each of the layers stay in the device, and the words that are left.

    If not all fit, the largest stay, as long as the rest of the memory holds the largest layer that
    does not stay: all others are loaded there, one after the other, for each call.
    """
    needs = [_needs(config, layer.out_features, layer.in_features, layer.group) for layer in layers]
    numbers = [layer.count for layer in layers]
    words, slots = config.memory_words, config.max_layers
    for need, number in zip(needs, numbers, strict=True):
        words, slots = words - need[0] * number, slots - need[1] * number
    if words >= 0 and slots >= 0:
        return numbers, words
    words, slots = config.memory_words, config.max_layers
    most_slots = max(need[1] for need in needs)
    counts = [0] * len(layers)
    order = [index for index, number in enumerate(numbers) for _ in range(number)]
    order.sort(key=lambda index: -needs[index][0])
    room = 0  # words of the largest layer that does not stay, once there is one
    for index, following in zip(order, [*order[1:], order[-1]], strict=True):
        need = needs[index]
        others = room or needs[following][0]
        if words - need[0] < others or slots - need[1] < most_slots:
            room = room or need[0]
        else:
            words, slots = words - need[0], slots - need[1]
            counts[index] += 1
    return counts, words


def token_times(
    config: AcceleratorConfig,
    layers: Sequence[Layer],
    *,
    tokens: int = 1,
    host: Host = HOST,
    holds_all: bool = False,
) -> Times:
    """The ternary layers of a model, one call each, for tokens that are computed together.

    Parameters
    ----------
    config : of the device, with its link and clock
    layers : of the model
    tokens : how many go through each layer in one call
    host : what the driver takes
    holds_all : the weight memory holds the whole model, whatever `config` says of it

    Raises
    ------
    ConfigError : the memory gives no bound on a run's cycles
    """
    counts, words = [layer.count for layer in layers], 0
    if not holds_all:
        counts, words = resident_counts(config, layers)
    total = Times()
    for layer, stay in zip(layers, counts, strict=True):
        for number, loading_words in ((stay, None), (layer.count - stay, words)):
            if number:
                each = layer_times(
                    config,
                    layer.out_features,
                    layer.in_features,
                    tokens=tokens,
                    host=host,
                    loading_words=loading_words,
                    group=layer.group,
                )
                total += each * number
    return replace(total, tokens=tokens)
