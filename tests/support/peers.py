"""A link for tests: packet streams with the sender's address beside them, and `abort`."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.contract import PacketLink
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Config

PEER_BITS = 3


@dataclass(frozen=True, kw_only=True)
class Peers(PacketStream):
    """The facts of the link."""

    name: ClassVar[str] = "peers"
    component: ClassVar[str] = f"{__name__}:PeersLink"
    pins: ClassVar = MappingProxyType({})

    def peer_bits(self, config: Config) -> int:
        return PEER_BITS


class PeersLink(PacketLink):
    """Wires from the ports to the accelerator, and its strobes.

    Members (beside the contract's)
    -------
    i, o : packets of commands, packets of responses
    abort : with the last beat of `i`
    peer : the sender of the packet that comes
    to_peer : the receiver of the packet that leaves
    dropped : the accelerator's strobe
    """

    i: stream.Interface
    o: stream.Interface
    abort: Signal
    peer: Signal
    to_peer: Signal
    dropped: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        packets = stream.Signature(packet_layout(config.link.beat_bytes))
        super().__init__(
            config,
            {
                "i": In(packets),
                "o": Out(packets),
                "abort": In(1),
                "peer": In(PEER_BITS),
                "to_peer": Out(PEER_BITS),
                "dropped": Out(1),
            },
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        connect(m, flipped(self.i), flipped(self.o_packet))
        connect(m, flipped(self.i_packet), flipped(self.o))
        m.d.comb += [
            self.o_abort.eq(self.abort),
            self.to_peer.eq(self.i_peer),
            self.dropped.eq(self.i_dropped),
        ]
        # The address is only valid from the packet's last byte until the strobe.
        last, late = Signal(), Signal(PEER_BITS)
        m.d.comb += last.eq(self.i.valid & self.i.ready & self.i.payload.last)
        with m.If(last):
            m.d.sync += late.eq(self.peer)
        with m.Else():
            m.d.sync += late.eq(~late)
        m.d.comb += self.o_peer.eq(late)
        return m


@dataclass(frozen=True, kw_only=True)
class FastStream(PacketStream):
    """Packet streams of two bytes, of which the accelerator takes two of a command in a cycle."""

    name: ClassVar[str] = "fast"

    width: int = 2

    @property
    def command_bytes(self) -> int:
        return 2
