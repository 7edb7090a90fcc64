"""A link alone, for measurements and tests: each packet that comes goes back to its sender."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory

from tritloom.rtl.lib.ports import forward_port
from tritloom.rtl.links.contract import create_link, link_members
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["LinkLoop"]

PEERS = 256
"""Packets that wait at most; as many senders are kept."""


class LinkLoop(wiring.Component):
    """A link whose packets go back as they came, whatever they hold.

    A packet that the link aborts, or that finds no room, is dropped.

    Parameters
    ----------
    config : says the link
    depth : beats that wait at most, a power of two

    Members: the link's pads.
    """

    def __init__(self, config: AcceleratorConfig, depth: int = 8192) -> None:
        self.config = config
        self.depth = depth
        self._link = create_link(config)
        contract = link_members(config)
        members = self._link.signature.members.items()
        self._pads = {name: member for name, member in members if name not in contract}
        super().__init__(self._pads)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.link = link = self._link
        for name, member in self._pads.items():
            forward_port(m, getattr(self, name), getattr(link, name), member)
        i, o = link.i_packet, link.o_packet
        bits = 8 * self.config.link.beat_bytes + 1
        m.submodules.beats = beats = Memory(shape=bits, depth=self.depth, init=[])
        write, read = beats.write_port(), beats.read_port(domain="comb")
        head, limit, tail = (
            Signal(range(self.depth), name=name) for name in ("head", "limit", "tail")
        )
        judges = Signal()  # the packet's last beat came in the cycle before
        lost, aborted, crowded = Signal(), Signal(), Signal()
        full = (head + 1)[: len(head)] == tail
        m.d.comb += [
            o.ready.eq(~judges),
            write.addr.eq(head),
            write.data.eq(Cat(o.payload.data, o.payload.last)),
            write.en.eq(o.valid & o.ready & ~full),
            link.i_good.eq(judges & ~lost & ~aborted & ~crowded),
            link.i_bad.eq(judges & aborted),
            link.i_dropped.eq(judges & ~aborted & (lost | crowded)),
            read.addr.eq(tail),
            i.payload.eq(read.data),
            i.valid.eq(tail != limit),
        ]
        m.d.sync += judges.eq(o.valid & o.ready & o.payload.last)
        with m.If(o.valid & o.ready):
            m.d.sync += aborted.eq(aborted | link.o_abort)
            with m.If(full):
                m.d.sync += lost.eq(1)
            with m.Else():
                m.d.sync += head.eq(head + 1)
        with m.If(judges):
            m.d.sync += [lost.eq(0), aborted.eq(0), head.eq(limit)]
            with m.If(link.i_good):
                m.d.sync += [limit.eq(head), head.eq(head)]
        with m.If(i.valid & i.ready):
            m.d.sync += tail.eq(tail + 1)
        if peer_bits := self.config.link.peer_bits(self.config):
            m.submodules.peers = peers = SyncFIFO(width=peer_bits, depth=PEERS)
            m.d.comb += [
                crowded.eq(~peers.w_rdy),
                peers.w_en.eq(link.i_good),
                peers.w_data.eq(link.o_peer),
                link.i_peer.eq(peers.r_data),
                peers.r_en.eq(i.valid & i.ready & i.payload.last),
            ]
        return m
