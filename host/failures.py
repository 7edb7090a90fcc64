"""What a session says of a device that fails: one line each, with the remedy."""

from __future__ import annotations

from tritloom.host.command import Command
from tritloom.rtl.spec.commands import Status
from tritloom.rtl.spec.errors import DeviceError, DeviceTimeout

__all__ = ["ECHO", "OWNED", "REMEDY", "refusal_error", "timeout_error"]

REMEDY = "check its power, bitstream, cable and baud"
"""What to do about a device that does not respond, unless its transport says it."""
ECHO = (
    "returns what is sent to it and is no device; separate transmit from receive, or choose the "
    "port of the board"
)
OWNED = (
    "is in use by another computer; end the session there, or switch that computer off, then "
    "connect again"
)
"""Of a device that refuses RESET."""
VOID = "the weight memory could not read a word"


def refusal_error(name: str, command: Command, number: int, void_remedy: str) -> DeviceError:
    """The error of a command that a device has refused.

    Parameters
    ----------
    name : of the device
    command : that it has refused
    number : of the status
    void_remedy : what to do if the memory could not read a word, `Memory.void_remedy`
    """
    try:
        status = Status(number)
        # The other ones are faults of the driver.
        reason = status.name
        if status == Status.MEMORY_ERROR:
            reason += f": {VOID}; {void_remedy}"
    except ValueError:
        reason = f"unknown status {number}"
    return DeviceError(
        f"{name} refused {command.opcode.name} of index {command.index}, "
        f"count {command.count}, address {command.address}: {reason}"
    )


def timeout_error(name: str, command: Command, tries: int, remedy: str) -> DeviceTimeout:
    """The error of a device that does not respond to a command."""
    return DeviceTimeout(
        f"{name} does not respond to {command.opcode.name}, tried {tries} times; {remedy}, "
        "then connect again"
    )
