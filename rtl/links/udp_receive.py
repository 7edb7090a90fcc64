"""Reads Ethernet frames: finds packets, echo requests, ARP requests and discovery in them.

A frame comes in words of 16 bits, the first byte high. The headers of Ethernet, ARP (RFC 826), IPv4
(RFC 791), ICMP (RFC 792) and UDP (RFC 768) have their fields at whole words.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.gmii import FRAME_ITEM
from tritloom.rtl.links.udp_facts import (
    ASK,
    BEAT_BYTES,
    DISCOVERY_PORT,
    MAGIC,
    MAX_DATAGRAM,
    PACKET_PORT,
    PEER_BITS,
    SET_ADDRESS,
    SLOT_WORDS,
    Udp,
)

__all__ = ["CHECKSUM_PLACE", "FrameReader", "Notice", "notice_layout"]

ETHERNET_WORDS, IP_WORDS, UDP_WORDS = 7, 10, 4
PAYLOAD = ETHERNET_WORDS + IP_WORDS + UDP_WORDS
"""Place of a datagram's first word in its frame."""
ECHO = ETHERNET_WORDS + IP_WORDS + 2
"""Place of the first word of an echo request that is sent back as it came."""
HEADERS_BYTES, ECHO_HEADERS_BYTES = 28, 24
"""Bytes of an IP packet before a datagram, and before what is sent back of an echo request."""
MORE_FRAGMENTS_AND_OFFSET = 0xBFFF
"""Bits of the IP header's fragment word that must be 0: all but "don't fragment"."""
ECHO_REQUEST, ECHO_CHANGE = 0x0800, 0x0800
"""Type and code of an echo request; what a response's checksum is greater by (RFC 1624)."""
CHECKSUM_PLACE = 6
"""Where an echo's checksum lies behind the six words of the sender."""


class Notice:
    """Kinds of frames that the link answers by itself."""

    ARP, ECHO, ANNOUNCE = range(3)


def notice_layout() -> data.StructLayout:
    """A frame to answer: `kind` of `Notice`; bytes to echo; whether an address was set."""
    return data.StructLayout({"kind": 2, "bytes": 11, "addressed": 1})


class FrameReader(wiring.Component):
    """Takes frames, passes on the packets in them, and tells of frames that the link answers.

    Nothing in a frame has an effect before its end with the verdict that it is whole. A packet's
    words leave as they come, one word late, so that `o.last` and `abort` come with the verdict.

    Members
    -------
    i : in, stream of `FRAME_ITEM`
    o : out, stream of `packet_layout`; packets of whole datagrams to `PACKET_PORT`
    abort : out, 1 bit; with the last beat: the frame was not whole, or the datagram is not as long
        as its packet says
    judged : in, 1 bit; strobe, one cycle or more after a last beat: what became of the packet is
        known. The next item is not taken before.
    peer : out, `PEER_BITS`; the packet's sender, from the last beat until `judged`
    address : out, 32 bits; the device's IP address
    o_notice : out, stream of `notice_layout`; while it waits, further such frames are dropped
    notice_address, notice_word : which word of the notice's sender is read (MAC, IP, port, and at
        `CHECKSUM_PLACE` the checksum of an echo response), and the word, in the same cycle
    echo_address, echo_word : which word to echo is read, and the word, one cycle later
    """

    i: stream.Interface
    o: stream.Interface
    abort: Signal
    judged: Signal
    peer: Signal
    address: Signal
    o_notice: stream.Interface
    notice_address: Signal
    notice_word: Signal
    echo_address: Signal
    echo_word: Signal

    def __init__(self, link: Udp) -> None:
        self.link = link
        super().__init__(
            {
                "i": In(stream.Signature(FRAME_ITEM)),
                "o": Out(stream.Signature(packet_layout(BEAT_BYTES))),
                "abort": Out(1),
                "judged": In(1),
                "peer": Out(PEER_BITS),
                "address": Out(32, init=int.from_bytes(link.address_bytes, "big")),
                "o_notice": Out(stream.Signature(notice_layout())),
                "notice_address": In(3),
                "notice_word": Out(16),
                "echo_address": In(range(SLOT_WORDS)),
                "echo_word": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reading = _Reading(m, self)
        reading.read_headers()
        reading.read_payload()
        reading.read_discovery()
        reading.pass_on()
        reading.notice()
        return m


class _Reading:
    """The logic of a `FrameReader`, `ports`. Each public method adds a part of it."""

    def __init__(self, m: Module, ports: Any) -> None:
        self.m = m
        self.ports = ports
        self.word: Value = ports.i.payload.data
        self.place = Signal(range(32))  # of the word in the frame; stays at the highest value
        self.takes = Signal()  # a word is taken
        self.ends = Signal()  # the end of a frame is taken
        self.waits = Signal()  # for what becomes of a packet
        # What the frame is, as far as it has been read.
        self.mine, self.everyone = Signal(), Signal()  # its MAC address
        self.is_arp, self.is_ip = Signal(), Signal()
        self.is_udp, self.is_icmp = Signal(), Signal()
        self.for_me = Signal()  # its IP address
        self.total = Signal(16)  # bytes of the IP packet
        self.fits = Signal()  # and they are not too few and not too many
        # Known when the payload begins.
        self.to_packets, self.to_discovery, self.to_echo = Signal(), Signal(), Signal()
        self.rest = Signal(11)  # bytes of the payload that have not come
        self.even = Signal()  # the payload took both bytes of the last word
        self.asked = Signal()  # the payload is right so far for a request of discovery
        self.sets = Signal()  # it sets the address
        self.new_address = Signal(32, reset_less=True)
        self.whole = Signal()  # with the end: the frame is whole, and its payload lies in it
        place, i = self.place, ports.i
        go = Signal()
        m.d.comb += [
            i.ready.eq(~self.waits & (~ports.o.valid | ports.o.ready)),
            go.eq(i.valid & i.ready),
            self.takes.eq(go & ~i.payload.end),
            self.ends.eq(go & i.payload.end),
            self.whole.eq(self.word[0] & (self.rest == 0) & ~(self.word[1] & self.even)),
        ]
        with m.If(self.takes & ~place.all()):
            m.d.sync += place.eq(place + 1)
        with m.If(self.ends):
            m.d.sync += place.eq(0)

    def read_headers(self) -> None:
        """Read up to the payload, and decide what the frame is."""
        m, word, ports = self.m, self.word, self.ports
        mac = int.from_bytes(ports.link.mac_bytes, "big")
        sum_, carry = Signal(16), Signal()  # ones' complement
        with m.If(self.takes):
            m.d.sync += Cat(sum_, carry).eq(sum_ + word + carry)
            with m.Switch(self.place):
                with m.Case(0):
                    m.d.sync += [self.mine.eq(1), self.everyone.eq(1), self.for_me.eq(0)]
                    self._compare_mac(word, mac >> 32)
                with m.Case(1):
                    self._compare_mac(word, mac >> 16 & 0xFFFF)
                with m.Case(2):
                    self._compare_mac(word, mac & 0xFFFF)
                with m.Case(6):
                    m.d.sync += [
                        self.is_arp.eq((word == 0x0806) & (self.mine | self.everyone)),
                        self.is_ip.eq((word == 0x0800) & (self.mine | self.everyone)),
                        Cat(sum_, carry).eq(0),
                    ]
                with m.Case(7):
                    self._unless(word[8:] == 0x45, self.is_ip)  # no options
                    self._unless(word == 1, self.is_arp)
                with m.Case(8):
                    m.d.sync += self.total.eq(word)
                    self._unless(word == 0x0800, self.is_arp)
                with m.Case(9):
                    self._unless(word == 0x0604, self.is_arp)
                with m.Case(10):
                    self._unless((word & MORE_FRAGMENTS_AND_OFFSET) == 0, self.is_ip)
                    self._unless(word == 1, self.is_arp)
                with m.Case(11):
                    m.d.sync += [self.is_udp.eq(word[:8] == 17), self.is_icmp.eq(word[:8] == 1)]
                with m.Case(12):
                    least = Mux(self.is_udp, HEADERS_BYTES + 1, HEADERS_BYTES)
                    most = MAX_DATAGRAM + HEADERS_BYTES
                    m.d.sync += self.fits.eq((self.total >= least) & (self.total <= most))
                with m.Case(15):
                    m.d.sync += self.for_me.eq(word == ports.address[16:])
                with m.Case(16):
                    self._unless(word == ports.address[:16], self.for_me)
                with m.Case(17):
                    # The sum is 0xFFFF with the last carry added.
                    right = (Cat(sum_, carry) == 0xFFFF) | (Cat(sum_, carry) == 0x1FFFE)
                    self._unless(right, self.is_ip)
                    self._unless(word == ECHO_REQUEST, self.is_icmp)
                with m.Case(18):
                    to_me = self.is_ip & self.for_me & self.mine
                    m.d.sync += [
                        self.to_echo.eq(self.is_icmp & to_me & self.fits & ~ports.o_notice.valid),
                        self.to_packets.eq(self.is_udp & to_me & (word == PACKET_PORT)),
                        self.to_discovery.eq(
                            self.is_udp
                            & (to_me | (self.is_ip & self.everyone))
                            & (word == DISCOVERY_PORT)
                        ),
                    ]
                with m.Case(19):
                    # For ARP this is the upper half of the address that is asked for.
                    m.d.sync += self.for_me.eq(word == ports.address[16:])
                    right = (word + (HEADERS_BYTES - 8) == self.total) & self.fits
                    self._unless(right, self.to_packets)
                    self._unless(right, self.to_discovery)
                with m.Case(20):
                    self._unless(word == ports.address[:16], self.for_me)
        with m.If(self.ends):
            for flag in (self.is_arp, self.is_ip, self.to_packets, self.to_discovery, self.to_echo):
                m.d.sync += flag.eq(0)

    def _compare_mac(self, word: Value, value: int) -> None:
        with self.m.If(word != value):
            self.m.d.sync += self.mine.eq(0)
        with self.m.If(~word.all()):
            self.m.d.sync += self.everyone.eq(0)

    def _unless(self, right: Value, flag: Signal) -> None:
        """Clear `flag` unless it is `right`."""
        with self.m.If(~right):
            self.m.d.sync += flag.eq(0)

    def read_payload(self) -> None:
        """Count the payload's bytes, so that padding is left out, and store what is echoed."""
        m, ports = self.m, self.ports
        m.submodules.echo = echo = block_ram(16, SLOT_WORDS)
        write, read = echo.write_port(), ReadPort(m, echo)
        place = Signal(range(SLOT_WORDS))
        wanted = self.rest != 0
        m.d.comb += [
            write.addr.eq(place),
            write.data.eq(self.word),
            write.en.eq(self.takes & self.to_echo & wanted),
            read.addr.eq(ports.echo_address),
            ports.echo_word.eq(read.data),
        ]
        with m.If(self.takes):
            m.d.sync += [self.even.eq(self.rest >= 2), place.eq(place + 1)]
            with m.If(wanted):
                m.d.sync += self.rest.eq(Mux(self.rest == 1, 0, self.rest - 2))
            with m.If((self.place == ECHO - 1) & self.is_ip & self.is_icmp & self.fits):
                m.d.sync += [self.rest.eq(self.total - ECHO_HEADERS_BYTES), place.eq(0)]
            with m.If((self.place == PAYLOAD - 1) & (self.to_packets | self.to_discovery)):
                m.d.sync += self.rest.eq(self.total - HEADERS_BYTES)
        with m.If(self.ends):
            m.d.sync += [self.rest.eq(0), self.even.eq(0)]

    def read_discovery(self) -> None:
        """Compare the payload with the requests of discovery."""
        m, word, ports = self.m, self.word, self.ports
        expected = [int.from_bytes(MAGIC[n : n + 2], "big") for n in range(0, len(MAGIC), 2)]
        mac = ports.link.mac_bytes
        macs = [int.from_bytes(mac[n : n + 2], "big") for n in range(0, len(mac), 2)]
        kind = PAYLOAD + len(expected)
        ask_bytes = HEADERS_BYTES + len(MAGIC) + 2
        with m.If(self.takes):
            with m.Switch(self.place):
                with m.Case(PAYLOAD - 1):
                    m.d.sync += self.asked.eq(1)
                for number, value in enumerate(expected):
                    with m.Case(PAYLOAD + number):
                        self._unless(word == value, self.asked)
                with m.Case(kind):
                    m.d.sync += self.sets.eq(word == SET_ADDRESS)
                    size = Mux(word == SET_ADDRESS, ask_bytes + len(mac) + 4, ask_bytes)
                    known = (word == ASK) | (word == SET_ADDRESS)
                    self._unless(known & (self.total == size), self.asked)
                for number, value in enumerate(macs, kind + 1):
                    with m.Case(number):
                        with m.If(self.sets):
                            self._unless(word == value, self.asked)
                with m.Case(kind + 1 + len(macs)):
                    first = word[8:]
                    usable = (first != 0) & (first != 127) & (first < 224)
                    with m.If(self.sets):
                        self._unless(usable, self.asked)
                    m.d.sync += self.new_address[16:].eq(word)
                with m.Case(kind + 2 + len(macs)):
                    m.d.sync += self.new_address[:16].eq(word)

    def pass_on(self) -> None:
        """Send the words of a packet, each when the next one or the end has come."""
        m, ports, o, i = self.m, self.ports, self.ports.o, self.ports.i
        held = Signal()  # `beat` has not left
        beat = Signal(8 * BEAT_BYTES, reset_less=True)
        wrong = Signal()  # the packet is not as long as its datagram
        of_packet = self.to_packets & (self.rest != 0)
        swapped = Cat(self.word[8:], self.word[:8])  # a packet's numbers have their low byte first
        m.d.comb += [
            o.payload.data.eq(beat),
            o.payload.last.eq(i.payload.end),
            o.valid.eq(i.valid & ~self.waits & held & (of_packet | i.payload.end)),
            ports.abort.eq(i.payload.end & (~self.whole | wrong)),
        ]
        with m.If(self.takes & of_packet & (self.place >= PAYLOAD)):
            m.d.sync += [held.eq(1), beat.eq(swapped)]
            with m.If(self.place == PAYLOAD):
                m.d.sync += wrong.eq(swapped != self.rest)
        with m.If(self.ends):
            m.d.sync += held.eq(0)
        with m.If(ports.judged):
            m.d.sync += self.waits.eq(0)
        with m.If(o.valid & o.ready & o.payload.last):
            m.d.sync += self.waits.eq(1)

    def notice(self) -> None:
        """Keep who sent the frame, and tell of one that the link answers."""
        m, ports, word, notice = self.m, self.ports, self.word, self.ports.o_notice
        # Two banks: the sender of the notice that waits, and that of the frame that comes.
        m.submodules.senders = senders = Memory(shape=16, depth=16, init=[])
        write, read = senders.write_port(), senders.read_port(domain="comb")
        bank = Signal()  # of the frame that comes
        number = Signal(3)
        stores = Signal()
        with m.Switch(self.place):
            for place, index in ((3, 0), (4, 1), (5, 2), (17, 5), (18, CHECKSUM_PLACE)):
                with m.Case(place):
                    m.d.comb += [number.eq(index), stores.eq(1)]
            with m.Case(13):
                m.d.comb += [number.eq(3), stores.eq(1)]
            with m.Case(14):
                m.d.comb += [number.eq(Mux(self.is_arp, 3, 4)), stores.eq(1)]
            with m.Case(15):
                m.d.comb += [number.eq(4), stores.eq(self.is_arp)]
        of_peer = stores & (number != CHECKSUM_PLACE)
        with m.If(self.takes & of_peer & ~((self.place == 13) & self.is_arp)):
            m.d.sync += ports.peer.eq(Cat(word, ports.peer[:-16]))
        sum_ = word + ECHO_CHANGE
        m.d.comb += [
            write.addr.eq(Cat(number, bank)),
            write.data.eq(Mux(number == CHECKSUM_PLACE, sum_[:16] + sum_[16], word)),
            write.en.eq(self.takes & stores),
            read.addr.eq(Cat(ports.notice_address, ~bank)),
            ports.notice_word.eq(read.data),
        ]
        with m.If(notice.ready):
            m.d.sync += notice.valid.eq(0)
        of_arp = self.is_arp & self.for_me & (self.place >= PAYLOAD)
        of_discovery = self.to_discovery & self.asked
        with m.If(self.ends & self.whole & ~notice.valid):
            with m.If(of_arp | of_discovery | self.to_echo):
                m.d.sync += [
                    notice.valid.eq(1),
                    bank.eq(~bank),
                    notice.payload.bytes.eq(self.total - ECHO_HEADERS_BYTES),
                    notice.payload.addressed.eq(self.sets),
                    notice.payload.kind.eq(
                        Mux(of_arp, Notice.ARP, Mux(self.to_echo, Notice.ECHO, Notice.ANNOUNCE))
                    ),
                ]
            with m.If(of_discovery & self.sets):
                m.d.sync += ports.address.eq(self.new_address)
