"""A command of a session, and its response."""

from __future__ import annotations

from dataclasses import dataclass

from tritloom.rtl.spec.commands import Opcode, Request, Response

__all__ = ["Command"]


@dataclass(slots=True, eq=False, kw_only=True)
class Command(Request):
    """A request, and its response as soon as there is one.

    Whoever makes it gives the fields of the request. The session gives `seq` and `session` when it
    sends the command.

    Parameters
    ----------
    response_bytes : payload of the response if its status is OK
    cycles : device cycles that the command may take, without the link

    Members
    -------
    sends : how often it was sent
    sent_s : when it was sent last, of `time.monotonic`
    packet : its last packet is the n-th of the session; 0 before it was sent
    begins_cycles, ends_cycles : device cycles that all earlier commands of the session may take,
        with the link; the same with this one
    bytes_tx, bytes_rx : bytes of its packets and of their responses, repeated ones included
    response : None until there is one
    """

    # Two commands may make the same request: a command is equal to itself alone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    opcode: Opcode
    response_bytes: int = 0
    cycles: int = 0
    sends: int = 0
    sent_s: float = 0.0
    packet: int = 0
    begins_cycles: float = 0
    ends_cycles: float = 0
    bytes_tx: int = 0
    bytes_rx: int = 0
    response: Response | None = None
