"""The order of commands: sessions, sequence numbers, and which responses can be sent again."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.commands import FIRST_SEQ, SESSION_BITS
from tritloom.rtl.spec.config import AcceleratorConfig


class CommandOrder(wiring.Component):
    """Says of a request whether it is the next command, a repeated one, or neither.

    The response to a command is stored in slot `seq` modulo `slots` until `window` later commands
    have been accepted. So the last `window` commands of the session can be repeated. A repeated
    command whose response is still to come needs no other one.

    Members
    -------
    session : in, `SESSION_BITS`
        The request's session.
    seq : in, 16 bits
        The request's sequence number.
    reset : in, 1 bit
        The request is a RESET.
    unsent : in, number
        Commands whose response has not been sent to its end.
    decide : in, 1 bit
        The request is accepted as what the outputs say: the state changes at the end of this cycle.
        A RESET of another session starts that session. The next command moves `expected` on.
    stranger, barred : in, 1 bit each
        As in `Owner`, of the request's sender. Only with `Link.host_bits`.
    foreign : out, 1 bit
        The request belongs to another session, or comes from a stranger.
    in_order : out, 1 bit
        The request has the next sequence number.
    repeated : out, 1 bit
        The last `window` commands of the session have this sequence number, or the next one.
    awaited : out, 1 bit
        The request is `repeated`, and its response has not been sent to its end.
    full : out, 1 bit
        Each slot holds a response that has not been sent to its end.
    expected : out, 16 bits
        The next sequence number, from a register.
    """

    session: Signal
    seq: Signal
    reset: Signal
    unsent: Signal
    decide: Signal
    foreign: Signal
    in_order: Signal
    repeated: Signal
    awaited: Signal
    full: Signal
    expected: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._has_owner = config.link.host_bits(config) != 0
        super().__init__(
            {
                "session": In(SESSION_BITS),
                "seq": In(16),
                "reset": In(1),
                "unsent": In(bits_for(config.slots)),
                "decide": In(1),
                "foreign": Out(1),
                **(dict.fromkeys(("stranger", "barred"), In(1)) if self._has_owner else {}),
                "in_order": Out(1),
                "repeated": Out(1),
                "awaited": Out(1),
                "full": Out(1),
                "expected": Out(16, init=FIRST_SEQ),
            }
        )

    @property
    def starts(self) -> Any:
        """Whether the request starts a session, if it is a RESET."""
        ports: Any = self
        return self.foreign & ~ports.barred if self._has_owner else self.foreign

    def elaborate(self, platform: object) -> Module:
        m = Module()
        session = Signal(SESSION_BITS)  # the current session
        replayable = Signal(
            bits_for(self.config.window)
        )  # responses of the session that are stored
        behind = Signal(16)
        foreign: Any = self.session != session
        if self._has_owner:
            ports: Any = self
            foreign |= ports.stranger
        m.d.comb += [
            behind.eq(self.expected - self.seq),
            self.foreign.eq(foreign),
            self.in_order.eq(behind == 0),
            self.repeated.eq(behind <= replayable),
            self.awaited.eq(self.repeated & (behind[: len(self.unsent)] <= self.unsent)),
            self.full.eq(self.unsent == self.config.slots),
        ]
        with m.If(self.decide & self.reset):
            with m.If(self.starts):
                m.d.sync += [
                    session.eq(self.session),
                    self.expected.eq(FIRST_SEQ),
                    replayable.eq(0),
                ]
        with m.Elif(self.decide & ~self.foreign & self.in_order):
            m.d.sync += self.expected.eq(self.expected + 1)
            with m.If(replayable != self.config.window):
                m.d.sync += replayable.eq(replayable + 1)
        return m
