"""The steps of a product: which commands there are, in their order, and where their sums belong.

All of this follows from sizes and banks alone. So it is planned once for all products of the same
sizes, and a product adds what differs: the payloads of LOAD and SCALES, and the numbers of the
layer's pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritloom.host.allocator import Piece, cut_layer
from tritloom.host.command import Command
from tritloom.host.requests import most_run_cycles
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations

__all__ = ["Place", "Plan", "Step", "plan_product"]

PLANS = 64
"""Plans that are kept: a model has few sizes of layers."""
KEPT_TOKENS = 64
"""The plan of more tokens is large, and few products share it, so it is not kept."""


class Place(NamedTuple):
    """Where the numbers of a RESULTS command belong in the sums.

    Members
    -------
    token, row : of the first number. With groups of inputs `row` counts the sums of a piece: those
        of the first group, up to whole row groups, then those of the second, and so on
    first_of_run : the first RESULTS of a RUN brings the cycles of the RUN
    piece : which of the layer's pieces the RUN computed
    """

    token: int
    row: int
    first_of_run: bool
    piece: int


@dataclass(slots=True, kw_only=True)
class Step:
    """A command of a product.

    Members
    -------
    request : of the command; RUN without the layer's number, LOAD and SCALES without their payload
    load_bytes : payload of LOAD or SCALES; 0 for another command
    piece : which of the layer's pieces RUN computes; None for another command
    place : where the numbers of RESULTS belong; None for another command
    response_bytes, cycles : as in `Command`
    """

    request: Request
    load_bytes: int = 0
    piece: int | None = None
    place: Place | None = None
    response_bytes: int = 0
    cycles: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a product. Nobody changes them, because products share them.

    Members
    -------
    config : of the device
    steps : in the order in which they are sent
    columns : first column, and the column after the last, of each vector that is loaded for a token
    groups : scales that are loaded with each of these vectors; 0 on a device that takes none
    activation_bank, result_bank : the banks that are used last
    group : inputs that have a sum of their own, or 0
    loaded : no step loads activations
    """

    config: AcceleratorConfig
    steps: tuple[Step, ...]
    columns: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    activation_bank: int
    result_bank: int
    group: int
    loaded: bool

    def leaves_all(self, tokens: int) -> bool:
        """Whether all activations of the product are in its last bank when it has run.

        A product with the same codes, groups and scales can then use them.
        """
        return len(self.columns) == 1 and tokens <= self.config.tokens

    def commands(
        self,
        pieces: tuple[Piece, ...],
        codes: NDArray[np.int8],
        scales: NDArray[np.float32] | None = None,
    ) -> list[Command]:
        """The commands of a product of a layer with codes, int8 `[tokens, in_features]`.

        Only a device that takes scales of activations gets `scales`, float32 `[tokens, groups]`;
        None: they are 1.
        """
        image = b"" if self.loaded else self._image(codes, scales)
        start = 0
        commands = []
        for step in self.steps:
            request = step.request
            end = start + step.load_bytes
            commands.append(
                Command(
                    opcode=request.opcode,  # type: ignore[arg-type] # no other number is planned
                    index=request.index if step.piece is None else pieces[step.piece].index,
                    count=request.count,
                    address=request.address,
                    payload=image[start:end],
                    activation_bank=request.activation_bank,
                    result_bank=request.result_bank,
                    response_bytes=step.response_bytes,
                    cycles=step.cycles,
                )
            )
            start = end
        return commands

    def _image(self, codes: NDArray[np.int8], scales: NDArray[np.float32] | None) -> bytes:
        """The payloads of all LOADs and SCALES, one after the other."""
        config = self.config
        parts = []
        for start in range(0, len(codes), config.tokens):
            for (first, last), groups in zip(self.columns, self.groups, strict=True):
                for token, row in enumerate(codes[start : start + config.tokens], start):
                    parts.append(pack_activations(config, row[first:last], self.group))
                    if groups:
                        of_token = np.ones(groups) if scales is None else scales[token]
                        parts.append(of_token.astype("<f4").tobytes())
        return b"".join(parts)


def plan_product(
    config: AcceleratorConfig,
    out_features: int,
    in_features: int,
    tokens: int,
    payload_bytes: int,
    activation_bank: int,
    result_bank: int,
    group: int = 0,
    loaded: bool = False,
) -> Plan:
    """The plan of a product.

    As many tokens as the device takes are computed at once. The activations of a token are loaded
    once for all pieces of the layer that need the same ones.

    New activations go into the next bank, and so do the results of each RUN. So the device can load
    and read one bank while it computes with the other. With two banks, the results of a RUN are
    read only after the next RUN, so that no command of the window waits for them while the core has
    nothing to do. The first RESULTS comes before that RUN: then the device has something to copy
    while it takes the RUN.

    Parameters
    ----------
    config : of the device
    out_features, in_features : of the layer
    tokens : of the product
    payload_bytes : payload of a packet, at most
    activation_bank, result_bank : the banks that were used last before the product
    group : inputs that have a sum of their own; 0: a row has one sum
    loaded : the activations are in the bank that was used last, and are not loaded again; see
        `Plan.leaves_all`
    """
    make = _kept_plan if tokens <= KEPT_TOKENS else _plan
    banks = (activation_bank, result_bank)
    return make(config, out_features, in_features, tokens, payload_bytes, *banks, group, loaded)


def _plan(
    config: AcceleratorConfig,
    out_features: int,
    in_features: int,
    tokens: int,
    payload_bytes: int,
    activation_bank: int,
    result_bank: int,
    group: int,
    loaded: bool,
) -> Plan:
    rectangles = cut_layer(config, out_features, in_features, group)
    shapes = [LayerShape.of(config, rows, columns, group) for _, rows, _, columns in rectangles]
    run_cycles = [most_run_cycles(config, shape) for shape in shapes]
    steps: list[Step] = []
    delayed: list[Step] = []  # RESULTS of the last RUN
    delayed_cycles = 0  # of that RUN
    for start in range(0, tokens, config.tokens):
        batch = range(start, min(start + config.tokens, tokens))
        loaded_column = rectangles[0][2] if loaded else None
        for number, (row, rows, column, columns) in enumerate(rectangles):
            if column != loaded_column:
                loaded_column = column
                activation_bank = (activation_bank + 1) % config.banks
                groups = requests.count_scales(config, shapes[number])
                vector = (columns, group, groups)
                steps += _loads(config, len(batch), *vector, payload_bytes, activation_bank)
            result_bank = (result_bank + 1) % config.banks
            run = Step(
                request=requests.run_layer(0, len(batch), activation_bank, result_bank),
                piece=number,
                cycles=run_cycles[number],
            )
            steps += [*delayed[:1], run, *delayed[1:]]
            # Sums of groups have rows of their own; the last group's sums may end within its rows.
            of_groups = group and config.scale is None
            groups_before = shapes[number].groups - 1 if of_groups else 0
            before = groups_before * shapes[number].row_groups * config.rows
            place = Place(0, 0 if of_groups else row, False, number)
            delayed = _results(config, batch, place, before + rows, payload_bytes, result_bank)
            delayed[0].cycles = run.cycles  # the device accepts RUN at once and waits here
            # RUN waits for the one before, most of whose RESULTS come later.
            run.cycles, delayed_cycles = run.cycles + delayed_cycles, run.cycles
            if config.banks == 1:
                steps += delayed
                delayed, delayed_cycles = [], 0
    vectors = {
        (column, column + columns): requests.count_scales(config, shape)
        for (_, _, column, columns), shape in zip(rectangles, shapes, strict=True)
    }
    return Plan(
        config=config,
        steps=(*steps, *delayed),
        columns=tuple(vectors),
        groups=tuple(vectors.values()),
        activation_bank=activation_bank,
        result_bank=result_bank,
        group=group,
        loaded=loaded,
    )


_kept_plan = lru_cache(maxsize=PLANS)(_plan)


def _loads(
    config: AcceleratorConfig,
    tokens: int,
    columns: int,
    group: int,
    groups: int,
    payload_bytes: int,
    bank: int,
) -> list[Step]:
    """The LOADs of some activations of each token, and the SCALES of their groups."""
    codes, scales = np.zeros(columns, np.int8), np.zeros(groups, np.float32)
    steps = []
    for token in range(tokens):
        for request in (
            *requests.load_activations(config, token, codes, payload_bytes, bank, group),
            *requests.load_scales(token, scales, payload_bytes, bank),
        ):
            steps.append(Step(request=request, load_bytes=len(request.payload)))
            request.payload = b""
    return steps


def _results(
    config: AcceleratorConfig,
    batch: range,
    first: Place,
    rows: int,
    payload_bytes: int,
    bank: int,
) -> list[Step]:
    """The RESULTS of a RUN that computes some rows, from `first` on, for the tokens of a batch."""
    steps: list[Step] = []
    for number, token in enumerate(batch):
        for request in requests.read_results(config, number, rows, payload_bytes, bank):
            row = first.row + request.address * config.rows
            size = requests.response_bytes(config, request)
            place = Place(token, row, first_of_run=not steps, piece=first.piece)
            steps.append(Step(request=request, response_bytes=size, place=place))
    return steps
