"""Measures how well weights stream from a memory outside the chip: RUNs on the simulated FPGA.

Each RUN is counted from the cycle after its packet's check to its last result. A RUN that waits
behind another one is counted from that one's last result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.gen.flow.tools import Progress
from tritloom.gen.plan.platform import memory_width
from tritloom.gen.plan.regions import with_offsets
from tritloom.gen.plan.shapes import SHAPES
from tritloom.gen.plan.stages import ARRIVE_CYCLES, DECIDE_CYCLES, RUN_CYCLES
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec import numerics, requests
from tritloom.rtl.spec.commands import HEADER_BYTES, Opcode, Request, Response, Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.errors import DeviceError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import (
    act_limits,
    pack_weights,
    unpack_results,
)
from tritloom.rtl.spec.plugins import engines, memories
from tritloom.sim.device.simulated import SimulatedDevice

__all__ = ["Product", "measure_outside", "outside_config", "products_of_layer"]

LANES, LANE_BITS, FILL = 40, 64, 5
"""The geometry for every shape: 40 lanes are 64 bits, and fill nearly all known layers; the rows
follow from the memory's width. The first tile is filled with 5 activations a cycle."""
MOST = (13824, 6912)
"""Outputs and inputs that the accelerator takes, and the layer that its memory holds, if no product
needs more. So one simulated FPGA serves many shapes."""
NARROW_LANES = 5
"""Lanes with a memory of less than 64 bits, where a word takes several cycles: with as many rows as
fill the word. Then the last tile of 6,912 inputs has 3 lanes without one, not 8."""
PACKET_BYTES, SLOTS = 2048, 8
LINK_BYTES = 8
LAYER_SLOTS = 16
PARTS = {"sdram": "ulx3s"}
"""The chip of each memory that has several."""
CLOCK_HZ = 100_000_000
SEED = 14
CHECK_CYCLES = 1
"""From the strobe that a packet is sound to the next cycle."""
BEHIND_CYCLES = 1
"""From a layer's last cycle to the first one of a RUN that waits."""
COMMAND_CYCLES = 4_000_000_000
"""Most cycles that a command may take: far more than any does."""

I8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Product:
    """A layer to compute for one token.

    Members
    -------
    out_features, in_features : its shape
    same_input : it reads the activations of the product before it
    """

    out_features: int
    in_features: int
    same_input: bool = False


def products_of_layer(model: str) -> list[Product]:
    """The products of one block of a known model, in the order of a token.

    Raises
    ------
    InputError : the model is not known, or has experts
    """
    if model not in SHAPES or SHAPES[model].experts > 1:
        known = ", ".join(name for name, shape in SHAPES.items() if shape.experts == 1)
        raise InputError(f"--layer must be one of {known}, not {model!r}")
    shape = SHAPES[model]
    hidden, q, kv = shape.hidden, *(n * shape.head_size for n in (shape.heads, shape.kv_heads))
    return [
        Product(q, hidden),
        Product(kv, hidden, same_input=True),
        Product(kv, hidden, same_input=True),
        Product(hidden, q),
        Product(shape.intermediate, hidden),
        Product(shape.intermediate, hidden, same_input=True),
        Product(hidden, shape.intermediate),
    ]


def outside_config(
    memory: str,
    options: Mapping[str, int | str],
    products: Sequence[Product],
    *,
    most: tuple[int, int] = MOST,
    clock_hz: int | None = None,
    packet_bytes: int | None = None,
    slots: int | None = None,
    link_bytes: int | None = None,
    banks: int | None = None,
    offsets: str | Sequence[int] | None = None,
    **geometry: int | str | None,
) -> AcceleratorConfig:
    """The accelerator to measure: its memory holds the products' weights, or a layer of `most`.

    Parameters
    ----------
    memory, options : name of the weight memory, and fields of its record beside `words`
    products : what is computed
    most : outputs and inputs that the accelerator takes at least
    clock_hz, packet_bytes, slots, link_bytes, banks : if not those of this module, and two banks
    offsets : of the ports' regions, see `with_offsets`; else one region follows the other
    geometry : fields of the configuration in place of those of this module

    Raises
    ------
    ConfigError : no such accelerator can be made
    """
    given = {name: value for name, value in geometry.items() if value is not None}
    width = int(options.get("width", LANE_BITS)) * int(options.get("ports", 1))
    wide = max(1, width // LANE_BITS)
    values: dict[str, Any] = {
        "engine": "select",
        "encoding": "base3x5",
        "lanes": LANES,
        "rows": wide,
        "fill": FILL,
        "max_in_features": max(most[1], *(product.in_features for product in products)),
        "max_out_features": max(most[0], *(product.out_features for product in products)),
        "max_layers": max(LAYER_SLOTS, len(products)),
        "banks": banks or 2,
        "packet_bytes": packet_bytes or PACKET_BYTES,
        "slots": slots or SLOTS,
        "clock_hz": clock_hz or CLOCK_HZ,
        "link": {"kind": PacketStream.name, "width": link_bytes or LINK_BYTES},
        **given,
    }
    record = {"kind": memory, **options}
    config = AcceleratorConfig.from_dict(values | {"memory": record | {"words": 1 << 12}})
    if not {"lanes", "rows"} & set(given):
        if engines[config.engine].tile_cycles(config) > LANES:
            # The engine fills tables. With one row, the most row groups pass while it does.
            config = replace(config, lanes=LANES * wide, rows=1)
        elif memory_width(config) < LANE_BITS:
            config = replace(config, lanes=NARROW_LANES, rows=LANES // NARROW_LANES)
    shapes = [(product.out_features, product.in_features) for product in products]
    words = sum(config.stored_words(LayerShape.of(config, *shape).words) for shape in shapes)
    words = max(words, config.stored_words(LayerShape.of(config, *most).words))
    config = config.with_words(words)
    return config if offsets is None else with_offsets(config, offsets)


class _Host:
    """Sends requests in order, as many as the window takes, and gives their responses."""

    def __init__(self, transport: SimulatedDevice, config: AcceleratorConfig) -> None:
        self._transport = transport
        self._config = config
        self._seq = 0
        self.packets = 0  # sent so far
        self._exchange([Request(Opcode.RESET, session=1)])

    def send(self, several: Sequence[Request]) -> list[Response]:
        """The responses to requests, all OK."""
        for request in several:
            self._seq = (self._seq + 1) & 0xFFFF
            request.seq, request.session = self._seq, 1
        return self._exchange(several)

    def _exchange(self, several: Sequence[Request]) -> list[Response]:
        responses: list[Response] = []
        sent = 0
        while len(responses) < len(several):
            while sent < len(several) and sent - len(responses) < self._config.window:
                self._transport.send(several[sent].pack())
                sent += 1
            packet = self._transport.receive(COMMAND_CYCLES / self._config.clock_hz)
            response = None if packet is None else Response.parse(packet)
            if response is None or response.status != Status.OK:
                what = "nothing" if response is None else Status(response.status).name
                opcode = Opcode(several[len(responses)].opcode).name
                raise DeviceError(f"the simulated device responds to {opcode} with {what}")
            responses.append(response)
        self.packets += len(several)
        return responses


def measure_outside(
    config: AcceleratorConfig,
    products: Sequence[Product],
    *,
    model: Mapping[str, Any] | None = None,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Compute products, each in a RUN, all queued one behind the other.

    Parameters
    ----------
    config : of the accelerator, whose link is a packet stream; each product fits it as a whole
    products : in their order
    model : options of the model of the memory's chip

    Returns
    -------
    dict[str, Any]
        `cycles`, from the cycle after the first RUN's check to the last result; `cycles_formula`,
        or None if the memory may stall; `weight_bits`, of the weights without padding;
        `utilization`, these ÷ (cycles × the memory's width); `bits_per_weight`, as stored;
        `exact`; the same of each RUN as `runs`; and what was measured.

    Raises
    ------
    InputError : the link is no packet stream, or a RUN would compute several tokens
    DeviceError : the device refuses a command or stops responding
    """
    if not isinstance(config.link, PacketStream):
        raise InputError('link must be a packet stream; give "link": {"kind": "stream"}')
    if config.tokens != 1:
        raise InputError(f"tokens must be 1 to measure a stream, not {config.tokens}")
    random = np.random.default_rng(SEED)
    alphabet = np.array(ALPHABETS[config.alphabet], np.int8)
    least, most = act_limits(config)
    progress("the simulated FPGA is made")
    transport = SimulatedDevice(config, memory_model=model, marks=True)
    host = _Host(transport, config)
    weights: list[I8] = []
    codes: list[I8] = []
    base = 0
    for index, product in enumerate(products):
        progress(f"layer {index + 1} of {len(products)} is loaded")
        trits = random.choice(alphabet, (product.out_features, product.in_features))
        weights.append(trits)
        fresh = random.integers(least, most + 1, product.in_features).astype(np.int8)
        codes.append(codes[-1] if product.same_input else fresh)
        base += _load(transport, host, config, index, base, trits)
    progress("the products are computed")
    several, runs = _commands(config, products, codes)
    before = host.packets
    # The first RUN comes when its activations are there, so it waits for nothing but its words.
    responses = host.send(several[: runs[0]]) + host.send(several[runs[0] :])
    good, _, last = transport.marks()
    transport.close()
    checks = [good[before + number] for number in runs]
    ends = last[-len(products) :]
    begins = [max(pair) for pair in zip(checks, [0, *ends[:-1]], strict=True)]
    spans = [end - begin for begin, end in zip(begins, ends, strict=True)]
    exact = _sums_are_right(config, products, several, responses, weights, codes)
    return _figures(config, products, spans, ends[-1] - checks[0], model or {}, exact)


def _load(
    transport: SimulatedDevice,
    host: _Host,
    config: AcceleratorConfig,
    index: int,
    base: int,
    trits: I8,
) -> int:
    """Load a layer at a word; gives the words that it takes.

    Where the memory's chip has a model, the words are put into it: loading is not measured, and
    takes most of the simulation's time. COMMIT reads and checks them all the same.
    """
    shape = LayerShape.of(config, *trits.shape)
    image = pack_weights(config, trits)
    host.send([requests.define_layer(index, base, shape)])
    if transport.holds_lines:
        transport.write_words(base, image)
    else:
        host.send(list(requests.write_words(config, index, image, config.max_payload)))
    host.send([requests.commit_layer(index, image)])
    return config.stored_words(shape.words)


def _commands(
    config: AcceleratorConfig, products: Sequence[Product], codes: Sequence[I8]
) -> tuple[list[Request], list[int]]:
    """The commands of all products, and the places of their RUNs.

    The results of a RUN are read behind the next RUN, as the driver does it.
    """
    several: list[Request] = []
    runs: list[int] = []
    delayed: list[Request] = []
    activations = 0
    for index, (product, tokens) in enumerate(zip(products, codes, strict=True)):
        if not product.same_input:
            activations = (activations + 1) % config.banks
            several += requests.load_activations(config, 0, tokens, config.max_payload, activations)
        runs.append(len(several))
        results = index % config.banks
        several += [requests.run_layer(index, 1, activations, results), *delayed]
        rows = product.out_features
        delayed = list(requests.read_results(config, 0, rows, config.max_payload, results))
        if config.banks == 1:
            several, delayed = several + delayed, []
    return several + delayed, runs


def _sums_are_right(
    config: AcceleratorConfig,
    products: Sequence[Product],
    several: Sequence[Request],
    responses: Sequence[Response],
    weights: Sequence[I8],
    codes: Sequence[I8],
) -> bool:
    """Whether the results of each RUN are those of the golden model."""
    numbers = np.concatenate(
        [
            unpack_results(config, response.payload)
            for request, response in zip(several, responses, strict=True)
            if request.opcode == Opcode.RESULTS
        ]
    )
    right = [
        numerics.matmul(trits, tokens[np.newaxis])[0]
        for trits, tokens in zip(weights, codes, strict=True)
    ]
    return bool(np.array_equal(numbers, np.concatenate(right)))


def formula(config: AcceleratorConfig, product: Product, latency: int, *, behind: bool) -> int:
    """Cycles of a product with a memory that never stalls, as `measure_outside` counts them.

    Parameters
    ----------
    config : of the accelerator
    product : which one
    latency : cycles from a range to its first word
    behind : the RUN waits behind another one, and so do its first words
    """
    shape = LayerShape.of(config, product.out_features, product.in_features)
    if behind and config.asks_ahead:
        return BEHIND_CYCLES + config.run_cycles_with(shape, 0)
    if behind:
        return BEHIND_CYCLES + RUN_CYCLES + config.run_cycles_with(shape, latency)
    accept = ARRIVE_CYCLES + HEADER_BYTES + DECIDE_CYCLES + RUN_CYCLES - CHECK_CYCLES
    return accept + config.run_cycles_with(shape, latency)


def first_word_cycles(config: AcceleratorConfig, model: Mapping[str, Any]) -> int | None:
    """Cycles from a range to its first word, None if words may come later than one a cycle."""
    latency = config.memory.latency(config)
    pauses = any(model.get(name, False) for name in ("stalls", "dram"))
    if latency is None and not pauses and "latency" in model:
        return config.memory.modelled_latency(config, int(model["latency"]))
    return latency


def _figures(
    config: AcceleratorConfig,
    products: Sequence[Product],
    spans: Sequence[int],
    cycles: int,
    model: Mapping[str, Any],
    exact: bool,
) -> dict[str, Any]:
    """What `measure_outside` returns."""
    encoding = encodings[config.encoding]
    trit_bits = encoding.code_bits / encoding.trits_per_code
    width = memory_width(config)
    latency = first_word_cycles(config, model)
    runs: list[dict[str, Any]] = []
    for number, (product, span) in enumerate(zip(products, spans, strict=True)):
        weights = product.out_features * product.in_features
        words = LayerShape.of(config, product.out_features, product.in_features).words
        behind = number > 0
        predicted = None if latency is None else formula(config, product, latency, behind=behind)
        runs.append(
            {
                "out_features": product.out_features,
                "in_features": product.in_features,
                "cycles": span,
                "cycles_formula": predicted,
                "weight_bits": round(weights * trit_bits),
                "utilization": round(weights * trit_bits / (span * width), 5),
                "stored_bits": config.stored_words(words) * config.word_bits,
            }
        )
    weights = sum(product.out_features * product.in_features for product in products)
    formulas = [run["cycles_formula"] for run in runs]
    return {
        "cycles": cycles,
        "cycles_formula": None if None in formulas else sum(formulas),
        "weight_bits": round(weights * trit_bits),
        "utilization": round(weights * trit_bits / (cycles * width), 5),
        "bits_per_weight": round(sum(run.pop("stored_bits") for run in runs) / weights, 5),
        "exact": exact,
        "width_bits": width,
        "runs": runs,
        "mac_per_cycle": round(weights / cycles, 2),
        "mac_per_cycle_peak": config.macs_per_cycle,
        "model": dict(model),
        "config": config.to_dict(),
    }


def record_options(memory: str, **options: int | str | None) -> dict[str, int | str]:
    """Fields of a memory's record from options that are given.

    A latency is a field only of a memory whose buffers are sized for it; else its model alone has
    it.

    Raises
    ------
    InputError : the memory has no such field
    """
    record = memories[memory]
    known = {f.name for f in fields(record)}
    given = {name: value for name, value in options.items() if value is not None}
    latency = given.pop("latency", None)
    if latency is not None and "latency_cycles" in known:
        given["latency_cycles"] = latency
    for name in given:
        if name not in known:
            raise InputError(f"memory {memory} has no {name}")
    if "part" in known and "part" not in given:
        given["part"] = PARTS[memory]
    return given
