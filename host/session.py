"""A session with a device: commands in order, each executed once, over a link that may fail.

The device executes only the command with the next sequence number. It repeats its stored responses
to the last `window` commands. It responds once to every packet that arrives, in their order; only a
packet that repeats a command whose response is still to come gets none of its own. So if a later
packet has a response and an earlier one has none, the earlier packet or its response was lost, and
the packet is sent again. After a time-out, every packet without a response is sent again. At most
`window` packets have no response at a time, each of at most `packet_bytes`: this is what the device
can buffer. A response that belongs to another session or to no command of ours, that repeats an
earlier one, or that is damaged, is discarded.

Nothing runs in the background. Commands are sent when they are enqueued and the window has room,
and whenever a caller waits for a response. The state is consistent between any two statements. An
interrupted wait therefore loses nothing, and the next wait continues it.

Threads take turns: whoever uses the session holds `lock`. A process that was forked has no session.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, suppress
from typing import NoReturn

from tritloom.host.command import Command
from tritloom.host.failures import ECHO, OWNED, REMEDY, refusal_error, timeout_error
from tritloom.host.links.contract import Transport, in_blocks
from tritloom.rtl.spec.commands import (
    FIRST_SEQ,
    OVERHEAD_BYTES,
    SESSION_BITS,
    Opcode,
    Response,
    Status,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError, ProtocolError
from tritloom.rtl.spec.plugins import Memory

__all__ = ["MAX_RETRIES", "SMALLEST_PAYLOAD", "Command", "Session"]

MAX_RETRIES = 8
"""Time-outs in a row, without any response, after which the device may be given up.

A transport may shorten its time-out during these. Then more of them are needed, so that the time
is the same."""
BAD_SHARE = 1 / 8
"""The link is bad if a greater share of the latest packets had to be sent again."""
BAD_WINDOW = 3
"""Most commands without a response on a bad link."""
SHARE_PACKETS = 32
"""Packets over which that share is averaged."""
LINK_CYCLES_PER_BYTE = 16
"""Device cycles that a byte may take on any link."""
LINK_SLACK = 1.2
"""Time that a byte may take on the link, relative to the least: framing adds some bytes."""
LATENCY_SLACK = 1.25
"""Patience for the latency of a link, relative to the measured one."""
LATENCY_DECAY = 7 / 8
"""The most by which one response lowers the latency that is assumed."""
SMALLEST_PAYLOAD = 64 - OVERHEAD_BYTES
"""Payload that every device takes and sends, whatever its configuration."""
SEQ_MASK = 0xFFFF
OK = Status.OK
"""Python 3.11 looks up a member of an enumeration slowly."""
REFUSALS = (Status.NAK, Status.NO_SESSION)
"""Statuses of a command that the device has not executed."""


class Session:
    """Commands and responses over one transport, from `open` until an error or `close`.

    An error that ends the session also closes the transport, so that the device can be opened
    again.

    Parameters
    ----------
    transport : the link to the device
    name : what error messages call the device

    Members
    -------
    number : the session's number, random
    activation_bank, result_bank : the banks that were used last
    retransmissions : packets that were sent again
    discarded : packets that arrived and were of no use
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self.name = name
        self.number = _random_number()
        self.activation_bank = self.result_bank = 0
        self.retransmissions = 0
        self.discarded = 0
        self._transport = transport
        self._blocks = in_blocks(transport)
        self._block = 1 if self._blocks is None else self._blocks.block
        self._least_room = 1
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._window = 1
        self._clock_hz: int | None = None
        self._void_remedy = Memory.void_remedy
        self._byte_cycles: float = LINK_CYCLES_PER_BYTE
        self._waiting: deque[Command] = deque()  # not yet sent
        self._received: deque[bytes] = deque()  # not yet looked at
        # From the oldest pending command on; the newest command always stays.
        self._flight: deque[Command] = deque()
        self._packets = 0  # packets that were sent
        self._passed = 0  # no response is expected to this packet and to those before it
        self._unsent = False  # a pending command may have no packet after `_passed`
        self._retries = 0  # time-outs in a row
        self._waited_s = 0.0  # time that they took
        self._first_timeout_s = transport.timeout_s
        self._latency_s = 0.0  # by which responses may exceed the transport's time-out
        self._share_again = 0.0
        self._useless = 0  # packets in a row that were of no use
        self._stranger = False  # the last response was NO_SESSION
        self._owned = False  # RESET was refused
        self._over: str | None = None

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(
            f"{self.name}: a connected device cannot be copied or pickled; connect where it is used"
        )

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The lock of whoever uses the session.

        Raises
        ------
        DeviceError : this process was forked from the one that connected
        """
        if os.getpid() != self._process:
            raise DeviceError(
                f"{self.name} was connected by another process; close it and connect in this one"
            )
        return self._lock

    def open(self) -> int:
        """Start the session on the device.

        Each attempt has a sequence number of its own, which the response repeats. So it is known
        which attempt has succeeded, and how long the link took. The numbers count down from 0,
        because the commands count up from 1: a late response must not seem to be for a command.

        RESET with the number of the device's current session changes nothing there. A device that
        does not expect the first command then is tried again with another number.

        Returns
        -------
        version : the device's protocol version

        Raises
        ------
        DeviceTimeout : no device responds
        ProtocolError : the link returns what is sent
        """
        reset = Command(opcode=Opcode.RESET)
        starts_s: list[float] = []
        packets: set[bytes] = set()
        while not self._is_hopeless():
            timeout_s = self._transport.timeout_s
            reset.seq = -len(starts_s) & SEQ_MASK
            starts_s.append(time.monotonic())
            packets.update(self._send([reset]))
            for _ in range(self._useless_limit):
                if not self._received:
                    self._receive(timeout_s)
                if not self._received:
                    break
                packet = self._received.popleft()
                if packet in packets:
                    raise self._fail(ProtocolError(f"{self.name} {ECHO}"))
                self.discarded += 1
                response = Response.parse(packet)
                if response is None or response.session != self.number:
                    continue
                if response.opcode != Opcode.RESET:
                    continue
                self._owned = response.status == Status.NO_SESSION
                attempt = -response.seq & SEQ_MASK
                if response.status == OK and attempt < len(starts_s):
                    self.discarded -= 1
                    if response.expected != FIRST_SEQ:  # a session of that number is in use there
                        self.number = _random_number()
                        break
                    if attempt < len(starts_s) - 1:  # it came after a time-out
                        self._latency_s = time.monotonic() - starts_s[attempt]
                    reset.seq = 0
                    reset.response = response
                    self._passed = self._packets
                    self._flight.append(reset)
                    self._progress()
                    return response.value
            self._retries += 1
            self._waited_s += timeout_s
        raise self._fail(self._timeout(reset))

    def configure(self, config: AcceleratorConfig) -> None:
        """Use the window, clock and link of the device; until then, the least of any device."""
        self._window = config.window
        # One call with many packets costs less than many calls. The packets that are under way keep
        # the device busy meanwhile.
        self._least_room = max(1, min(self._block, config.window // 2))
        self._clock_hz = config.clock_hz
        self._void_remedy = config.memory.void_remedy
        byte_cycles = LINK_SLACK * config.link.cycles_per_byte(config)
        self._byte_cycles = max(LINK_CYCLES_PER_BYTE, byte_cycles)

    def payload_limit(self, most: int) -> int:
        """Bytes of payload to put in a packet that can hold `most`.

        No more than is sure to pass the link, and few while the link is bad. With one byte in
        thirty damaged, payloads of 20 to 50 bytes give the best throughput, and packets of several
        hundred bytes hardly ever arrive.
        """
        return self._limit(most, getattr(self._transport, "packet_bytes", most + OVERHEAD_BYTES))

    def _limit(self, most: int, packet_bytes: int) -> int:
        if self._share_again > BAD_SHARE:
            return min(most, SMALLEST_PAYLOAD)
        return max(SMALLEST_PAYLOAD, min(most, packet_bytes - OVERHEAD_BYTES))

    def enqueue(self, *commands: Command) -> None:
        """Append commands. The device executes them in this order, after all earlier ones."""
        self.check()
        self._waiting.extend(commands)
        self._advance()

    def wait(self, command: Command) -> Response:
        """Wait for the response to an enqueued command, whatever its status."""
        while command.response is None:
            if self._over is not None:
                self.check()
            if self._unsent or self._waiting:
                self._advance()
            received = self._received
            if not received:
                patience_s = self._patience_s()
                self._receive(patience_s)
                if not received:
                    self._give_up_waiting(patience_s)
            while received:
                self._accept(received.popleft())
        return command.response

    def call(self, command: Command) -> Response:
        """Enqueue a command and wait; `DeviceError` if the device refuses it."""
        self.enqueue(command)
        return self.require(command)

    def require(self, command: Command) -> Response:
        """Wait for a response that must be OK; `DeviceError` if it is not."""
        response = command.response
        if response is None:
            response = self.wait(command)
        if response.status != OK:
            raise refusal_error(self.name, command, response.status, self._void_remedy)
        return response

    def check(self) -> None:
        """Raise `DeviceError` if the session has ended."""
        if self._over is not None:
            raise DeviceError(self._over)

    def close(self) -> None:
        """End the session. Commands that have no response yet get none."""
        if os.getpid() != self._process:
            # Without the lock: a thread of the other process may have had it when this one forked.
            self._transport.close()
            return
        with self._lock:
            if self._over is None:
                self._over = f"{self.name} is closed; connect again"
            self._transport.close()

    @property
    def _useless_limit(self) -> int:
        """Useless packets that count as a time-out: a link full of garbage must not hang us."""
        return 64 + 8 * self._window

    def _patience_s(self) -> float:
        """How long the device may send nothing, given the commands that it still has.

        They are all from the oldest pending one on. After a loss some of them may be done already.
        """
        least_s = self._transport.timeout_s + LATENCY_SLACK * self._latency_s
        if self._clock_hz is None:
            return least_s
        cycles = self._flight[-1].ends_cycles - self._oldest().begins_cycles
        return least_s + 2 * cycles / self._clock_hz

    def _advance(self) -> None:
        """Send what the window allows: first the lost packets, oldest first, then new ones."""
        if self._unsent:
            self._oldest()  # `_send` must find nothing to forget while this loop runs
            lost = [c for c in self._flight if c.response is None and c.packet <= self._passed]
            for start in range(0, len(lost), self._block):
                self._send(lost[start : start + self._block])
            self._unsent = False
        waiting, flight = self._waiting, self._flight
        while waiting:
            oldest = flight[0]
            if oldest.response is not None:
                oldest = self._oldest()
            # Beyond this room, the device would not repeat its response to the oldest command.
            room, least_room = self._window, self._least_room
            if self._share_again > BAD_SHARE:
                # The device ignores most packets, because an earlier one was lost.
                room, least_room = min(room, BAD_WINDOW), 1
            if oldest.response is None:
                room -= len(flight)
            if room < least_room and room < len(waiting):
                return
            block = []
            newest = flight[-1]
            for _ in range(min(room, self._block, len(waiting))):
                command = waiting[0]
                if command is newest:  # an interrupt came before `popleft`; it was sent above
                    waiting.popleft()
                    continue
                command.seq = (newest.seq + 1) & SEQ_MASK
                link_bytes = len(command.payload) + command.response_bytes + 2 * OVERHEAD_BYTES
                command.begins_cycles = begins = newest.ends_cycles
                command.ends_cycles = begins + command.cycles + self._byte_cycles * link_bytes
                self._unsent = True  # until it is sent
                flight.append(command)
                waiting.popleft()
                block.append(command)
                newest = command
            self._send(block)
            self._unsent = False

    def _oldest(self) -> Command:
        """The oldest pending command; if none is pending, the newest command."""
        flight = self._flight
        while len(flight) > 1 and flight[0].response is not None:
            flight.popleft()
        return flight[0]

    def _accept(self, packet: bytes) -> None:
        """Give a response to its command: one that we sent, and that has no response yet."""
        response = Response.parse(packet)
        if response is None or response.session != self.number:
            self._discard()
            return
        flight = self._flight
        place = (response.seq - flight[0].seq) & SEQ_MASK
        command = flight[place] if place < len(flight) else None
        if command is None or command.response is not None or not command.sends:
            self._discard()
            return
        command.bytes_rx += len(packet)
        size = command.response_bytes
        if response.status != OK:
            if response.status in REFUSALS:
                self._take_refusal(command, response)
                return
            size = 0
        if response.opcode != command.opcode or len(response.payload) != size:
            raise self._fail(
                ProtocolError(
                    f"{self.name} responded to {command.opcode.name} with opcode "
                    f"{response.opcode} and {len(response.payload)} bytes, not {size}; "
                    "build its bitstream with this version"
                )
            )
        if self._latency_s and command.sends == 1:
            measured_s = time.monotonic() - command.sent_s
            self._latency_s = min(self._latency_s, max(measured_s, LATENCY_DECAY * self._latency_s))
        command.response = response
        self._pass(command.packet)
        self._stranger = False
        if self._useless or self._retries:
            self._progress()

    def _take_refusal(self, command: Command, response: Response) -> None:
        """A device has not executed a command: an earlier one is missing, or its session ended.

        It proves nothing by itself: it may be late and concern a packet from long ago.
        """
        self._stranger = response.status == Status.NO_SESSION
        self._pass(command.packet)
        self._unsent = True
        self._discard()
        if self._stranger and command is self._oldest():
            self._give_up_waiting(self._patience_s())

    def _pass(self, packet: int) -> None:
        """Expect no response to a packet any more, and to those before it.

        Responses come in order, so the packets before it that have none were lost.
        """
        if packet > self._passed + 1:
            self._unsent = True
        self._passed = packet

    def _discard(self) -> None:
        self.discarded += 1
        self._useless += 1
        if self._useless >= self._useless_limit:
            self._give_up_waiting(self._patience_s())

    def _give_up_waiting(self, patience_s: float) -> None:
        """Assume that every pending packet was lost.

        The session ends if that happens too often without any progress.
        """
        self._retries += 1
        self._waited_s += patience_s
        if self._is_hopeless():
            raise self._fail(self._timeout(self._oldest()))
        self._useless = 0
        self._unsent = True
        self._passed = self._packets

    def _is_hopeless(self) -> bool:
        """Whether the device was tried often enough, and for long enough, to be given up."""
        # Half a time-out less, so that rounding does not ask for one more.
        enough_s = (MAX_RETRIES + 0.5) * self._first_timeout_s
        return self._retries > MAX_RETRIES and self._waited_s >= enough_s

    def _progress(self) -> None:
        self._retries = 0
        self._waited_s = 0.0
        self._useless = 0

    def _send(self, block: list[Command]) -> list[bytes]:
        """Send commands; gives their packets. `_oldest` was called before."""
        acknowledged = 0
        if self._flight:  # the low byte of the last seq up to which every response has arrived
            oldest = self._flight[0]
            acknowledged = (oldest.seq - (oldest.response is None)) & 0xFF
        now_s = time.monotonic()
        number = self.number
        packets = []
        for command in block:
            command.session = number
            command.acknowledged = acknowledged
            packet = command.pack()
            again = command.sends > 0
            if again or self._share_again:
                self._share_again += (again - self._share_again) / SHARE_PACKETS
                self.retransmissions += again
            self._packets = command.packet = self._packets + 1
            command.sends += 1
            command.sent_s = now_s
            command.bytes_tx += len(packet)
            packets.append(packet)
        try:
            if self._blocks is not None:
                self._blocks.send_block(packets)
            else:
                for packet in packets:
                    self._transport.send(packet)
        except (OSError, DeviceError) as error:
            raise self._fail(self._link_error(error)) from error
        return packets

    def _receive(self, timeout_s: float) -> None:
        """Wait for packets, and store what has come."""
        try:
            if self._blocks is not None:
                self._received += self._blocks.receive_block(timeout_s)
            elif (packet := self._transport.receive(timeout_s)) is not None:
                self._received.append(packet)
        except (OSError, DeviceError) as error:
            raise self._fail(self._link_error(error)) from error

    def _link_error(self, error: Exception) -> DeviceError:
        return DeviceError(f"{self.name}: the link failed ({error}); check it and connect again")

    def _timeout(self, command: Command) -> DeviceError:
        if self._stranger:
            return DeviceError(f"{self.name} was reset; connect again")
        if self._owned:
            return DeviceError(f"{self.name} {OWNED}")
        remedy = getattr(self._transport, "remedy", REMEDY)
        return timeout_error(self.name, command, self._retries, remedy)

    def _fail(self, error: DeviceError) -> DeviceError:
        """End the session, because it is unknown what the device has executed."""
        self._over = f"{self.name}: the session ended with an error; connect again ({error})"
        with suppress(OSError, DeviceError):
            self._transport.close()
        return error


def _random_number() -> int:
    """The number of a session; 0 is that of a device before its first one."""
    return secrets.randbelow(2**SESSION_BITS - 1) + 1
