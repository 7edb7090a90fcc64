"""What surrounds a command processor, played cycle by cycle, with every rule of its ports checked.

The world is a model of link, weight memory and core. It stalls each stream at random. It checks in
every cycle that no command uses a bank that another one still needs.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np

from tests.support.packets import Inputs
from tests.support.plugins import void_words
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.spec.checks import Quantity, checks_of
from tritloom.rtl.spec.commands import (
    COUNTERS,
    CRC_BYTES,
    Opcode,
    Request,
    Response,
    Status,
    seal,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.packing import unpack_weights
from tritloom.sim.conformance.streams import plain, simulate
from tritloom.sim.device.reference import ReferenceDevice


def set_void(device: ReferenceDevice) -> None:
    """If its memory can fail, it fails as a `FailingMemory` with the same words does."""
    if device.config.memory.can_fail:
        words = len(device.memory)
        device.void_words = void_words(int(device.memory[0, 0]), words)


CORE_CYCLES = 4
"""Cycles from a row group's number to its totals, at least."""
QUIET_CYCLES = 250
"""Cycles without work after which a response that has not come never does."""

HANG_CYCLES = 3000
"""Cycles without a byte, a word or a response after which the processor hangs."""


@dataclass(slots=True)
class Due:
    """The response that the reference device gives to a packet.

    Members
    -------
    request, response : the packet, and what the processor must respond
    repeated : the command was executed before; the response may be missing
    run : number of the RUN whose results the response holds, from 0; `None` for other responses
    runs_before : RUNs that are executed before the command
    """

    request: Request
    response: Response
    repeated: bool
    run: int | None = None
    runs_before: int = 0


class Plan:
    """What a list of packets must lead to.

    Members
    -------
    due : the responses, in order
    fetches_before : for each RUN that is executed, the row groups of each bank that all RESULTS
        before it read
    fetches : the same after all packets
    runs, loads : how many RUNs are executed, and how many words LOADs store
    """

    def __init__(self, config: AcceleratorConfig, packets: list[bytes]) -> None:
        self.due: list[Due] = []
        self.fetches_before: list[Counter[int]] = []
        self.fetches: Counter[int] = Counter()
        device = ReferenceDevice(config)
        last_run: dict[int, int] = {}
        stored: dict[int, Due] = {}
        for packet in packets:
            request, expected = Request.parse(packet), device.next_seq
            set_void(device)
            known = request.opcode in checks_of(config)
            failure = device.failure(request) if known and request.opcode != Opcode.DEFINE else None
            response = Response.parse(device.process(packet))
            if request.opcode == Opcode.RESET or response.status in (
                Status.NAK,
                Status.NO_SESSION,
            ):
                if request.opcode == Opcode.RESET and device.next_seq == 1:
                    stored.clear()
                self.due.append(Due(request, response, False))
                continue
            if device.next_seq == expected:
                first = stored[request.seq]
                self.due.append(replace(first, repeated=True))
                continue
            due = Due(request, response, False, runs_before=len(self.fetches_before))
            self.due.append(due)
            stored[request.seq] = due
            bank = request.result_bank
            if request.opcode == Opcode.RUN and failure is None:
                last_run[bank] = len(self.fetches_before)
                self.fetches_before.append(self.fetches.copy())
            if request.opcode == Opcode.RESULTS and (
                failure is None or failure.quantity == Quantity.ROW_GROUPS_END
            ):
                self.fetches[bank] += -(-request.count // config.rows)
                due.run = last_run[bank] if failure is None else None


class _Port:
    """A stream's members, each the same object whenever it is asked for."""

    def __init__(self, stream) -> None:
        self.valid, self.ready, self.payload = stream.valid, stream.ready, stream.payload


class World:
    """A processor and all around it.

    Parameters
    ----------
    config : the processor's configuration
    stall : probability with which each neighbour is not ready, in each cycle
    seed : of everything random

    Members
    -------
    responses : what was sent, with its checksum
    matched : after `simulate`, the response to each packet; `None` if a repeated one has none
    runs : cycles in which `running` was set, for each RUN
    cycles : cycles since the first one
    asked_ahead : ranges that were asked for while a layer ran
    together : how often each of `load`, `fetch` and `write` moved while a layer ran
    send_cycles : cycles that the sender takes for each response
    word_pause : probability with which the core does not take a weight word, in each cycle
    counters : what the ports `counters` show, and the number of layers that are done in each
    """

    def __init__(self, config: AcceleratorConfig, stall: float, seed: int) -> None:
        self.config = config
        self.dut = CommandProcessor(config)
        names = ("i", "i_word", "i_result", "o_send", "o_write", "o_read", "o_load")
        names += ("o_run", "o_fetch")
        self._ports = {name: _Port(getattr(self.dut, name)) for name in names}
        self.responses: list[bytes] = []
        self.counters = [0] * len(COUNTERS)
        self.runs: list[int] = []
        self.cycles = 0
        self.asked_ahead = 0
        self.together: Counter[str] = Counter()
        self.send_cycles = 0
        self.word_pause = stall
        self._headers = 0  # packets whose header was taken
        self._packet_of = [-1] * config.slots  # the packet that the response in a slot is to
        self._answered: list[int] = []  # the same, for each response that is sent
        self._rng = random.Random(seed)
        self._stall = stall
        self._beat_bytes = config.link.beat_bytes
        self._stored = bytearray(config.slots * config.packet_bytes)
        self._memory = [0] * config.memory_words
        self._activations = np.zeros(
            (config.banks, config.tokens, config.activation_words, config.fill), np.uint8
        )
        self._words: list[int] = []  # asked for and not yet taken
        self._voids: list[bool] = []  # for each of them, whether it is void
        # Words that may wait when a range is taken: those of two ranges wait if that is allowed.
        self._most_waiting = 3 if config.asks_ahead else 0
        self._run_words: list[int] = []  # words that the core took
        self._run_length = 0  # of the layer that runs, in words
        self._was_to_core = False  # `to_core` in the previous cycle
        self._none_waited = True  # whether no word was on its way in the previous cycle
        self._run: dict[str, int] | None = None  # the layer that runs
        self._done_in = 0
        self._sums = np.zeros(
            (config.banks, config.tokens, config.result_row_groups, config.rows), np.int64
        )
        self._fetches: deque[list[int]] = deque()  # cycles until the totals, bank, row group
        self._fetched: Counter[int] = Counter()  # totals taken of each bank
        self._sending: list[int] = []  # the slot of the response that is sent, and the cycles left
        self._limit = HANG_CYCLES

    def simulate(self, packets: list[bytes]) -> list[Due]:
        """Feed sound packets as the receiver does, without a pause; what was due.

        Each response is compared. The processor may leave out those to repeated commands.
        """
        self._plan = Plan(self.config, packets)
        data = b"".join(packet[:-CRC_BYTES] for packet in packets)
        least = sum(not due.repeated for due in self._plan.due)

        async def bench(ctx):
            self._inputs = Inputs(ctx)
            self._set_counters(ctx)
            position = quiet = 0
            while quiet < QUIET_CYCLES + self.send_cycles:
                before = (position, len(self.responses), len(self._words))
                position += await self._cycle(ctx, data[position : position + 1])
                moved = before != (position, len(self.responses), len(self._words))
                if moved:
                    self._limit = self.cycles + HANG_CYCLES
                waits = position < len(data) or len(self.responses) < least
                quiet = 0 if waits or moved or self._run is not None else quiet + 1

        simulate(self.dut, bench, deadline_cycles=0)
        self._compare()
        assert len(self.runs) == len(self._plan.fetches_before), "a RUN more or less"
        assert self._fetched == self._plan.fetches, "a row group more or less was fetched"
        return self._plan.due

    def _compare(self) -> None:
        responses, answered = deque(self.responses), deque(self._answered)
        self.matched: list[Response | None] = []
        for number, due in enumerate(self._plan.due):
            expected = due.response
            if due.run is not None:
                expected = replace(expected, value=self.runs[due.run])
            if expected.opcode == Opcode.COUNTERS and expected.payload:
                counters = (value + due.runs_before for value in self.counters)
                payload = struct.pack(f"<{len(COUNTERS)}Q", *counters)
                expected = replace(expected, payload=payload)
            seen = Response.parse(responses[0]) if responses else None
            if due.repeated and (seen != expected or answered[0] != number):
                self.matched.append(None)
                continue
            assert seen == expected, due.request
            assert answered.popleft() == number, "a response goes to the sender of another packet"
            self.matched.append(seen)
            responses.popleft()
        assert not responses, "more responses than packets"

    def _goes(self) -> bool:
        return self._rng.random() >= self._stall

    async def _cycle(self, ctx, byte: bytes) -> bool:
        dut, config, inputs, ports = self.dut, self.config, self._inputs, self._ports
        self.cycles += 1
        assert self.cycles < self._limit, f"{len(self.responses)} responses, then nothing more"
        offered = bool(byte) and self._goes()
        runs = self._run is not None
        may_fetch = self._goes() and (config.banks == 2 or not (self._fetches or runs))
        ready = {
            "o_send": not self._sending and self._goes(),
            "o_write": self._goes(),
            "o_read": len(self._words) <= self._most_waiting and self._goes(),
            "o_load": self._goes(),
            "o_run": not runs and self._goes(),
            "o_fetch": may_fetch,
        }
        # The words of RUN go to the core, which takes them when it runs.
        to_core, running = bool(ctx.get(dut.to_core)), bool(ctx.get(dut.running))
        assert running == runs
        assert to_core or not running
        if self._words and not self._none_waited:
            assert to_core == self._was_to_core, "words go elsewhere while they are on their way"
        self._was_to_core, self._none_waited = to_core, not self._words
        word = self._words[0] if self._words and self._goes() else None
        takes = running and len(self._run_words) < self._run_length
        core_word = word if takes and self._rng.random() >= self.word_pause else None
        result = None
        if self._fetches and self._fetches[0][0] <= 0 and self._goes():
            _, bank, row_group = self._fetches[0]
            result = self._sums[bank, :, row_group % config.result_row_groups].flatten().tolist()
        inputs.set(ports["i"].valid, offered)
        if offered:
            inputs.set(ports["i"].payload, byte[0])
        for name, value in ready.items():
            inputs.set(ports[name].ready, value)
        inputs.set(ports["i_word"].valid, word is not None and not to_core)
        if word is not None and not to_core:
            inputs.set(ports["i_word"].payload, word)
        if config.memory.can_fail:
            moves = core_word is not None or (
                word is not None and not to_core and bool(ctx.get(dut.i_word.ready))
            )
            inputs.set(dut.void, moves and self._voids[0])
        inputs.set(dut.done, self._done_in == 1)
        inputs.set(ports["i_result"].valid, result is not None)
        if result is not None:
            inputs.set(ports["i_result"].payload, result)
        moved = {
            name: plain(ctx.get(ports[name].payload))
            for name, value in ready.items()
            if value and ctx.get(ports[name].valid)
        }
        sampled = (dut.i.ready, dut.write, dut.address, dut.data, dut.mask, dut.i_word.ready)
        sampled += (dut.i_result.ready, dut.took_header, dut.begins, dut.begin_slot)
        _, _, *values = await ctx.tick().sample(*sampled)
        accepted, write, address, data, mask, word_ready, result_ready, took, begins, slot = values
        if begins:
            assert not self._sending or slot != self._sending[0]
            self._packet_of[slot] = self._headers - 1
        self._headers += took
        self._check_banks(moved)
        if running:
            self.runs[-1] += 1
            self.together["load"] += "o_load" in moved
            self.together["fetch"] += "o_fetch" in moved
            self.together["write"] += write
        if self._done_in == 1:
            self._finish()
            self._set_counters(ctx)
        self._done_in = max(0, self._done_in - 1)
        if write:
            self._store(address, data, mask)
        if core_word is not None:
            self._run_words.append(self._words.pop(0))
            self._voids.pop(0)
            if len(self._run_words) == self._run_length:
                self._done_in = self._rng.randrange(1, 6)
        elif word is not None and not to_core and word_ready:
            self._words.pop(0)
            self._voids.pop(0)
        for fetch in self._fetches:
            fetch[0] -= 1
        if result is not None and result_ready:
            self._fetched[self._fetches.popleft()[1]] += 1
        self._move(moved)
        if self._sending:
            if self._sending[1] == 0:
                self._send(self._sending[0])
            else:
                self._sending[1] -= 1
        return bool(offered and accepted)

    def _set_counters(self, ctx) -> None:
        done = len(self.runs)
        for index, value in enumerate(self.counters):
            ctx.set(self.dut.counters[index], value + done)

    def _check_banks(self, moved: dict) -> None:
        """No command uses a bank that another one needs."""
        run = self._run
        if "o_load" in moved:
            assert run is None or moved["o_load"]["bank"] != run["activation_bank"]
        if "o_fetch" in moved:
            assert run is None or moved["o_fetch"]["bank"] != run["result_bank"]
        if "o_run" in moved:
            number, bank = len(self.runs), moved["o_run"]["result_bank"]
            assert number < len(self._plan.fetches_before), "a RUN that is not in order"
            wanted = self._plan.fetches_before[number][bank]
            waiting = sum(fetch[1] == bank for fetch in self._fetches)
            assert waiting == 0, "a layer starts while a row group of its bank is fetched"
            assert self._fetched[bank] == wanted, "a layer starts before RESULTS of its bank"

    def _store(self, address: int, data: int, mask: int) -> None:
        """A beat for the sender; the response that is sent must not change."""
        start = address * self._beat_bytes
        if self._sending:
            assert start // self.config.packet_bytes != self._sending[0]
        for place in range(self._beat_bytes):
            if mask >> place & 1:
                self._stored[start + place] = data >> 8 * place & 0xFF

    def _move(self, moved: dict) -> None:
        """What the streams of the processor bring."""
        if "o_write" in moved:
            assert self._run is None and not self._words, "words are written while others are read"
            self._memory[moved["o_write"]["address"]] = moved["o_write"]["word"]
        if "o_read" in moved:
            start, count = moved["o_read"]["address"], moved["o_read"]["count"]
            self.asked_ahead += self._run is not None
            self._words += self._memory[start : start + count]
            void = void_words(self._memory[0], self.config.memory_words)
            fails = self.config.memory.can_fail
            self._voids += [fails and place in void for place in range(start, start + count)]
            assert len(self._words) >= count > 0
        if "o_load" in moved:
            load = moved["o_load"]
            raw = load["word"].to_bytes(self.config.fill, "little")
            self._activations[load["bank"], load["token"], load["address"]] = list(raw)
        if "o_run" in moved:
            self._run, self._run_words = moved["o_run"], []
            self._run_length = (self._run["last_tile"] + 1) * (self._run["last_group"] + 1)
            self._sums[self._run["result_bank"]] = 55  # nothing may read it before the end
            self.runs.append(0)
        if "o_fetch" in moved:
            fetch = moved["o_fetch"]
            self._fetches.append([CORE_CYCLES, fetch["bank"], fetch["row_group"]])
        if "o_send" in moved:
            self._sending = [moved["o_send"], self.send_cycles]
            self._answered.append(self._packet_of[moved["o_send"]])

    def _send(self, slot: int) -> None:
        """The sender has read the last byte of the response in a slot."""
        start = slot * self.config.packet_bytes
        size = int.from_bytes(self._stored[start : start + 2], "little") - CRC_BYTES
        self.responses.append(seal(bytes(self._stored[start : start + size])))
        self._sending = []

    def _finish(self) -> None:
        """What the core would have computed."""
        config, run = self.config, self._run
        tiles, groups = run["last_tile"] + 1, run["last_group"] + 1
        assert len(self._run_words) == tiles * groups
        image = b"".join(word.to_bytes(config.word_bytes, "little") for word in self._run_words)
        rows, columns = groups * config.rows, tiles * config.lanes
        trits = unpack_weights(config, image, rows, columns).astype(np.int64)
        bank = self._activations[run["activation_bank"]]
        codes = bank.reshape(config.tokens, -1).view(np.int8)[:, :columns]
        size = tiles if "last_of_group" not in run else run["last_of_group"] + 1
        width = min(size, tiles) * config.lanes
        for number, start in enumerate(range(0, columns, width)):
            part = slice(start, start + width)
            sums = (codes[:, part] @ trits[:, part].T).reshape(config.tokens, groups, config.rows)
            row_group = number * groups
            self._sums[run["result_bank"], :, row_group : row_group + groups] = sums
        assert run.get("last_result", groups - 1) == row_group + groups - 1
        self._run = None
