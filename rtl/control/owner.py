"""Whose session it is: on a link with several hosts, one peer at a time has the device."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["Owner"]


class Owner(wiring.Component):
    """The peer whose RESET began the session, and when it was heard.

    Everybody else is a stranger. A stranger's commands belong to no session of his. His RESET takes
    the device over, unless another host has it and was heard within `Link.hold_cycles`.

    Members
    -------
    next_peer : in, `Link.peer_bits`
        The sender of the packet whose header comes. Valid and unchanged for at least two cycles
        before `took_header`.
    took_header : in, 1 bit
        Strobe: the header has come. The outputs are of this packet from the next cycle on.
    peer : in, `Link.peer_bits`
        The sender of that packet.
    new_session : in, 1 bit
        Strobe: `peer` has the device from now on. At least two cycles before the next
        `took_header`.
    stranger : out, 1 bit
        The packet's sender does not have the device.
    barred : out, 1 bit
        Its RESET does not take the device over.
    """

    next_peer: Signal
    took_header: Signal
    peer: Signal
    new_session: Signal
    stranger: Signal
    barred: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        bits = config.link.peer_bits(config)
        super().__init__(
            {
                "next_peer": In(bits),
                "took_header": In(1),
                "peer": In(bits),
                "new_session": In(1),
                "stranger": Out(1, init=1),
                "barred": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        link = self.config.link
        host = link.host_bits(self.config)
        hold = link.hold_cycles(self.config)
        owner = Signal(len(self.peer), reset_less=True)
        owned = Signal()
        # The comparisons are wide, so their results are registered before they are needed.
        other_peer, other_host = Signal(init=1), Signal(init=1)
        left = Signal(bits_for(hold))  # cycles for which the owner keeps the device in silence
        m.d.sync += [
            other_peer.eq((self.next_peer != owner) | ~owned),
            other_host.eq(self.next_peer[-host:] != owner[-host:]),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(self.took_header):
            m.d.sync += [
                self.stranger.eq(other_peer),
                self.barred.eq(other_peer & other_host & owned & (left != 0)),
            ]
            with m.If(~other_peer):
                m.d.sync += left.eq(hold)
        with m.If(self.new_session):
            m.d.sync += [owner.eq(self.peer), owned.eq(1), left.eq(hold), self.stranger.eq(0)]
        return m
