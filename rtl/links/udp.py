"""The link `udp`: packets in UDP datagrams over gigabit Ethernet.

The PHY's receive clock times its pads in both directions: RGMII lets a MAC send with it, so no
other clock of 125 MHz is needed. Only preamble, FCS and gap are made in that clock. A queue and a
store lead to and from the accelerator's clock, in which frames are read and written, two bytes a
cycle.
"""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.fifo import AsyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.block_ram import block_ram
from tritloom.rtl.links.contract import PacketLink
from tritloom.rtl.links.gmii import FRAME_ITEM, GmiiReceiver, GmiiTransmitter
from tritloom.rtl.links.udp_facts import SLOT_WORDS, Udp
from tritloom.rtl.links.udp_receive import FrameReader
from tritloom.rtl.links.udp_send import FrameWriter
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["FrameStore", "UdpLink"]

QUEUE_ITEMS = 16
"""Room of the queue from the PHY's clock."""


class FrameStore(wiring.Component):
    """Two slots for frames: one is written in the domain `sync` while the other is read in `phy`.

    Each side counts its frames in Gray code, in which one bit changes at a time, so the other side
    never sees a count that was not there. It sees it two of its cycles later.

    Members
    -------
    free : out; a slot may be written
    place, word, write : in; a word for it, its place in the slot
    commit : in; strobe, in a later cycle than the last word: the slot holds a frame
    waiting : out, of `phy`; the slot that is read next holds a frame
    address, sent : in, of `phy`; the word that is read, in both slots; strobe, its slot is free
    data : out, of `phy`; the word, two cycles later
    """

    free: Signal
    place: Signal
    word: Signal
    write: Signal
    commit: Signal
    waiting: Signal
    address: Signal
    sent: Signal
    data: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "free": Out(1),
                "place": In(range(SLOT_WORDS)),
                "word": In(16),
                "write": In(1),
                "commit": In(1),
                "waiting": Out(1),
                "address": In(range(2 * SLOT_WORDS)),
                "sent": In(1),
                "data": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = block_ram(16, 2 * SLOT_WORDS)
        write, read = words.write_port(), words.read_port(domain="comb")
        # Counts modulo 4 in Gray code: 00, 01, 11, 10. The slot is the count's lowest bit.
        written, sent = Signal(2), Signal(2)
        written_there, sent_there = Signal(2), Signal(2)
        m.submodules.to_phy = FFSynchronizer(written, written_there, o_domain="phy")
        m.submodules.to_sync = FFSynchronizer(sent, sent_there, o_domain="sync")
        fetched = Signal(16, reset_less=True)
        m.d.comb += [
            write.addr.eq(Cat(self.place, written[0] ^ written[1])),
            write.data.eq(self.word),
            write.en.eq(self.write),
            self.free.eq(written != ~sent_there),  # two ahead is the opposite in Gray code
            self.waiting.eq(written_there != sent),
            read.addr.eq(self.address),
        ]
        # The block RAM's data comes late in a cycle, so a register follows it.
        m.d.phy += [fetched.eq(read.data), self.data.eq(fetched)]
        with m.If(self.commit):
            m.d.sync += written.eq(Cat(~written[1], written[0]))
        with m.If(self.sent):
            m.d.phy += sent.eq(Cat(~sent[1], sent[0]))
        return m


class UdpLink(PacketLink):
    """Gigabit Ethernet at the pads of GMII.

    Members (beside the contract's): the pads that `Udp.pins` explains.
    """

    rx_clk: Signal
    rx: Signal
    rx_dv: Signal
    rx_er: Signal
    tx: Signal
    tx_en: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config.link, Udp):
            raise ConfigError(f"UdpLink needs a udp link, not {config.link.name!r}")
        self._facts = config.link
        pads = {"rx_clk": In(1), "rx": In(8), "rx_dv": In(1), "rx_er": In(1)}
        super().__init__(config, {**pads, "tx": Out(8), "tx_en": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.phy = ClockDomain(local=True)
        m.submodules.reset = ResetSynchronizer(ResetSignal("sync"), domain="phy")
        m.submodules.receiver = receiver = DomainRenamer("phy")(GmiiReceiver())
        m.submodules.transmitter = transmitter = DomainRenamer("phy")(
            GmiiTransmitter(2, SLOT_WORDS)
        )
        m.submodules.queue = queue = AsyncFIFOBuffered(
            width=FRAME_ITEM.size, depth=QUEUE_ITEMS, w_domain="phy", r_domain="sync"
        )
        m.submodules.store = store = FrameStore()
        m.submodules.reader = reader = FrameReader(self._facts)
        m.submodules.writer = writer = FrameWriter(self._facts, self.config.build_digest)
        m.d.comb += [
            ClockSignal("phy").eq(self.rx_clk),
            receiver.rx.eq(self.rx),
            receiver.dv.eq(self.rx_dv),
            receiver.er.eq(self.rx_er),
            queue.w_data.eq(receiver.o.payload),
            queue.w_en.eq(receiver.o.valid),
            receiver.o.ready.eq(queue.w_rdy),
            reader.i.payload.eq(queue.r_data),
            reader.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(reader.i.ready),
            self.o_abort.eq(reader.abort),
            self.o_peer.eq(reader.peer),
            reader.judged.eq(self.i_good | self.i_bad | self.i_dropped),
            writer.peer.eq(self.i_peer),
            writer.address.eq(reader.address),
            reader.notice_address.eq(writer.notice_address),
            writer.notice_word.eq(reader.notice_word),
            reader.echo_address.eq(writer.echo_address),
            writer.echo_word.eq(reader.echo_word),
            writer.free.eq(store.free),
            store.place.eq(writer.place),
            store.word.eq(writer.word),
            store.write.eq(writer.write),
            store.commit.eq(writer.commit),
            transmitter.waiting.eq(store.waiting),
            transmitter.word.eq(store.data),
            store.address.eq(transmitter.address),
            store.sent.eq(transmitter.sent),
            self.tx.eq(transmitter.tx),
            self.tx_en.eq(transmitter.en),
        ]
        connect(m, reader.o, flipped(self.o_packet))
        connect(m, reader.o_notice, writer.i_notice)
        connect(m, flipped(self.i_packet), writer.i)
        return m
