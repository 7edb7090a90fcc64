"""The responses that a device owes, in their order.

A device sends no response to a duplicate whose first response it has not stored yet. A bench cannot
see when a response is stored. So while the first response has not arrived, the one to a duplicate
is optional: it may come in its turn, or never.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.sim.verify.pairs import Pair, banks_read

__all__ = ["Expected", "Responses", "describe", "difference", "name_of"]

NOT_STORED = (Status.NAK, Status.NO_SESSION)
"""The status of commands that are not executed, so their response is not stored."""


@dataclass(slots=True)
class Expected:
    """A response that the reference device gave.

    Members
    -------
    request, response : what was sent, and the right packet that answers it
    number : of the response among all that the reference device gave, from 0
    optional : the device may also send nothing
    pair : what the command and the one before it are; `None` if they do not overlap
    sent_cycle : cycle in which the device took the last byte of the request
    """

    request: Request
    response: bytes
    number: int
    optional: bool = False
    pair: Pair | None = None
    sent_cycle: int = 0
    _key: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._key = _key(Response.parse(self.response))

    def fits(self, response: Response | None) -> bool:
        """Whether a response is one to this request, right or wrong."""
        return _key(response) == self._key


class Responses:
    """The queue of all responses that have not come."""

    def __init__(self) -> None:
        self._owed: deque[Expected] = deque()
        self._count = 0

    def __len__(self) -> int:
        """Responses that may come."""
        return len(self._owed)

    @property
    def due(self) -> int:
        """Responses that must come."""
        return sum(not expected.optional for expected in self._owed)

    @property
    def first(self) -> Expected | None:
        """The response that must come next; if none must, the one that may."""
        must = (expected for expected in self._owed if not expected.optional)
        return next(must, self._owed[0] if self._owed else None)

    @property
    def last(self) -> Expected | None:
        """The response to the last packet that has one."""
        return self._owed[-1] if self._owed else None

    def has(self, opcode: Opcode) -> bool:
        """Whether the response to a command of an opcode has not come."""
        return any(expected.request.opcode == opcode for expected in self._owed)

    def add(self, packet: bytes, response: bytes | None, pair: Pair | None = None) -> None:
        """Add what the reference device responds to the next packet, if it does."""
        request = Request.parse(packet)
        if response is None or request is None:
            return
        optional = self._duplicates(response)
        self._owed.append(Expected(request, response, self._count, optional, pair))
        self._count += 1

    def take(self, packet: bytes) -> Expected | None:
        """Remove and return the response that a packet from the device stands for.

        The optional ones before it never come. `None` if the device owes nothing.
        """
        response = Response.parse(packet)
        skipped = 0
        for expected in self._owed:
            if not expected.optional or expected.fits(response):
                break
            skipped += 1
        else:
            skipped = 0
        for _ in range(skipped):
            self._owed.popleft()
        return self._owed.popleft() if self._owed else None

    def drop_optional(self) -> None:
        """The device has had the time to send all responses: the optional ones never come."""
        self._owed = deque(expected for expected in self._owed if not expected.optional)

    def clear(self) -> None:
        """The device was reset."""
        self._owed.clear()

    def _duplicates(self, response: bytes) -> bool:
        """Whether a response repeats the one to a command that was executed, and is owed still."""
        right = Response.parse(response)
        assert right is not None, "the reference device gave a damaged packet"
        if right.status in NOT_STORED or right.opcode == Opcode.RESET:
            return False
        return any(expected.response == response for expected in self._owed)


def _key(response: Response | None) -> tuple[int, ...]:
    """What tells a response from all others that are owed with it."""
    if response is None:
        return ()
    return (
        response.opcode,
        response.seq,
        response.session,
        response.status,
        response.expected,
    )


def name_of(opcode: int) -> str:
    """The name of an opcode, or its number if it has none."""
    names = {code.value: code.name for code in Opcode}
    return names.get(opcode, f"opcode {opcode}")


def describe(request: Request) -> str:
    """A command as a line of a report shows it."""
    names = ["index", "count", "address", *sorted(banks_read(request.opcode))]
    fields = ", ".join(f"{name.replace('_', ' ')} {getattr(request, name)}" for name in names)
    return f"{name_of(request.opcode)} ({fields}, {len(request.payload)} bytes), seq {request.seq}"


def difference(right: Response, seen: Response) -> str:
    """What is wrong in a response, on one line."""
    wrong = []
    for name in Response.__dataclass_fields__:
        if name != "payload" and getattr(right, name) != getattr(seen, name):
            wrong.append(f"{name} must be {getattr(right, name)}, not {getattr(seen, name)}")
    if len(right.payload) != len(seen.payload):
        wrong.append(f"payload must have {len(right.payload)} bytes, not {len(seen.payload)}")
    elif right.payload != seen.payload:
        pairs = enumerate(zip(right.payload, seen.payload, strict=True))
        at, (model, byte) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        wrong.append(f"payload byte {at} must be {model:#04x}, not {byte:#04x}")
    return "; ".join(wrong)
