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
from tritloom.rtl.links.udp_facts import FRAME_SLOTS, SLOT_WORDS, Udp
from tritloom.rtl.links.udp_receive import FrameReader
from tritloom.rtl.links.udp_send import FrameWriter
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["FrameStore", "UdpLink"]

QUEUE_ITEMS = 16
"""Room of the queue from the PHY's clock."""


class FrameStore(wiring.Component):
    """Slots for frames: one is written in the domain `sync` while another is read in `phy`.

    There are four: the responses to LOAD and RUN are short, and two of them may stand between two
    long frames. So the next long one is stored while the first is sent.

    Each side counts its frames in Gray code, in which one bit changes at a time, so the other side
    never sees a count that was not there. It sees it two of its cycles later.

    Members
    -------
    free : out; a slot may be written
    place, word, write : in; a word for it, its place in the slot
    commit : in; strobe, in a later cycle than the last word: the slot holds a frame
    waiting : out, of `phy`; the slot that is read next holds a frame
    address, sent : in, of `phy`; the word that is read, in all slots; strobe, its slot is free
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
                "address": In(range(FRAME_SLOTS * SLOT_WORDS)),
                "sent": In(1),
                "data": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = block_ram(16, FRAME_SLOTS * SLOT_WORDS)
        write, read = words.write_port(), words.read_port(domain="comb")
        # Counts modulo twice the slots, in Gray code, and the same in binary. If both sides are
        # equal there is no frame. Codes that are all slots apart differ in the two highest bits.
        number = Signal(range(2 * FRAME_SLOTS))
        written, sent = Signal.like(number), Signal.like(number)
        number_sent = Signal.like(number)
        written_there, sent_there = Signal.like(number), Signal.like(number)
        m.submodules.to_phy = FFSynchronizer(written, written_there, o_domain="phy")
        m.submodules.to_sync = FFSynchronizer(sent, sent_there, o_domain="sync")
        fetched = Signal(16, reset_less=True)
        m.d.comb += [
            write.addr.eq(Cat(self.place, number[:-1])),
            write.data.eq(self.word),
            write.en.eq(self.write),
            self.free.eq(written != Cat(sent_there[:-2], ~sent_there[-2:])),
            self.waiting.eq(written_there != sent),
            read.addr.eq(self.address),
        ]
        # The block RAM's data comes late in a cycle, so a register follows it.
        m.d.phy += [fetched.eq(read.data), self.data.eq(fetched)]
        for domain, strobe, count, gray in (
            ("sync", self.commit, number, written),
            ("phy", self.sent, number_sent, sent),
        ):
            later = Signal.like(count, name=f"{count.name}_later")
            m.d.comb += later.eq(count + 1)
            with m.If(strobe):
                m.d[domain] += [count.eq(later), gray.eq(later ^ (later >> 1))]
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
            GmiiTransmitter(FRAME_SLOTS, SLOT_WORDS)
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
