"""Writes Ethernet frames: packets in UDP datagrams, and what the link answers by itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.udp_facts import (
    ADDRESSED,
    ANNOUNCED,
    BEAT_BYTES,
    DISCOVERY_PORT,
    LEAST_FRAME_BYTES,
    MAGIC,
    PACKET_PORT,
    PEER_BITS,
    SLOT_WORDS,
    Announcement,
    Udp,
)
from tritloom.rtl.links.udp_receive import CHECKSUM_PLACE, ECHO, PAYLOAD, Notice, notice_layout

__all__ = ["FrameWriter"]

ARP, ECHO_KIND, UDP, ANNOUNCE = range(4)
LEAST_WORDS = LEAST_FRAME_BYTES // 2
UDP_CHECKSUM = 20
"""Place of a datagram's checksum in its frame."""
VERSION, DONT_FRAGMENT, LIFE_UDP, LIFE_ICMP = 0x4500, 0x4000, 0x4011, 0x4001
"""Words of the IP header: version and length; flags; time to live 64, and protocol."""
UDP_PROTOCOL = 17


class FrameWriter(wiring.Component):
    """Writes a frame into a slot of a store, as `GmiiTransmitter` sends it.

    A datagram's checksum stands before its payload, so it is written last. A notice goes before a
    packet.

    Parameters
    ----------
    link : the link's facts
    build_digest : 8 bytes that an announcement brings

    Members
    -------
    i : in, stream of `packet_layout`; packets, whose first two bytes are their length
    peer : in, `PEER_BITS`; where the packet goes, while it is at `i`
    address : in, 32 bits; the device's IP address
    i_notice, notice_address, notice_word, echo_address, echo_word : as in `FrameReader`. The notice
        is taken when its frame is written.
    free : in, 1 bit; the slot may be written
    place, word, write : out; a word for the slot
    commit : out, 1 bit; strobe: the slot holds a frame. All its words have been written before.
    """

    i: stream.Interface
    peer: Signal
    address: Signal
    i_notice: stream.Interface
    notice_address: Signal
    notice_word: Signal
    echo_address: Signal
    echo_word: Signal
    free: Signal
    place: Signal
    word: Signal
    write: Signal
    commit: Signal

    def __init__(self, link: Udp, build_digest: bytes) -> None:
        self.link = link
        self.build_digest = build_digest
        super().__init__(
            {
                "i": In(stream.Signature(packet_layout(BEAT_BYTES))),
                "peer": In(PEER_BITS),
                "address": In(32),
                "i_notice": In(stream.Signature(notice_layout())),
                "notice_address": Out(3),
                "notice_word": In(16),
                "echo_address": Out(range(SLOT_WORDS)),
                "echo_word": In(16),
                "free": In(1),
                "place": Out(range(SLOT_WORDS)),
                "word": Out(16),
                "write": Out(1),
                "commit": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind = Signal(2)
        count = Signal(range(SLOT_WORDS))  # words of the frame that have been chosen
        left = Signal(11)  # bytes of the payload that are not written
        frame_bytes, ip_bytes = Signal(11), Signal(11)
        word = Signal(16)
        chosen = Signal()
        sums = Signal()  # the word belongs to the datagram's checksum
        of_udp = (kind == UDP) | (kind == ANNOUNCE)
        header, to, takes_to = self._header(m, kind, count)
        # A word is written in the cycle after it is chosen. The words of the receiver have a
        # register of their own, because they come late in a cycle.
        place = Signal(range(SLOT_WORDS))
        late, late_to = Signal(16, reset_less=True), Signal(16, reset_less=True)
        late_sums, is_to = Signal(), Signal()
        m.d.sync += [
            late.eq(word),
            late_to.eq(to),
            is_to.eq(takes_to),
            late_sums.eq(sums),
            self.write.eq(chosen),
            self.place.eq(place),
        ]
        ip_sum = self._ip_sum(m, kind, count, ip_bytes, late_to)
        checksum = self._udp_sum(m, count, ip_bytes)
        packet_bytes = self.i.payload.data[:11]
        m.d.comb += [
            self.word.eq(Mux(is_to, late_to, late)),
            checksum.add.eq(late_sums),
            checksum.word.eq(self.word),
            place.eq(count + 1),  # the slot's first word is the frame's length
            self.echo_address.eq(0),
        ]
        payload = self._payload(m, kind, count)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += count.eq(0)
                with m.If(self.free):
                    with m.If(self.i_notice.valid):
                        notice = self.i_notice.payload
                        m.d.sync += left.eq(notice.bytes)
                        with m.Switch(notice.kind):
                            with m.Case(Notice.ARP):
                                m.d.sync += [kind.eq(ARP), left.eq(0)]
                            with m.Case(Notice.ECHO):
                                m.d.sync += kind.eq(ECHO_KIND)
                            with m.Default():
                                size = len(self._announcement(False))
                                m.d.sync += [kind.eq(ANNOUNCE), left.eq(size)]
                        m.next = "SIZE"
                    with m.Elif(self.i.valid):
                        m.d.sync += [kind.eq(UDP), left.eq(packet_bytes)]
                        m.next = "SIZE"
            with m.State("SIZE"):
                before = Mux(kind == ECHO_KIND, 2 * (ECHO - 7), 2 * (PAYLOAD - 7))
                m.d.sync += ip_bytes.eq(left + before)
                m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    word.eq(header(ip_bytes, ip_sum)),
                    chosen.eq(1),
                    sums.eq(count >= 13),
                ]
                m.d.sync += [
                    count.eq(count + 1),
                    frame_bytes.eq(
                        Mux(ip_bytes < LEAST_FRAME_BYTES - 14, LEAST_FRAME_BYTES, ip_bytes + 14)
                    ),
                ]
                with m.If(count == Mux(kind == ECHO_KIND, ECHO - 1, PAYLOAD - 1)):
                    m.next = "PAYLOAD"
                    with m.If(kind == ARP):
                        m.next = "PAD"
            with m.State("PAYLOAD"):
                ready = (kind != UDP) | self.i.valid
                is_last = Mux(kind == UDP, self.i.payload.last, left <= 2)
                with m.If(kind == ECHO_KIND):
                    m.d.comb += self.echo_address.eq(count - (ECHO - 1))
                m.d.comb += [
                    word.eq(Mux(left == 1, payload & 0xFF00, payload)),
                    chosen.eq(ready),
                    sums.eq(ready),
                    self.i.ready.eq(kind == UDP),
                ]
                with m.If(ready):
                    m.d.sync += [count.eq(count + 1), left.eq(left - 2)]
                    with m.If(is_last):
                        m.next = "PAD"
            with m.State("PAD"):
                with m.If(count < LEAST_WORDS):
                    m.d.comb += chosen.eq(1)
                    m.d.sync += count.eq(count + 1)
                with m.Else():
                    m.next = "CHECKSUM"
            with m.State("CHECKSUM"):
                m.d.comb += [
                    word.eq(checksum.result),
                    place.eq(UDP_CHECKSUM + 1),
                    chosen.eq(of_udp),
                ]
                m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.comb += [word.eq(frame_bytes), place.eq(0), chosen.eq(1)]
                m.next = "WRITE"
            with m.State("WRITE"):
                m.next = "COMMIT"
            with m.State("COMMIT"):
                m.d.comb += [self.commit.eq(1), self.i_notice.ready.eq(kind != UDP)]
                m.next = "IDLE"
        return m

    def _announcement(self, addressed: bool) -> bytes:
        zero = bytes(4)
        return Announcement(
            mac=self.link.mac_bytes,
            address=zero,
            build_digest=self.build_digest,
            addressed=addressed,
        ).to_bytes()

    def _header(
        self, m: Module, kind: Signal, count: Signal
    ) -> tuple[Callable[[Signal, Signal], Signal], Signal, Signal]:
        """The header's word number `count`.

        Returns
        -------
        A function of the bytes of the IP packet and the sum of its header that gives the word; the
        word of the receiver that belongs there; and whether that one is the header's.
        """
        mac = int.from_bytes(self.link.mac_bytes, "big")
        own_mac = [Const(mac >> shift & 0xFFFF, 16) for shift in (32, 16, 0)]
        of_peer = Signal(3)  # which word of the receiver
        to = Signal(16)
        words = [self.peer[shift : shift + 16] for shift in range(80, -1, -16)]
        m.d.comb += self.notice_address.eq(of_peer)
        with m.If(kind == UDP):
            with m.Switch(of_peer):
                for number, word in enumerate(words):
                    with m.Case(number):
                        m.d.comb += to.eq(word)
        with m.Else():
            m.d.comb += to.eq(self.notice_word)
        is_arp, is_echo = kind == ARP, kind == ECHO_KIND
        peer: dict[int, Any] = {n: n for n in range(3)}
        peer |= {4: 3, 5: 4}  # for the sum of the IP header
        peer |= {15: 3, 16: Mux(is_arp, 0, 4), 17: 1, 19: 3, 20: 4}
        peer[18] = Mux(is_arp, 2, Mux(is_echo, CHECKSUM_PLACE, 5))
        of_arp = {16, 17, 18, 19, 20}
        takes = Signal()
        with m.Switch(count):
            for place in range(PAYLOAD):
                with m.Case(place):
                    always = place in (0, 1, 2, 16, 18)
                    m.d.comb += of_peer.eq(peer.get(place, 0))
                    if always:
                        m.d.comb += takes.eq(1)
                    elif place == 15:
                        m.d.comb += takes.eq(~is_arp)
                    elif place in of_arp:
                        m.d.comb += takes.eq(is_arp)
        return partial(self._fixed, m, kind, count, own_mac), to, takes

    def _fixed(
        self,
        m: Module,
        kind: Signal,
        count: Signal,
        own_mac: list[Any],
        ip_bytes: Signal,
        ip_sum: Signal,
    ) -> Signal:
        """The header's words that are not of the receiver."""
        address = (self.address[16:], self.address[:16])
        is_arp, is_echo = kind == ARP, kind == ECHO_KIND
        port = Mux(kind == UDP, PACKET_PORT, Mux(is_echo, 0, DISCOVERY_PORT))
        udp_bytes = Signal(11)
        m.d.comb += udp_bytes.eq(ip_bytes - 20)
        table: dict[int, Any] = {
            **{3 + n: word for n, word in enumerate(own_mac)},
            6: Mux(is_arp, 0x0806, 0x0800),
            7: Mux(is_arp, 1, VERSION),
            8: Mux(is_arp, 0x0800, ip_bytes),
            9: Mux(is_arp, 0x0604, 0),
            10: Mux(is_arp, 2, DONT_FRAGMENT),
            11: Mux(is_arp, own_mac[0], Mux(is_echo, LIFE_ICMP, LIFE_UDP)),
            12: Mux(is_arp, own_mac[1], ~ip_sum),
            13: Mux(is_arp, own_mac[2], address[0]),
            14: Mux(is_arp, address[0], address[1]),
            15: address[1],
            17: port,
            19: udp_bytes,
            20: 0,
        }
        fixed = Signal(16)
        with m.Switch(count):
            for place, value in table.items():
                with m.Case(place):
                    m.d.comb += fixed.eq(value)
        return fixed

    def _ip_sum(
        self, m: Module, kind: Signal, count: Signal, ip_bytes: Signal, to: Signal
    ) -> Signal:
        """The ones' complement sum of the IP header, from its twelfth word on."""
        sum_, carry = Signal(16), Signal()
        addend = Signal(16)
        udp, icmp = (
            (total & 0xFFFF) + (total >> 16)
            for total in (VERSION + DONT_FRAGMENT + life for life in (LIFE_UDP, LIFE_ICMP))
        )
        addends = {
            1: ip_bytes,
            2: self.address[16:],
            3: self.address[:16],
            5: to,  # a cycle after it was asked for
            6: to,
        }
        with m.Switch(count):
            for place, value in addends.items():
                with m.Case(place):
                    m.d.comb += addend.eq(value)
        m.d.sync += Cat(sum_, carry).eq(sum_ + addend + carry)
        with m.If(count == 0):
            m.d.sync += [sum_.eq(Mux(kind == ECHO_KIND, icmp, udp)), carry.eq(0)]
        return sum_

    def _udp_sum(self, m: Module, count: Signal, ip_bytes: Signal) -> Any:
        """The checksum of a datagram with its pseudo header: protocol, length and addresses."""
        sum_ = _Checksum()
        total, carry = Signal(16), Signal()
        folded = Signal(16)
        m.d.comb += [
            # It does not overflow: a carry leaves at most 0xFFFE in `total`.
            folded.eq(~(total + carry)),
            sum_.result.eq(Mux(folded == 0, 0xFFFF, folded)),
        ]
        with m.If(count == 12):
            m.d.sync += [total.eq(ip_bytes - 20 + UDP_PROTOCOL), carry.eq(0)]
        with m.Else():
            addend = Mux(sum_.add, sum_.word, 0)
            m.d.sync += Cat(total, carry).eq(total + addend + carry)
        return sum_

    def _payload(self, m: Module, kind: Signal, count: Signal) -> Signal:
        """The payload's word at the place `count`, the first byte high."""
        payload = Signal(16)
        data = self.i.payload.data
        with m.Switch(kind):
            with m.Case(UDP):
                m.d.comb += payload.eq(Cat(data[8:], data[:8]))
            with m.Case(ECHO_KIND):
                m.d.comb += payload.eq(self.echo_word)
            with m.Default():
                text = self._announcement(False)
                fixed = [int.from_bytes(text[n : n + 2], "big") for n in range(0, len(text), 2)]
                table: list[Any] = list(fixed)
                kind_place = len(MAGIC) // 2
                addressed = self.i_notice.payload.addressed
                table[kind_place] = Mux(addressed, ADDRESSED, ANNOUNCED)
                table[kind_place + 4] = self.address[16:]
                table[kind_place + 5] = self.address[:16]
                with m.Switch(count):
                    for number, value in enumerate(table, PAYLOAD):
                        with m.Case(number):
                            m.d.comb += payload.eq(value)
        return payload


class _Checksum:
    """A sum and what enters it: `word` in each cycle with `add`; `result` is the checksum."""

    def __init__(self) -> None:
        self.add = Signal()
        self.word: Value = Signal(16)
        self.result = Signal(16)
