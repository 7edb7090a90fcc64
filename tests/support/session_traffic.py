"""Random commands for a session, with what the reference device responds."""

from dataclasses import fields, replace

from tests.support.packets import comparable
from tritloom.host.command import Command
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.requests import response_bytes
from tritloom.sim.verify.traffic import Traffic

FIELDS = [field.name for field in fields(Request)]
PROGRAM_CYCLES = 3000
"""More than any random program takes with its layers."""


class Commands(Traffic):
    """Random traffic without faults or a RESET: the session makes those.

    Members
    -------
    done : each command, and the response of the reference device
    """

    def __init__(self, config, seed):
        self.done = []
        super().__init__(config, seed)

    def _execute(self, command):
        response = super()._execute(command)
        self.done.append((command, response))
        return response

    def _reset(self):
        """A session begins only once."""


def asked(config, request):
    """The command of a session for a request."""
    values = {name: getattr(request, name) for name in FIELDS if name not in ("seq", "session")}
    size = min(response_bytes(config, request), config.max_payload)
    return Command(**values, response_bytes=size, cycles=PROGRAM_CYCLES)


def told(config, response):
    """What a session's response must be, whatever the clock, seq and session are."""
    seen = comparable(config, response.pack())
    payload = b"" if seen.opcode == Opcode.COUNTERS else seen.payload
    same = {"seq": 0, "session": 0, "expected": 0, "acknowledged": 0}
    same |= {"activation_bank": 0, "result_bank": 0}
    return replace(seen, payload=payload, **same)
