"""A session with a device: commands in order, each executed once, over a link that may fail.

The device executes only the next sequence number, replays the answers to its last ``window``
commands, and answers each packet that arrives once. So a packet that is unanswered when a later
one is answered was lost, one way or the other, and is sent again; after a silence all are. At most
``window`` packets are under way, each of at most ``packet_bytes``, which is what the device can
buffer. Answers of another session, to another command, repeated or corrupt are discarded.

Nothing runs in the background: commands are sent when they are enqueued and credit is left, and
whenever a caller waits. The state is consistent between any two statements, so a wait that is
interrupted loses nothing: the next wait goes on from there.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass

from tritloom.host.links.transport import Transport
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode, Request, Response, Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, DeviceTimeout, ProtocolError

__all__ = ["MAX_RETRIES", "SMALLEST_PAYLOAD", "Command", "Session"]

MAX_RETRIES = 8
"""How often in a row all is sent again without any answer before the device is given up, at least;
oftener where the transport's timeout has become shorter than it was: the time is the same."""
BAD_SHARE = 1 / 8
"""Share of packets sent again from which pieces are small: long packets hardly come through."""
BAD_WINDOW = 3
"""Most commands under way while it is so."""
SHARE_PACKETS = 32
"""Packets over which that share is taken."""
LINK_CYCLES_PER_BYTE = 16
"""Device cycles that a byte may take on a link that is not slower by itself."""
BYTE_MARGIN = 1.2
"""Start, eight and stop, and room for what framing adds."""
SMALLEST_PAYLOAD = 64 - OVERHEAD_BYTES
"""Payload that any device takes and sends, whatever its configuration."""
SEQ_MASK = 0xFFFF


@dataclass(slots=True, eq=False, kw_only=True)
class Command:
    """One command, and its answer once it has one.

    ``answer_bytes``: payload of the answer. ``cycles``: device cycles it may take, link excluded.
    ``bytes_tx``, ``bytes_rx``: what it moved over the link, packets sent again included.
    """

    opcode: Opcode
    index: int = 0
    count: int = 0
    address: int = 0
    payload: bytes = b""
    answer_bytes: int = 0
    cycles: int = 0
    seq: int = 0
    sends: int = 0
    bytes_tx: int = 0
    bytes_rx: int = 0
    answer: Response | None = None


class Session:
    """Commands and answers over one transport, from ``open`` until an error or ``close``.

    ``name`` is what error messages call the device. ``retransmissions`` and ``discarded`` count
    packets sent again and packets received in vain.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self.name = name
        self.number = secrets.randbelow(2**32 - 1) + 1
        self.retransmissions = 0
        self.discarded = 0
        self._transport = transport
        self._window = 1
        self._clock_hz: int | None = None
        self._byte_cycles = LINK_CYCLES_PER_BYTE
        self._waiting: deque[Command] = deque()
        self._flight: deque[Command] = deque()  # from the oldest unanswered; the newest stays
        self._sent: deque[Command] = deque()  # packets that may yet be answered, oldest first
        self._retries = 0
        self._waited_s = 0.0  # in these retries
        self._first_timeout_s = transport.timeout_s
        self._share_again = 0.0
        self._useless = 0
        self._stranger = False  # the last thing heard was NO_SESSION
        self._over: str | None = None

    def open(self) -> int:
        """Start the session on the device; returns the device's protocol version."""
        reset = Command(opcode=Opcode.RESET)
        while not self._is_hopeless():
            timeout_s = self._transport.timeout_s
            self._send(reset)
            for _ in range(self._useless_limit):
                packet = self._receive(timeout_s)
                if packet is None:
                    break
                answer = Response.parse(packet)
                if (
                    answer is not None
                    and (answer.session, answer.opcode) == (self.number, Opcode.RESET)
                    and answer.status == Status.OK
                ):
                    reset.answer = answer
                    self._sent.clear()
                    self._flight.append(reset)
                    self._progress()
                    return answer.value
                self.discarded += 1
            self._retries += 1
            self._waited_s += timeout_s
        raise self._fail(self._timeout(reset))

    def configure(self, config: AcceleratorConfig) -> None:
        """Use the device's own credit and clock; before, the least that any device has."""
        self._window = config.window
        self._clock_hz = config.clock_hz
        self._byte_cycles = max(
            self._byte_cycles, round(BYTE_MARGIN * config.link.cycles_per_byte(config))
        )

    def payload_limit(self, most: int) -> int:
        """Bytes of payload to put in a packet of at most ``most``: few while the link is bad.

        With a byte in thirty damaged, as much gets through a second at 20 to 50 bytes of payload,
        and next to nothing at some hundred.
        """
        return min(most, SMALLEST_PAYLOAD) if self._is_bad else most

    @property
    def _is_bad(self) -> bool:
        return self._share_again > BAD_SHARE

    def enqueue(self, *commands: Command) -> None:
        """Append commands; they are executed in this order, after all that came before."""
        self.check()
        self._waiting.extend(commands)
        self._advance()

    def wait(self, command: Command) -> Response:
        """Wait for the answer to an enqueued command, whatever its status."""
        while command.answer is None:
            self.check()
            self._advance()
            patience_s = self._patience_s()
            packet = self._receive(patience_s)
            if packet is None:
                self._give_up_waiting(patience_s)
            else:
                self._accept(packet)
        return command.answer

    def call(self, command: Command) -> Response:
        """Enqueue a command and wait; ``DeviceError`` if the device refuses it."""
        self.enqueue(command)
        return self.require(command)

    def require(self, command: Command) -> Response:
        """Wait for an answer that must be OK; ``DeviceError`` if it is not."""
        answer = self.wait(command)
        if answer.status != Status.OK:
            try:
                reason = Status(answer.status).name
            except ValueError:
                reason = f"unknown status {answer.status}"
            raise DeviceError(
                f"{self.name} refused {command.opcode.name} of index {command.index}, "
                f"count {command.count}, address {command.address}: {reason}"
            )
        return answer

    def check(self) -> None:
        """Raise ``DeviceError`` if the session has ended."""
        if self._over is not None:
            raise DeviceError(self._over)

    def close(self) -> None:
        """End the session; commands that are still unanswered get none."""
        if self._over is None:
            self._over = f"{self.name} is closed; connect again"
        self._transport.close()

    @property
    def _useless_limit(self) -> int:
        """Packets received in vain that count as silence: a link that babbles must not hang us."""
        return 64 + 8 * self._window

    def _patience_s(self) -> float:
        """How long the device may be silent, with all that is under way."""
        if self._clock_hz is None:
            return self._transport.timeout_s
        cycles = sum(
            command.cycles
            + self._byte_cycles * (len(command.payload) + command.answer_bytes + 2 * OVERHEAD_BYTES)
            for command in self._unanswered()
        )
        return self._transport.timeout_s + 2 * cycles / self._clock_hz

    def _advance(self) -> None:
        """Send what the credit allows: what was lost, oldest first, then what waits."""
        while self._waiting and self._has_room():
            command = self._waiting[0]
            if command is not self._flight[-1]:  # it is if we were interrupted just below
                command.seq = (self._flight[-1].seq + 1) & SEQ_MASK
                self._flight.append(command)
            self._waiting.popleft()
        for command in self._unanswered():
            if command not in self._sent:
                self._send(command)

    def _has_room(self) -> bool:
        """Whether the oldest unanswered command stays within what the device replays."""
        while len(self._flight) > 1 and self._flight[0].answer is not None:
            self._flight.popleft()
        # While the link is bad, what is behind a lost packet is mostly sent in vain.
        window = min(self._window, BAD_WINDOW) if self._is_bad else self._window
        return self._flight[0].answer is not None or len(self._flight) < window

    def _unanswered(self) -> list[Command]:
        return [command for command in self._flight if command.answer is None]

    def _accept(self, packet: bytes) -> None:
        answer = Response.parse(packet)
        command = None if answer is None else self._addressee(answer)
        if answer is None or command is None:
            self._discard()
            return
        command.bytes_rx += len(packet)
        while command in self._sent and self._sent.popleft() is not command:
            pass
        if answer.status in (Status.NAK, Status.NO_SESSION):
            # Never proof by itself: it may be late, and belong to what was sent long ago.
            self._stranger = answer.status == Status.NO_SESSION
            self._discard()
            if self._stranger and command is self._unanswered()[0]:
                self._give_up_waiting(self._patience_s())
            return
        size = command.answer_bytes if answer.status == Status.OK else 0
        if answer.opcode != command.opcode or len(answer.payload) != size:
            raise self._fail(
                ProtocolError(
                    f"{self.name} answered {command.opcode.name} with opcode {answer.opcode} and "
                    f"{len(answer.payload)} bytes, not {size}; "
                    "build its bitstream with this version"
                )
            )
        command.answer = answer
        self._progress()
        self._stranger = False

    def _addressee(self, answer: Response) -> Command | None:
        """The unanswered command that was sent and that this is about."""
        if answer.session != self.number and answer.status != Status.NO_SESSION:
            return None
        place = (answer.seq - self._flight[0].seq) & SEQ_MASK
        if place >= len(self._flight):
            return None
        command = self._flight[place]
        return command if command.sends and command.answer is None else None

    def _discard(self) -> None:
        self.discarded += 1
        self._useless += 1
        if self._useless >= self._useless_limit:
            self._give_up_waiting(self._patience_s())

    def _give_up_waiting(self, patience_s: float) -> None:
        """Take all that is unanswered for lost; the session ends when that happens too often."""
        self._retries += 1
        self._waited_s += patience_s
        if self._is_hopeless():
            raise self._fail(self._timeout(self._unanswered()[0]))
        self._useless = 0
        self._sent.clear()

    def _is_hopeless(self) -> bool:
        """Whether the device is given up: tried often enough, and for long enough."""
        # Half a timeout less, so that rounding does not ask for one more.
        enough_s = (MAX_RETRIES + 0.5) * self._first_timeout_s
        return self._retries > MAX_RETRIES and self._waited_s >= enough_s

    def _progress(self) -> None:
        self._retries = 0
        self._waited_s = 0.0
        self._useless = 0

    def _send(self, command: Command) -> None:
        packet = Request(
            command.opcode,
            command.seq,
            self.number,
            command.index,
            command.count,
            command.address,
            command.payload,
        ).pack()
        self._share_again += (bool(command.sends) - self._share_again) / SHARE_PACKETS
        if command.sends:
            self.retransmissions += 1
        self._sent.append(command)
        command.sends += 1
        command.bytes_tx += len(packet)
        try:
            self._transport.send(packet)
        except (OSError, DeviceError) as error:
            raise self._fail(self._link_error(error)) from error

    def _receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._transport.receive(timeout_s)
        except (OSError, DeviceError) as error:
            raise self._fail(self._link_error(error)) from error

    def _link_error(self, error: Exception) -> DeviceError:
        return DeviceError(f"{self.name}: the link failed ({error}); check it and connect again")

    def _timeout(self, command: Command) -> DeviceError:
        if self._stranger:
            return DeviceError(f"{self.name} was reset; connect again")
        return DeviceTimeout(
            f"{self.name} does not answer {command.opcode.name}, tried {self._retries} times; "
            "check its power, bitstream, cable and baud, then connect again"
        )

    def _fail(self, error: DeviceError) -> DeviceError:
        """End the session: what the device has executed is no longer known."""
        self._over = f"{self.name}: the session ended with an error; connect again ({error})"
        return error
