"""The checks of `Stage.HEADER` in hardware: order, bounds and status come from `ALL_CHECKS`."""

from typing import Any

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import data

from tritloom.rtl.spec.checks import (
    ALL_CHECKS,
    IDENTITY_BYTES,
    UNLIMITED,
    VECTOR_WORDS,
    Bound,
    Check,
    LayerState,
    Limit,
    Quantity,
    Stage,
    checks_of,
)
from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["HeaderChecks", "rest_of_block", "status_of"]


class HeaderChecks:
    """What is known of a request when its header has come and its layer's entry is read.

    An addition and a comparison of addresses take a cycle each. The user calls `add` in one state
    and `compare` in the next; `failures` is valid in the state after that.

    Parameters
    ----------
    m : module that the logic is added to
    config : the accelerator's configuration
    request : the request's header, `REQUEST`
    left : bytes of the request's payload; none is taken yet
    position : the request's address, or the highest number if it does not fit
    items : the request's count
    entry : the entry of the layer `index`
    has_results : the request's result bank holds results of this session
    program : what is known of the vector unit's programs, if there is a unit: `not_finite`, `void`,
        and the number of committed `steps`
    """

    def __init__(
        self,
        m: Module,
        config: AcceleratorConfig,
        request: data.View,
        left: Value,
        position: Signal,
        items: Signal,
        entry: data.View,
        has_results: Value,
        program: Any = None,
    ) -> None:
        self._m = m
        self._config = config
        self._request = request
        self._left = left
        self._position = position
        self._items = items
        self._entry = entry
        self._has_results = has_results
        self._program = program
        self._items_end = Signal(max(len(position), len(items)) + 1, name="items_end")
        self._is_open = Signal(name="is_open")
        self._beyond_layer = Signal(name="beyond_layer")
        self._beyond_identity = Signal(name="beyond_identity")
        self._beyond_vector = Signal(name="beyond_vector")

    def add(self) -> None:
        """Add address and count."""
        self._m.d.sync += self._items_end.eq(self._position + self._items)

    def compare(self) -> None:
        """Compare the sum with its bounds; the table's memory is slow, so its state is kept too."""
        entry = self._entry
        self._m.d.sync += [
            self._is_open.eq(entry.defined & ~entry.committed),
            self._beyond_layer.eq(self._items_end > entry.words),
            self._beyond_identity.eq(self._items_end > self._limit(IDENTITY_BYTES)),
        ]
        if self._config.vector is not None:
            end = self._limit(VECTOR_WORDS)
            self._m.d.sync += self._beyond_vector.eq(self._items_end > end)

    def failures(self, opcode: Opcode) -> list[tuple[Value, Status]]:
        """Conditions under which a command fails, and its status then; the first one counts."""
        return [
            (self._violated(check), check.status)
            for check in checks_of(self._config)[opcode]
            if check.stage == Stage.HEADER
        ]

    def _limit(self, bound: Bound) -> int:
        """The value of a bound that the configuration states."""
        assert isinstance(bound, Limit)
        return bound.of(self._config)

    def _violated(self, check: Check) -> Value:
        match check.quantity, check.least, check.most:
            case Quantity.PAYLOAD_BYTES, size, most if size == most:
                return self._left != size
            case Quantity.INDEX, 0, most:
                return _above(self._request.index, self._limit(most))
            case Quantity.ACTIVATION_BANK, 0, most:
                return _above(self._request.activation_bank, self._limit(most))
            case Quantity.RESULT_BANK, 0, most:
                return _above(self._request.result_bank, self._limit(most))
            case Quantity.COUNT, 1, most:
                return (self._items == 0) | (self._items > self._limit(most))
            case Quantity.GROUP_TILES, 0, most:
                return _above(self._request.count, self._limit(most))
            case Quantity.LAYER_STATE, LayerState.OPEN, LayerState.OPEN:
                return ~self._is_open
            case Quantity.LAYER_STATE, LayerState.OPEN, LayerState.COMMITTED:
                return ~self._entry.defined
            case Quantity.LAYER_STATE, LayerState.COMMITTED, LayerState.COMMITTED:
                return ~(self._entry.defined & self._entry.committed)
            case Quantity.ADDRESS_REST, 0, 0:
                return rest_of_block(self._config, self._request.address).any()
            case Quantity.ITEMS_END, 0, Quantity.LAYER_WORDS:
                return self._beyond_layer
            case Quantity.ITEMS_END, 0, bound if bound is IDENTITY_BYTES:
                return self._beyond_identity
            case Quantity.ITEMS_END, 0, bound if bound is VECTOR_WORDS:
                return self._beyond_vector
            case Quantity.VOID_WORDS, 0, 0:
                return self._program.void
            case Quantity.NOT_FINITE, 0, 0:
                return self._program.not_finite
            case Quantity.PROGRAM_STEPS, 1, most if most == UNLIMITED:
                return self._program.steps == 0
            case Quantity.PROGRAM_STEPS, Quantity.STEP_END, most if most == UNLIMITED:
                return self._position >= self._program.steps
            case Quantity.RESULT_ROW_GROUPS, 1, _:
                return ~self._has_results
        raise NotImplementedError(f"the processor cannot make the check {check}")


def _above(field: Value, most: int) -> Value:
    """Whether a field is above a limit; never if the field has no such number."""
    return field >= most + 1 if most + 1 < 1 << len(field) else Const(0)


def rest_of_block(config: AcceleratorConfig, words: Value) -> Value:
    """A number of words beyond whole blocks; a block has a power of two of them."""
    return words[: config.align.bit_length() - 1]


def status_of(opcode: Opcode, quantity: Quantity) -> Status:
    """The status of a command that fails its check of `quantity`, at any stage."""
    checks = ALL_CHECKS[opcode]
    return next(check.status for check in checks if check.quantity == quantity)
