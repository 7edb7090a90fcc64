"""When each stage of a device works: link in, acceptor, core, responder, link out.

The stages take commands in order and work side by side. Each command passes through them, and this
module follows it: from the moment at which a stage is free and has what it waits for, the number of
cycles that it takes is known. The cycles are those of `tritloom.rtl.control`, state by state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tritloom.rtl.spec.commands import CRC_BYTES, HEADER_BYTES, Opcode
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["Copy", "Exchange", "schedule_cycles"]

CHECK_CYCLES = 1
"""After a packet's last byte, before the next packet's first."""
ARRIVE_CYCLES = 4
"""From a packet's last byte to its first byte in the acceptor."""
DECIDE_CYCLES = 3
"""The order of the command and two states of checks, after its header."""
ASK_CYCLES = 1
"""The weight memory takes the range of words."""
START_CYCLES = 1
"""The core takes the layer."""
RUN_CYCLES = ASK_CYCLES + START_CYCLES
"""From the choice of RUN to the layer's start."""
RESPOND_CYCLES = 1
"""The fields of the response's header are set, before the header is written."""
QUEUE_CYCLES = 2
"""From the acceptor to the responder, through the queue of tasks. One bank has no queue."""
TASK_CYCLES = 1
"""The responder takes a task."""
WAIT_CYCLES = 1
"""It waits for the result bank at least this long, before it copies."""
COMPARE_CYCLES = 1
"""The checksum of a layer is compared, after its last word."""
LEAVE_CYCLES = 3
"""From the cycle that hands over a response to its first byte."""
BEGIN_CYCLES = 1
"""The program begins, after the response to its EXECUTE."""
SEE_CYCLES = 1
"""The end of the program is seen."""
FETCH_CYCLES = 4
"""From a row group's number to its totals, with two banks."""
ONE_BANK_FETCH_CYCLES = 5
"""The same with one bank, beside the cycles by which the engine is late."""
GET_FETCH_CYCLES = 2
"""From a vector word's address to the word."""
GET_CYCLES = GET_FETCH_CYCLES + 1
"""From a vector word that is taken to the next one."""
PROGRAM_CYCLES = BEGIN_CYCLES + SEE_CYCLES
"""Of the acceptor for an EXECUTE, beside the cycles of its program."""
PATCHED_BYTES = (0, 1, 9, 12, 13, 14, 15)
"""Bytes of a response's header that are written after its payload: length, status, value."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The words that the responder copies into a response, or into a checksum.

    Members
    -------
    words : how many
    word_bytes, last_bytes : bytes of each of them, and of the last one
    first : cycles from the responder's first one to the first word
    period : cycles from a word that is taken to the next one, at least
    """

    words: int
    word_bytes: int
    last_bytes: int
    first: int = 0
    period: int = 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command and its response.

    Members
    -------
    opcode : of the command
    bytes_in, bytes_out : of the two packets
    store : cycles of the acceptor from the choice of the command to that of its response
    copy : what the responder copies; None if the response is a header alone
    engine : cycles of RUN, or of the program of EXECUTE
    activation_bank, result_bank : that the command names
    """

    opcode: int
    bytes_in: int
    bytes_out: int
    store: int = 0
    copy: Copy | None = None
    engine: int = 0
    activation_bank: int = 0
    result_bank: int = 0

    def accept_cycles(self, config: AcceleratorConfig) -> int:
        """Cycles in which the acceptor works on the command, if it never waits."""
        choice = HEADER_BYTES + DECIDE_CYCLES + 1
        header = RESPOND_CYCLES + HEADER_BYTES // config.link.beat_bytes
        push = 2 if self.opcode == Opcode.COMMIT else 1
        return choice + self.store + header + push

    def respond_cycles(self, config: AcceleratorConfig) -> int:
        """Cycles in which the responder works on the response, if it never waits."""
        if self.copy is None:
            return TASK_CYCLES
        beat_bytes = config.link.beat_bytes
        if self.opcode == Opcode.COMMIT:  # its checksum is a task of its own
            return 2 * TASK_CYCLES + WAIT_CYCLES + copy_cycles(self.copy, beat_bytes, 0)
        patches = _patches(beat_bytes)
        return TASK_CYCLES + WAIT_CYCLES + copy_cycles(self.copy, beat_bytes, patches)


def _patches(beat_bytes: int) -> int:
    """Beats that hold the bytes of the header that are written after the payload."""
    return len({place // beat_bytes for place in PATCHED_BYTES})


@lru_cache(maxsize=1 << 14)
def copy_cycles(
    copy: Copy, beat_bytes: int, patches: int, headers: tuple[int, ...] = (), header: int = 0
) -> int:
    """Cycles from the responder's first one for the words to its last one for the header.

    This follows `WordSplitter` cycle by cycle: a word is taken when less than a beat is left of the
    word before it, or when exactly a beat is left and leaves.

    Parameters
    ----------
    copy : the words
    beat_bytes : bytes of a beat
    patches : beats of the header that are written at the end
    headers : cycles, counted from the first one, in which the acceptor begins to write a header;
        no beat is stored while it does
    header : cycles of each of these
    """
    blocked = {cycle for begin in headers for cycle in range(begin, begin + header)}
    held, left, available = 0, copy.words, copy.first
    cycle = 0
    while left or held:
        stores = (held >= beat_bytes or (held and not left)) and cycle not in blocked
        if left and cycle >= available and (held < beat_bytes or (held == beat_bytes and stores)):
            left -= 1
            size = copy.word_bytes if left else copy.last_bytes
            held = size + (held if held < beat_bytes else 0)
            available = cycle + copy.period
        elif stores:
            held = max(0, held - beat_bytes)
        cycle += 1
    cycle += 1  # it shows that no byte is left
    while patches:
        patches -= cycle not in blocked
        cycle += 1
    return cycle


@lru_cache(maxsize=1 << 12)
def _leave_cycles(beat_bytes: int, packet_bytes: int) -> int:
    """Cycles from a response's first beat to its last one, if the link takes a beat a cycle."""
    body = packet_bytes - CRC_BYTES
    beats = -(-body // beat_bytes)
    # The last beat of header and payload waits a cycle for the checksum.
    tail = -(-(body - (beats - 1) * beat_bytes + CRC_BYTES) // beat_bytes)
    # The header's beats are fewer than the stages of the memory: the rest waits for the length.
    waits = HEADER_BYTES // beat_bytes < LEAVE_CYCLES and beats > HEADER_BYTES // beat_bytes
    return beats + waits + tail


def schedule_cycles(config: AcceleratorConfig, exchanges: Sequence[Exchange]) -> int:
    """Cycles from the first byte of the first command to the last byte of the last response.

    The device is idle before. The host takes no time: each command is sent as soon as the link is
    free and the window has room.
    """
    return _Stages(config, exchanges).run()


class _Stages:
    """The stages of a device, and what each of them has done so far.

    A time is the number of a cycle; the first command's first byte has number 0. `…_free` is the
    first cycle in which a stage can take what comes next.
    """

    def __init__(self, config: AcceleratorConfig, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self._window = config.window
        self._link = config.link
        self._byte_cycles = config.link.cycles_per_byte(config)
        self._beat_bytes = config.link.beat_bytes
        self._header = HEADER_BYTES // self._beat_bytes
        self._patches = _patches(self._beat_bytes)
        self._queued = config.banks > 1
        self._memory_cycles = config.memory.latency(config) or 1
        self._link_free = 0
        self._accepted = 0
        self._acceptor_free = 0
        self._core_free = 0
        self._reads_bank = 0  # activation bank of the layer that runs
        self._responder_free = 0
        self._sender_free = 0
        self._headers: deque[int] = deque()  # first cycles of headers that may delay the responder
        self._pushes: deque[int] = deque()  # when the acceptor could hand over each task
        self._left: list[int] = []  # the last cycle of each response
        self._done = [0] * config.banks  # by result bank: its layer is done
        self._copied = [0] * config.banks  # its last RESULTS is copied
        self._reader = [-1] * config.banks  # number of its last RESULTS

    def run(self) -> int:
        """All of it; returns the number of cycles."""
        for number, exchange in enumerate(self._exchanges):
            if self._accepted == number:
                self._accept()
            push = self._pushes.popleft()
            task = push + QUEUE_CYCLES
            if not self._queued:  # the acceptor waits for the responder, then goes on
                task = max(push, self._responder_free)
                self._acceptor_free = task + 1
            complete = self._respond(exchange, max(task, self._responder_free))
            self._responder_free = complete + 1
            if exchange.opcode == Opcode.RESULTS:
                self._copied[exchange.result_bank] = complete + 1
            sends = max(complete + 1, self._sender_free)
            bytes_out = exchange.bytes_out
            leaves = max(_leave_cycles(self._beat_bytes, bytes_out), self._on_link(bytes_out))
            self._left.append(sends + LEAVE_CYCLES + leaves - 1)
            self._sender_free = self._left[-1] + 1
        return self._left[-1] + 1

    def _on_link(self, packet_bytes: int) -> int:
        """Cycles that the link takes for a packet."""
        return math.ceil(self._byte_cycles * self._link.framed_bytes(packet_bytes))

    def _accept(self) -> None:
        """The next command arrives and is accepted."""
        number, exchange = self._accepted, self._exchanges[self._accepted]
        self._accepted += 1
        begins = self._link_free
        if number >= self._window:
            begins = max(begins, self._left[number - self._window] + 1)
        # Behind the link, the receiver takes a byte a cycle.
        arrived = begins + max(exchange.bytes_in, self._on_link(exchange.bytes_in)) - 1
        self._link_free = max(arrived + 1, begins + exchange.bytes_in + CHECK_CYCLES)
        taken = max(arrived + ARRIVE_CYCLES, self._acceptor_free)
        chosen = taken + HEADER_BYTES + DECIDE_CYCLES
        opcode, bank = exchange.opcode, exchange.result_bank
        if opcode in (Opcode.PUT, Opcode.EXECUTE):
            # All tasks of the responder must be over.
            chosen = max(chosen, self._responder_free)
        if opcode in (Opcode.LOAD, Opcode.SCALES):
            if self._reads_bank == exchange.activation_bank:
                chosen = max(chosen, self._core_free)
        elif opcode == Opcode.RESULTS:
            self._reader[bank] = number
        elif opcode not in (Opcode.PUT, Opcode.GET):
            chosen = max(chosen, self._core_free)
        if opcode == Opcode.RUN:
            chosen = max(chosen, self._copied[bank])
            self._core_free = chosen + RUN_CYCLES + exchange.engine + 1
            self._reads_bank = exchange.activation_bank
            self._done[bank] = self._core_free
        header = chosen + exchange.store + RESPOND_CYCLES + 1
        if opcode == Opcode.COMMIT and exchange.copy is not None:
            header = self._checksum(exchange.copy, chosen) + COMPARE_CYCLES + RESPOND_CYCLES + 1
        self._headers.append(header)
        self._pushes.append(header + self._header)
        self._acceptor_free = header + self._header + 1
        if opcode == Opcode.EXECUTE:
            # The acceptor serves the program until it has ended.
            self._acceptor_free += PROGRAM_CYCLES + exchange.engine

    def _checksum(self, copy: Copy, chosen: int) -> int:
        """The words of COMMIT pass the responder, which is idle; returns its last cycle."""
        pushed = chosen + ASK_CYCLES + 1
        task = max(pushed + QUEUE_CYCLES * self._queued, self._responder_free)
        begins = task + TASK_CYCLES + WAIT_CYCLES
        asked = chosen + ASK_CYCLES
        first = max(0, asked + self._memory_cycles - begins)
        return begins + copy_cycles(replace(copy, first=first), self._beat_bytes, 0) - 1

    def _respond(self, exchange: Exchange, task: int) -> int:
        """The responder takes a task; returns its last cycle for the response."""
        copy = exchange.copy
        if copy is None or exchange.opcode == Opcode.COMMIT:
            return task
        begins = task + TASK_CYCLES
        if exchange.opcode == Opcode.RESULTS:
            begins = max(begins, self._done[exchange.result_bank])
        begins += WAIT_CYCLES
        headers = self._headers
        while headers and headers[0] + self._header <= begins:
            headers.popleft()
        # The acceptor works on beside it. Its headers keep the responder waiting, but only those
        # that come before the end, and some of these follow only from others.
        while True:
            cycles = copy_cycles(copy, self._beat_bytes, self._patches)
            blocks: tuple[int, ...] = ()
            for header in headers:
                if header >= begins + cycles:
                    break
                blocks = (*blocks, header - begins)
                cycles = copy_cycles(copy, self._beat_bytes, self._patches, blocks, self._header)
            if (headers and headers[-1] >= begins + cycles) or not self._may_accept():
                return begins + cycles - 1
            self._accept()

    def _may_accept(self) -> bool:
        """Whether the next command can be accepted before the current response is complete."""
        number, responded = self._accepted, len(self._left)
        if number == len(self._exchanges) or number >= responded + self._window:
            return False
        if not self._queued and number > responded + 1:
            return False
        exchange = self._exchanges[number]
        if exchange.opcode == Opcode.RUN:
            return self._reader[exchange.result_bank] < responded
        return exchange.opcode not in (Opcode.COMMIT, Opcode.PUT, Opcode.EXECUTE)
