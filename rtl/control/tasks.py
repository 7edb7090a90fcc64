"""Tasks: what the command acceptor leaves to the responder, in the order of the responses."""

from amaranth.hdl import Shape, Value
from amaranth.lib import data, enum

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.commands import FIRST_SEQ, counters_of, identity
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = [
    "Kind",
    "first_slot",
    "has_response",
    "items_shape",
    "only_checksum",
    "position_shape",
    "task_layout",
]


class Kind(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What a task brings into the response of its command."""

    NOTHING = 0
    """The response is complete."""
    IDENTITY = 1
    COUNTERS = 2
    RESULTS = 3
    WORDS = 4
    """Weight words, which the memory has been asked for."""
    CHECKSUM = 5
    """Weight words too, but their checksum is all that is wanted, and there is no response yet."""
    VECTOR = 6
    """Words of the vector memory."""
    STEPS = 7
    """Steps of the program memory; as with CHECKSUM, their checksum is all that is wanted."""


def only_checksum(config: AcceleratorConfig, kind: Value) -> Value:
    """Whether a task of that kind makes a checksum and has no response."""
    checksum = kind == Kind.CHECKSUM
    return checksum if config.vector is None else checksum | (kind == Kind.STEPS)


def has_response(config: AcceleratorConfig, kind: Value) -> Value:
    """Whether a task of that kind has a response."""
    answered = kind != Kind.CHECKSUM
    return answered if config.vector is None else answered & (kind != Kind.STEPS)


def first_slot(config: AcceleratorConfig) -> int:
    """The slot of the response to the first command of a session."""
    return FIRST_SEQ % config.slots


def items_shape(config: AcceleratorConfig) -> Shape:
    """Unsigned shape of a number of bytes, counters, results, words or steps."""
    return bits_for(max(config.max_payload, config.memory_words, *_vector_limits(config)))


def position_shape(config: AcceleratorConfig) -> Shape:
    """Unsigned shape of the place of an item, with one bit more than any limit has."""
    places = (config.result_row_groups, len(identity(config)), len(counters_of(config)))
    return Shape(max(*places, *_vector_limits(config)).bit_length() + 1)


def _vector_limits(config: AcceleratorConfig) -> tuple[int, ...]:
    """Words and steps of the vector unit, if there is one."""
    return () if config.vector is None else (config.vector.words, config.vector.steps)


def task_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A task.

    Members
    -------
    kind : `Kind`
    items : identity bytes, counters, results, words or steps that are wanted, at least 1
    position : the first one, of RESULTS its row group; weight words need none
    token, bank : of RESULTS
    """
    return data.StructLayout(
        {
            "kind": Kind,
            "items": items_shape(config),
            "position": position_shape(config),
            "token": range(config.tokens),
            "bank": range(config.banks),
        }
    )
