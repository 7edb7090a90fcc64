"""The checks of every command, and the order in which a device makes them.

The command processor, the reference device, the benches, the manifest and the documentation read
`ALL_CHECKS`; of those, a device with a vector unit has `VECTOR_CHECKS`, and one with scales of
activations `SCALE_CHECKS`. A check compares one `Quantity` with
two bounds; the first check that fails gives the response its status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType

from tritloom.rtl.spec.commands import LAYER, Opcode, Request, Status, identity
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.quantities import LayerState, Quantity, Stage
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import STEP_BYTES

__all__ = [
    "ACTIVATION_WORDS",
    "ALL_CHECKS",
    "BANKS_END",
    "CHECKS",
    "IDENTITY_BYTES",
    "LAYERS_END",
    "MAX_RESULT_ROW_GROUPS",
    "MAX_ROW_GROUPS",
    "MAX_TILES",
    "MEMORY_WORDS",
    "OF_BLOCKS",
    "OF_GROUPS",
    "PAYLOAD_LIMIT",
    "PAYLOAD_RESULTS",
    "PAYLOAD_VECTOR_WORDS",
    "PAYLOAD_WORDS",
    "SCALE_CHECKS",
    "STEPS",
    "TOKENS",
    "TOKENS_END",
    "UNITS",
    "UNLIMITED",
    "VECTOR_CHECKS",
    "VECTOR_WORDS",
    "Bound",
    "Check",
    "Checker",
    "LayerState",
    "Limit",
    "Quantity",
    "Stage",
    "State",
    "check_table",
    "checks_of",
    "first_failure",
    "value_of",
]


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that follows from the configuration.

    Members
    -------
    text : how `check_table` shows it
    of : its value for a configuration
    """

    text: str
    of: Callable[[AcceleratorConfig], int]


Bound = int | Limit | Quantity
"""A number, a number of the configuration, or a number of the device's state."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: `least` ≤ `quantity` ≤ `most`; else the command fails with `status`."""

    stage: Stage
    quantity: Quantity
    least: Bound
    most: Bound
    status: Status

    def bounds(self, config: AcceleratorConfig, request: Request, state: State) -> tuple[int, int]:
        """The values of `least` and `most`."""
        return (
            _bound(self.least, config, request, state),
            _bound(self.most, config, request, state),
        )

    def __str__(self) -> str:
        if self.quantity == Quantity.LAYER_STATE:
            assert isinstance(self.least, int) and isinstance(self.most, int)
            states = range(self.least, self.most + 1)
            names = [LayerState(state).name.lower() for state in states]
            return f"{self.quantity} is {' or '.join(names)}"
        least, most = _bound_text(self.least), _bound_text(self.most)
        if least == most:
            return f"{self.quantity} = {least}"
        if self.most == UNLIMITED:
            return f"{self.quantity} ≥ {least}"
        return (
            f"{self.quantity} ≤ {most}" if least == "0" else f"{least} ≤ {self.quantity} ≤ {most}"
        )


@dataclass(slots=True, kw_only=True)
class State:
    """What the checks of one request read of the device: its layer `index`, its result bank, and of
    COMMIT_PROGRAM the steps that it would commit."""

    layer: LayerState = LayerState.UNDEFINED
    layer_words: int = 0
    layer_checksum: int = 0
    result_row_groups: int = 0
    void_words: bool = False
    not_finite: bool = False
    program_checksum: int = 0
    wrong_steps: bool = False
    open_layers: bool = False
    program_steps: int = 0


UNLIMITED = (1 << 32) - 1
"""The largest number of any field: a bound that nothing exceeds."""

IDENTITY_BYTES = Limit("bytes of the identity", lambda config: len(identity(config)))
LAYERS_END = Limit("max_layers - 1", lambda config: config.max_layers - 1)
TOKENS_END = Limit("tokens - 1", lambda config: config.tokens - 1)
TOKENS = Limit("tokens", lambda config: config.tokens)
MAX_TILES = Limit("max_tiles", lambda config: config.max_tiles)
MOST_GROUP_TILES = Limit("most_group_tiles", lambda config: config.most_group_tiles)
MAX_ROW_GROUPS = Limit("max_row_groups", lambda config: config.max_row_groups)
MAX_RESULT_ROW_GROUPS = Limit("result_row_groups", lambda config: config.result_row_groups)
MEMORY_WORDS = Limit("memory_words", lambda config: config.memory_words)
BANKS_END = Limit("banks - 1", lambda config: config.banks - 1)
ACTIVATION_WORDS = Limit("activation_words", lambda config: config.activation_words)
PAYLOAD_LIMIT = Limit("max_payload", lambda config: config.max_payload)
PAYLOAD_WORDS = Limit(
    "max_payload // word_bytes", lambda config: config.max_payload // config.word_bytes
)
PAYLOAD_RESULTS = Limit(
    "max_payload // acc_bytes", lambda config: config.max_payload // config.acc_bytes
)
VECTOR_WORDS = Limit(
    "vector words", lambda config: 0 if config.vector is None else config.vector.words
)
PAYLOAD_VECTOR_WORDS = Limit(
    f"max_payload // {VECTOR_WORD_BYTES}", lambda config: config.max_payload // VECTOR_WORD_BYTES
)
STEPS = Limit("vector steps", lambda config: 0 if config.vector is None else config.vector.steps)

UNITS: dict[int, Limit] = {
    Opcode.WRITE: Limit("word_bytes", lambda config: config.word_bytes),
    Opcode.LOAD: Limit("fill", lambda config: config.fill),
    Opcode.PUT: Limit(f"{VECTOR_WORD_BYTES}", lambda config: VECTOR_WORD_BYTES),
    Opcode.PROGRAM: Limit(f"{STEP_BYTES}", lambda config: STEP_BYTES),
    Opcode.SCALES: Limit(f"{FLOAT_BYTES}", lambda config: FLOAT_BYTES),
}
"""Bytes of a word in the payload of the commands that store words."""


def _payload(size: int) -> Check:
    return Check(Stage.HEADER, Quantity.PAYLOAD_BYTES, size, size, Status.BAD_LENGTH)


def _index(most: Limit) -> Check:
    return Check(Stage.HEADER, Quantity.INDEX, 0, most, Status.OUT_OF_RANGE)


def _bank(quantity: Quantity) -> Check:
    return Check(Stage.HEADER, quantity, 0, BANKS_END, Status.OUT_OF_RANGE)


def _count(most: Limit) -> Check:
    return Check(Stage.HEADER, Quantity.COUNT, 1, most, Status.BAD_LENGTH)


def _layer(least: LayerState, most: LayerState) -> Check:
    return Check(Stage.HEADER, Quantity.LAYER_STATE, least, most, Status.BAD_STATE)


def _within(stage: Stage, quantity: Quantity, most: Bound, least: int = 0) -> Check:
    return Check(stage, quantity, least, most, Status.OUT_OF_RANGE)


def _no_void(stage: Stage) -> Check:
    return Check(stage, Quantity.VOID_WORDS, 0, 0, Status.MEMORY_ERROR)


_WHOLE_WORDS = Check(Stage.END, Quantity.REST_BYTES, 0, 0, Status.BAD_LENGTH)

CHECKS: dict[Opcode, tuple[Check, ...]] = {
    Opcode.RESET: (),
    Opcode.IDENTIFY: (
        _payload(0),
        _count(PAYLOAD_LIMIT),
        _within(Stage.HEADER, Quantity.ITEMS_END, IDENTITY_BYTES),
    ),
    Opcode.DEFINE: (
        _payload(LAYER.size),
        _index(LAYERS_END),
        Check(Stage.HEADER, Quantity.GROUP_TILES, 0, MOST_GROUP_TILES, Status.BAD_LENGTH),
        _within(Stage.PAYLOAD, Quantity.BASE_REST, 0),
        _within(Stage.PAYLOAD, Quantity.TILES, MAX_TILES, least=1),
        _within(Stage.PAYLOAD, Quantity.ROW_GROUPS, MAX_ROW_GROUPS, least=1),
        _within(Stage.PAYLOAD, Quantity.MEMORY_END, MEMORY_WORDS),
        _within(Stage.PAYLOAD, Quantity.RESULTS_END, MAX_RESULT_ROW_GROUPS),
    ),
    Opcode.WRITE: (
        _index(LAYERS_END),
        _layer(LayerState.OPEN, LayerState.OPEN),
        _within(Stage.HEADER, Quantity.ADDRESS_REST, 0),
        _within(Stage.WORD, Quantity.WORDS_END, Quantity.LAYER_WORDS),
        _WHOLE_WORDS,
        Check(Stage.END, Quantity.REST_WORDS, 0, 0, Status.BAD_LENGTH),
    ),
    Opcode.READ: (
        _payload(0),
        _index(LAYERS_END),
        _count(PAYLOAD_WORDS),
        _layer(LayerState.OPEN, LayerState.COMMITTED),
        _within(Stage.HEADER, Quantity.ITEMS_END, Quantity.LAYER_WORDS),
        _no_void(Stage.END),
    ),
    Opcode.COMMIT: (
        _payload(0),
        _index(LAYERS_END),
        _layer(LayerState.OPEN, LayerState.OPEN),
        _no_void(Stage.END),
        Check(
            Stage.END,
            Quantity.ADDRESS,
            Quantity.LAYER_CHECKSUM,
            Quantity.LAYER_CHECKSUM,
            Status.BAD_CHECKSUM,
        ),
    ),
    Opcode.LOAD: (
        _index(TOKENS_END),
        _bank(Quantity.ACTIVATION_BANK),
        _within(Stage.WORD, Quantity.WORDS_END, ACTIVATION_WORDS),
        _WHOLE_WORDS,
    ),
    Opcode.RUN: (
        _payload(0),
        _index(LAYERS_END),
        _count(TOKENS),
        _bank(Quantity.ACTIVATION_BANK),
        _bank(Quantity.RESULT_BANK),
        _layer(LayerState.COMMITTED, LayerState.COMMITTED),
    ),
    Opcode.RESULTS: (
        _payload(0),
        _index(TOKENS_END),
        _count(PAYLOAD_RESULTS),
        _bank(Quantity.RESULT_BANK),
        Check(Stage.HEADER, Quantity.RESULT_ROW_GROUPS, 1, UNLIMITED, Status.BAD_STATE),
        _no_void(Stage.WORD),
        _within(Stage.WORD, Quantity.ROW_GROUPS_END, Quantity.RESULT_ROW_GROUPS),
    ),
    Opcode.COUNTERS: (_payload(0),),
}
"""The checks of each opcode, in the order in which they are made. Every device has these, but for
those of `OF_BLOCKS` and `OF_GROUPS`."""

OF_BLOCKS = (Quantity.ADDRESS_REST, Quantity.BASE_REST, Quantity.REST_WORDS)
"""Quantities that a device checks only if a block of its memory has several words."""

OF_GROUPS = (Quantity.GROUP_TILES, Quantity.RESULTS_END)
"""Quantities that a device checks only if its configuration has groups of inputs; the second one
only if their sums are its results."""

VECTOR_CHECKS: dict[Opcode, tuple[Check, ...]] = {
    Opcode.PUT: (
        _index(TOKENS_END),
        _within(Stage.WORD, Quantity.WORDS_END, VECTOR_WORDS),
        _WHOLE_WORDS,
    ),
    Opcode.GET: (
        _payload(0),
        _index(TOKENS_END),
        _count(PAYLOAD_VECTOR_WORDS),
        _within(Stage.HEADER, Quantity.ITEMS_END, VECTOR_WORDS),
        _no_void(Stage.HEADER),
        Check(Stage.HEADER, Quantity.NOT_FINITE, 0, 0, Status.NOT_FINITE),
    ),
    Opcode.PROGRAM: (_within(Stage.WORD, Quantity.WORDS_END, STEPS), _WHOLE_WORDS),
    Opcode.COMMIT_PROGRAM: (
        _payload(0),
        _count(STEPS),
        Check(
            Stage.END,
            Quantity.ADDRESS,
            Quantity.PROGRAM_CHECKSUM,
            Quantity.PROGRAM_CHECKSUM,
            Status.BAD_CHECKSUM,
        ),
        _within(Stage.END, Quantity.WRONG_STEPS, 0),
        Check(Stage.END, Quantity.OPEN_LAYERS, 0, 0, Status.BAD_STATE),
    ),
    Opcode.EXECUTE: (
        _payload(0),
        _index(TOKENS_END),
        _bank(Quantity.ACTIVATION_BANK),
        _bank(Quantity.RESULT_BANK),
        Check(Stage.HEADER, Quantity.PROGRAM_STEPS, 1, UNLIMITED, Status.BAD_STATE),
        Check(
            Stage.HEADER, Quantity.PROGRAM_STEPS, Quantity.STEP_END, UNLIMITED, Status.OUT_OF_RANGE
        ),
    ),
}
"""The checks of the opcodes of a vector unit."""

SCALE_CHECKS: dict[Opcode, tuple[Check, ...]] = {
    Opcode.SCALES: (
        _index(TOKENS_END),
        _bank(Quantity.ACTIVATION_BANK),
        _within(Stage.WORD, Quantity.WORDS_END, MAX_TILES),  # a group has a tile or more
        _WHOLE_WORDS,
    ),
}
"""The checks of the opcodes of a device with scales of activations."""

ALL_CHECKS = CHECKS | VECTOR_CHECKS | SCALE_CHECKS
"""The checks of all opcodes."""


def checks_of(config: AcceleratorConfig) -> Mapping[Opcode, tuple[Check, ...]]:
    """The checks of each opcode of a device; it refuses every other opcode."""
    left_out = (
        *(() if config.align > 1 else OF_BLOCKS),
        *(() if config.has_groups else (Quantity.GROUP_TILES,)),
        *(() if config.max_group_sums else (Quantity.RESULTS_END,)),
        *(() if config.memory.can_fail else (Quantity.VOID_WORDS,)),
    )
    has_unit = config.vector is not None
    return _checks_without(has_unit, config.scales_activations, left_out)


@cache
def _checks_without(
    has_unit: bool, has_scales: bool, left_out: tuple[Quantity, ...]
) -> Mapping[Opcode, tuple[Check, ...]]:
    all_checks = CHECKS | (VECTOR_CHECKS if has_unit else {}) | (SCALE_CHECKS if has_scales else {})
    return MappingProxyType(
        {
            opcode: tuple(check for check in checks if check.quantity not in left_out)
            for opcode, checks in all_checks.items()
        }
    )


def value_of(quantity: Quantity, config: AcceleratorConfig, request: Request, state: State) -> int:
    """The value of a quantity for a request in a state of the device.

    Raises
    ------
    struct.error
        The quantity is a field of DEFINE's payload, and the payload has another size.
    """
    return _VALUES[quantity](config, request, state)


def _words_end(config: AcceleratorConfig, request: Request, state: State) -> int:
    words = len(request.payload) // UNITS[request.opcode].of(config)
    return request.address + words if words else 0


def _rest_words(config: AcceleratorConfig, request: Request, state: State) -> int:
    end = request.address + len(request.payload) // config.word_bytes
    return 0 if end == state.layer_words else end % config.align


def _results_end(config: AcceleratorConfig, request: Request, state: State) -> int:
    _, tiles, row_groups = LAYER.unpack(request.payload)
    return LayerShape(tiles, row_groups, request.count).result_row_groups


def _memory_end(config: AcceleratorConfig, request: Request, state: State) -> int:
    base, tiles, row_groups = LAYER.unpack(request.payload)
    return int(base + tiles * row_groups)


_VALUES: dict[Quantity, Callable[[AcceleratorConfig, Request, State], int]] = {
    Quantity.PAYLOAD_BYTES: lambda config, request, state: len(request.payload),
    Quantity.INDEX: lambda config, request, state: request.index,
    Quantity.COUNT: lambda config, request, state: request.count,
    Quantity.ADDRESS: lambda config, request, state: request.address,
    Quantity.TILES: lambda config, request, state: LAYER.unpack(request.payload)[1],
    Quantity.ROW_GROUPS: lambda config, request, state: LAYER.unpack(request.payload)[2],
    Quantity.MEMORY_END: _memory_end,
    Quantity.GROUP_TILES: lambda config, request, state: request.count,
    Quantity.RESULTS_END: _results_end,
    Quantity.ITEMS_END: lambda config, request, state: request.address + request.count,
    Quantity.WORDS_END: _words_end,
    Quantity.ROW_GROUPS_END: lambda config, request, state: (
        request.address + -(-request.count // config.rows)
    ),
    Quantity.REST_BYTES: lambda config, request, state: (
        len(request.payload) % UNITS[request.opcode].of(config)
    ),
    Quantity.ADDRESS_REST: lambda config, request, state: request.address % config.align,
    Quantity.BASE_REST: lambda config, request, state: (
        LAYER.unpack(request.payload)[0] % config.align
    ),
    Quantity.REST_WORDS: _rest_words,
    Quantity.LAYER_STATE: lambda config, request, state: state.layer,
    Quantity.LAYER_WORDS: lambda config, request, state: state.layer_words,
    Quantity.LAYER_CHECKSUM: lambda config, request, state: state.layer_checksum,
    Quantity.ACTIVATION_BANK: lambda config, request, state: request.activation_bank,
    Quantity.RESULT_BANK: lambda config, request, state: request.result_bank,
    Quantity.RESULT_ROW_GROUPS: lambda config, request, state: state.result_row_groups,
    Quantity.VOID_WORDS: lambda config, request, state: state.void_words,
    Quantity.NOT_FINITE: lambda config, request, state: state.not_finite,
    Quantity.PROGRAM_CHECKSUM: lambda config, request, state: state.program_checksum,
    Quantity.WRONG_STEPS: lambda config, request, state: state.wrong_steps,
    Quantity.OPEN_LAYERS: lambda config, request, state: state.open_layers,
    Quantity.PROGRAM_STEPS: lambda config, request, state: state.program_steps,
    Quantity.STEP_END: lambda config, request, state: request.address + 1,
}
assert set(_VALUES) == set(Quantity)


def first_failure(config: AcceleratorConfig, request: Request, state: State) -> Check | None:
    """As `Checker.first_failure`, for the device of a configuration."""
    return _checker(config).first_failure(request, state)


class Checker:
    """The checks of a device. The bounds that follow from its configuration are numbers here.

    Parameters
    ----------
    config : the configuration of the device
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config

        def bounds(check: Check) -> tuple[int, int] | None:
            if isinstance(check.least, Quantity) or isinstance(check.most, Quantity):
                return None  # they follow from the state
            least, most = (
                bound.of(config) if isinstance(bound, Limit) else bound
                for bound in (check.least, check.most)
            )
            return least, most

        self._checks = {
            int(opcode): [(check, _VALUES[check.quantity], bounds(check)) for check in checks]
            for opcode, checks in checks_of(config).items()
        }

    def first_failure(self, request: Request, state: State) -> Check | None:
        """The first check of its opcode that a request fails, or `None` if it passes all of them.

        Parameters
        ----------
        request : a request whose opcode is in `checks_of`
        state : what the checks read of the device
        """
        config = self._config
        for check, value, bounds in self._checks[request.opcode]:
            least, most = bounds or check.bounds(config, request, state)
            if not least <= value(config, request, state) <= most:
                return check
        return None


_checker = lru_cache(maxsize=16)(Checker)


def check_table() -> str:
    """All checks as a Markdown table, one line a check."""
    lines = ["| opcode | must hold | else |", "|---|---|---|"]
    for opcode, checks in ALL_CHECKS.items():
        lines += [f"| {opcode.name} | {check} | {check.status.name} |" for check in checks]
    return "\n".join(lines) + "\n"


def _bound(bound: Bound, config: AcceleratorConfig, request: Request, state: State) -> int:
    if isinstance(bound, Limit):
        return bound.of(config)
    if isinstance(bound, Quantity):
        return value_of(bound, config, request, state)
    return bound


def _bound_text(bound: Bound) -> str:
    return bound.text if isinstance(bound, Limit) else str(bound)
