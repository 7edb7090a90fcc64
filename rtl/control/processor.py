"""The command processor: takes commands in order, executes each once, writes its response.

Its parts: `CommandOrder` says which command is the next one, `WordRegister` moves words in and out,
`LayerTable` knows the layers. What remains here is one state machine, in the order in which a
command passes through it: header, order, checks, words in, weight words, words out, response.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.control.checks import HeaderChecks, status_of
from tritloom.rtl.control.layer_table import LayerTable
from tritloom.rtl.control.layouts import COUNTER_BITS
from tritloom.rtl.control.order import CommandOrder
from tritloom.rtl.control.registers import CommandRegisters
from tritloom.rtl.control.words import WordRegister, activations_in, results_out
from tritloom.rtl.core.core import load_layout, run_layout
from tritloom.rtl.core.partial_sums import fetch_layout
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.contract import range_layout, write_layout
from tritloom.rtl.spec.checks import Quantity
from tritloom.rtl.spec.commands import (
    COUNTERS,
    CRC_BYTES,
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Status,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig


class CommandProcessor(wiring.Component):
    """Executes the commands of `tritloom.rtl.spec.commands`, one at a time.

    Members
    -------
    i : in, stream of bytes
        Header and payload of right packets, one after the other.
    address, byte, write : out
        A byte of the response for a `PacketSender`, at most one a cycle.
    o_send : out, stream of slot numbers
        The response to send, when all of its bytes are written.
    o_write : out, stream of `write_layout`
        Weight words for the weight memory.
    o_read : out, stream of `range_layout`
        Ranges that the weight memory reads. The words of RUN go to the core, those of READ and
        COMMIT to `i_word`.
    i_word : in, stream of weight words
        The words of READ and COMMIT.
    to_core : out, 1 bit
        The next words of the weight memory are those of a RUN. Set from the cycle after the
        transfer at `o_read` until `done`, so it does not change while a word waits.
    running : out, 1 bit
        The core runs a layer; RUN responds with the number of these cycles.
    o_load : out, stream of `load_layout`
        Activations for the core.
    o_run : out, stream of `run_layout`
        The transfer starts a layer in the core.
    done : in, 1 bit
        The core has completed the layer.
    o_fetch : out, stream of `fetch_layout`
        The row group whose totals the core shall read.
    i_result : in, stream of `sums_layout`
        Its totals.
    counters : in, `COUNTER_BITS` each
        In the order of `COUNTERS`.
    """

    i: stream.Interface
    address: Signal
    byte: Signal
    write: Signal
    o_send: stream.Interface
    o_write: stream.Interface
    o_read: stream.Interface
    i_word: stream.Interface
    to_core: Signal
    running: Signal
    o_load: stream.Interface
    o_run: stream.Interface
    done: Signal
    o_fetch: stream.Interface
    i_result: stream.Interface
    counters: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "address": Out(range(config.slots * config.packet_bytes)),
                "byte": Out(8),
                "write": Out(1),
                "o_send": Out(stream.Signature(range(config.slots))),
                "o_write": Out(stream.Signature(write_layout(config))),
                "o_read": Out(stream.Signature(range_layout(config))),
                "i_word": In(stream.Signature(Shape(config.word_bits))),
                "to_core": Out(1),
                "running": Out(1),
                "o_load": Out(stream.Signature(load_layout(config))),
                "o_run": Out(stream.Signature(run_layout(config))),
                "done": In(1),
                "o_fetch": Out(stream.Signature(fetch_layout(config))),
                "i_result": In(stream.Signature(sums_layout(config, config.acc_bits))),
                "counters": In(data.ArrayLayout(COUNTER_BITS, len(COUNTERS))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        states = _States(m, self)
        with m.FSM(init="BEGIN"):
            states.take_request()
            states.make_checks()
            states.store_words()
            states.use_weights()
            states.send_words()
            states.respond()
        return m


class _States(CommandRegisters):
    """The states of the command processor, and the parts that they use.

    Each public method adds some states to the state machine of the processor `ports`.
    """

    def __init__(self, m: Module, ports: CommandProcessor) -> None:
        super().__init__(ports.config)
        self.m = m
        self.ports = ports
        config, about = self.config, identity(self.config)
        m.submodules.order = self.order = CommandOrder(config)
        m.submodules.table = self.table = LayerTable(config)
        m.submodules.identity = rom = block_ram(8, len(about), about)
        self.identity = ReadPort(m, rom)
        m.submodules.crc = self.crc = CRC32.create()
        m.submodules.words = self.words = WordRegister(self.longest_word)
        self.results = self.banks[self._bank(self.request.result_bank)]
        fields = (self.request, self.left, self.position, self.items)
        self.checks = HeaderChecks(m, config, *fields, self.table.entry, self.results.present)
        self._connect()

    def _connect(self) -> None:
        """Add what is the same in all states."""
        config, ports, request, position = self.config, self.ports, self.request, self.position
        word, entry = self.words.word, self.table.entry
        address = Signal(bits_for(config.memory_words))  # of the next word in the weight memory
        offset = Signal(range(config.packet_bytes))  # of the next byte of the response in its slot
        self.m.d.comb += [
            self.order.session.eq(request.session),
            self.order.seq.eq(request.seq),
            self.order.reset.eq(request.opcode == Opcode.RESET),
            self.table.index.eq(request.index),
            self.table.definition.eq(word[-8 * LAYER.size :]),
            self.words.size.eq(self.size),
            self.words.byte.eq(ports.i.payload),
            self.identity.addr.eq(position),
            self.crc.data.eq(word[:8]),
            offset.eq(self.written),
            ports.address.eq(Cat(offset, self.slot)),
            ports.o_send.payload.eq(self.slot),
            address.eq(entry.base + position),
            ports.o_write.payload.word.eq(word[-8 * config.word_bytes :]),
            ports.o_write.payload.address.eq(self.write_address),
            ports.o_read.payload.address.eq(address),
            ports.o_read.payload.count.eq(self.items),
            ports.o_load.payload.word.eq(activations_in(config, word)),
            ports.o_load.payload.address.eq(position),
            ports.o_load.payload.token.eq(request.index),
            ports.o_run.payload.last_tile.eq(entry.last_tile),
            ports.o_load.payload.bank.eq(request.activation_bank),
            ports.o_run.payload.last_group.eq(entry.last_group),
            ports.o_run.payload.activation_bank.eq(request.activation_bank),
            ports.o_run.payload.result_bank.eq(request.result_bank),
            ports.o_fetch.payload.row_group.eq(position),
            ports.o_fetch.payload.bank.eq(request.result_bank),
        ]
        room = Mux(request.opcode == Opcode.WRITE, entry.words, config.activation_words)
        self.m.d.sync += [self.write_address.eq(address), self.no_room.eq(position >= room)]

    def _bank(self, bank: Value) -> Value | int:
        """The number of a bank that a request names, after the checks."""
        return bank if self.config.banks > 1 else 0

    def _fail(self, status: Status) -> None:
        """Go on to a response without payload."""
        self.m.d.sync += [self.status.eq(status), self.value.eq(0)]
        self.m.next = "DRAIN"

    def _emit(self, byte: Value) -> None:
        """Write the next byte of the response."""
        self.m.d.comb += [self.ports.byte.eq(byte), self.ports.write.eq(1)]
        self.m.d.sync += self.written.eq(self.written + 1)

    def _send_word(self, word: Value, size: int | Value) -> None:
        """Send the low `size` bytes of `word`, which are one item, and go on to the next item."""
        m = self.m
        m.d.comb += [
            self.words.load.eq(1),
            self.words.new_word.eq(word),
            self.words.new_size.eq(size),
        ]
        m.d.sync += [self.position.eq(self.position + 1), self.items.eq(self.items - 1)]
        m.next = "SHIFT"

    def take_request(self) -> None:
        """States that take a request's header and decide by its session and number."""
        m, ports, header = self.m, self.ports, self.header
        request, order = self.request, self.order

        # A memory outlives the reset of the clock domain, so the layer table is cleared after it.
        with m.State("BEGIN"):
            m.d.sync += [request.opcode.eq(0), request.index.eq(0)]
            m.next = "FORGET"

        with m.State("HEADER"):
            m.d.comb += ports.i.ready.eq(1)
            with m.If(ports.i.valid):
                m.d.sync += [
                    header.bits.eq(Cat(header.bits[8:], ports.i.payload)),
                    self.header_count.eq(self.header_count + 1),
                ]
                with m.If(self.header_count == HEADER_BYTES - 1):
                    m.next = "ORDER"

        with m.State("ORDER"):
            too_high = request.address[len(self.position) :].any()
            m.d.comb += [order.decide.eq(1), self.words.clear.eq(1)]
            m.d.sync += [
                self.left.eq(request.length - OVERHEAD_BYTES),
                self.written.eq(HEADER_BYTES),
                self.slot.eq(order.expected),  # modulo the number of slots
                self.keep.eq(0),
                self.status.eq(Status.OK),
                self.value.eq(0),
                self.position.eq(Mux(too_high, ~0, request.address)),
                self.items.eq(request.count),
            ]
            with m.If(request.opcode == Opcode.RESET):
                m.d.sync += self.value.eq(PROTOCOL_VERSION)
                m.next = "DRAIN"
                with m.If(order.foreign):
                    m.d.sync += [results.present.eq(0) for results in self.banks]
                    m.d.sync += request.index.eq(0)
                    m.next = "FORGET"
            with m.Elif(order.foreign):
                self._fail(Status.NO_SESSION)
            with m.Elif(order.in_order):
                m.d.sync += self.keep.eq(1)
                m.next = "REACH"
            with m.Elif(order.repeated):
                m.d.sync += [self.slot.eq(request.seq), self.keep.eq(1)]
                m.next = "REPLAY"
            with m.Else():
                self._fail(Status.NAK)

        with m.State("FORGET"):
            m.d.comb += self.table.forget.eq(1)
            m.d.sync += request.index.eq(request.index + 1)
            with m.If(request.index == self.config.max_layers - 1):
                m.next = "HEADER"
                with m.If(request.opcode == Opcode.RESET):
                    m.next = "DRAIN"

    def make_checks(self) -> None:
        """States that make the checks of `Stage.HEADER` and choose what to do."""
        m = self.m

        with m.State("REACH"):
            self.checks.add()
            m.next = "COMPARE"

        with m.State("COMPARE"):
            self.checks.compare()
            m.next = "EXECUTE"

        whole_layer = [self.position.eq(0), self.items.eq(self.table.entry.words)]
        with m.State("EXECUTE"):
            m.d.comb += self.crc.start.eq(1)
            with m.Switch(self.request.opcode):
                self._start(Opcode.IDENTIFY, "FETCH")
                self._start(Opcode.DEFINE, "COLLECT", self.size.eq(LAYER.size))
                self._start(Opcode.WRITE, "COLLECT", self.size.eq(self.config.word_bytes))
                self._start(Opcode.READ, "ASK")
                self._start(Opcode.COMMIT, "ASK", *whole_layer)
                self._start(Opcode.LOAD, "COLLECT", self.size.eq(self.config.fill))
                self._start(Opcode.RUN, "ASK", *whole_layer)
                self._start(Opcode.RESULTS, "FETCH")
                all_counters = [self.position.eq(0), self.items.eq(len(COUNTERS))]
                self._start(Opcode.COUNTERS, "FETCH", *all_counters)
                with m.Default():
                    self._fail(Status.BAD_OPCODE)

    def _start(self, opcode: Opcode, state: str, *preparation: Any) -> None:
        """Prepare a command and go on to `state`, or fail by the first check that fails."""
        m = self.m
        with m.Case(opcode):
            m.d.sync += list(preparation)
            m.next = state
            # Of several assignments the last one counts, so the first check comes last.
            for failure, status in reversed(self.checks.failures(opcode)):
                with m.If(failure):
                    self._fail(status)

    def store_words(self) -> None:
        """States that collect words from the payload and store them: DEFINE, WRITE, LOAD."""
        m, words, ports, request = self.m, self.words, self.ports, self.request

        with m.State("COLLECT"):
            with m.If(words.complete):
                m.d.comb += words.clear.eq(1)
                m.d.sync += [
                    self.write_valid.eq((request.opcode == Opcode.WRITE) & ~self.no_room),
                    self.load_valid.eq((request.opcode == Opcode.LOAD) & ~self.no_room),
                ]
                m.next = "STORE"
            with m.Elif(self.left != 0):
                m.d.comb += ports.i.ready.eq(1)
                with m.If(ports.i.valid):
                    m.d.comb += words.enter.eq(1)
                    m.d.sync += self.left.eq(self.left - 1)
            with m.Elif(words.partial):
                self._fail(status_of(Opcode.WRITE, Quantity.REST_BYTES))
            with m.Else():
                m.next = "RESPOND"

        with m.State("STORE"):
            m.d.comb += [
                ports.o_write.valid.eq(self.write_valid),
                ports.o_load.valid.eq(self.load_valid & ~self.write_valid),
            ]
            with m.If(self.write_valid):
                self._store(self.write_valid, ports.o_write.ready)
            with m.Elif(self.load_valid):
                self._store(self.load_valid, ports.o_load.ready)
            with m.Elif(request.opcode == Opcode.DEFINE):
                m.d.comb += self.table.begin.eq(1)
                m.d.sync += self.items.eq(self.table.definition.tiles)
                with m.If(self.table.wrong_shape):
                    self._fail(status_of(Opcode.DEFINE, Quantity.TILES))
                with m.Else():
                    m.next = "EXTENT"
            with m.Elif(request.opcode == Opcode.WRITE):
                self._fail(status_of(Opcode.WRITE, Quantity.WORDS_END))
            with m.Else():
                self._fail(status_of(Opcode.LOAD, Quantity.WORDS_END))

        with m.State("EXTENT"):
            with m.If(self.table.beyond):
                self._fail(status_of(Opcode.DEFINE, Quantity.MEMORY_END))
            with m.Elif(self.items != 0):
                m.d.comb += self.table.add.eq(1)
                m.d.sync += self.items.eq(self.items - 1)
            with m.Else():
                m.d.comb += self.table.define.eq(1)
                m.next = "RESPOND"

    def _store(self, valid: Signal, ready: Value) -> None:
        """Go on when the collected word is stored."""
        m = self.m
        with m.If(ready):
            m.d.sync += [valid.eq(0), self.position.eq(self.position + 1)]
            m.next = "COLLECT"

    def use_weights(self) -> None:
        """States that ask for weight words (READ, COMMIT, RUN) and wait for the core (RUN)."""
        m, ports = self.m, self.ports

        with m.State("ASK"):
            m.d.comb += ports.o_read.valid.eq(1)
            with m.If(ports.o_read.ready):
                m.next = "FETCH"
                with m.If(self.request.opcode == Opcode.RUN):
                    m.next = "START"

        with m.State("START"):
            m.d.comb += [ports.o_run.valid.eq(1), ports.to_core.eq(1)]
            m.d.sync += [
                self.results.present.eq(1),
                self.results.last_group.eq(self.table.entry.last_group),
                self.results.cycles.eq(0),
            ]
            with m.If(ports.o_run.ready):
                m.next = "RUN"

        with m.State("RUN"):
            m.d.comb += [ports.running.eq(1), ports.to_core.eq(1)]
            m.d.sync += self.results.cycles.eq(self.results.cycles + 1)
            with m.If(ports.done):
                m.next = "RESPOND"

    def send_words(self) -> None:
        """States that send words as bytes: IDENTIFY, READ, RESULTS, COUNTERS, COMMIT.

        The bytes of COMMIT go into the checksum, the others into the response.
        """
        m, config, request, ports = self.m, self.config, self.request, self.ports

        with m.State("FETCH"):
            with m.If(self.items == 0):
                m.next = "RESPOND"
                with m.If(request.opcode == Opcode.COMMIT):
                    m.d.sync += self.value.eq(self.crc.crc)
                    with m.If(self.crc.crc == request.address):
                        m.d.comb += self.table.commit.eq(1)
                    with m.Else():
                        m.d.sync += self.status.eq(status_of(Opcode.COMMIT, Quantity.ADDRESS))
            with m.Elif(request.opcode == Opcode.IDENTIFY):
                self._send_word(self.identity.data, 1)
            with m.Elif(request.opcode == Opcode.COUNTERS):
                self._send_word(ports.counters[self.position], COUNTER_BITS // 8)
            with m.Elif(request.opcode == Opcode.RESULTS):
                m.d.sync += self.value.eq(self.results.cycles)
                with m.If(self.position > self.results.last_group):
                    self._fail(status_of(Opcode.RESULTS, Quantity.ROW_GROUPS_END))
                with m.Else():
                    m.d.comb += ports.o_fetch.valid.eq(1)
                    with m.If(ports.o_fetch.ready):
                        m.next = "RESULT"
            with m.Else():
                m.d.comb += ports.i_word.ready.eq(1)
                with m.If(ports.i_word.valid):
                    self._send_word(ports.i_word.payload, config.word_bytes)

        with m.State("RESULT"):
            m.d.comb += ports.i_result.ready.eq(1)
            with m.If(ports.i_result.valid):
                sums = ports.i_result.payload
                self._send_word(*results_out(config, sums, request.index, self.items))
                # The last row group may hold more results than are asked for.
                m.d.sync += self.items.eq(
                    Mux(self.items <= config.rows, 0, self.items - config.rows)
                )

        with m.State("SHIFT"):
            m.d.comb += self.words.leave.eq(1)
            with m.If(request.opcode == Opcode.COMMIT):
                m.d.comb += self.crc.valid.eq(1)
            with m.Else():
                self._emit(self.words.word[:8])
            with m.If(self.words.last):
                m.next = "FETCH"

    def respond(self) -> None:
        """States that end a command: the rest of its payload, its response's header, sending."""
        m, header, ports = self.m, self.header, self.ports

        # A repeated command does not need what comes either: its response is stored.
        for state, then in (("DRAIN", "RESPOND"), ("REPLAY", "SEND")):
            with m.State(state):
                with m.If(self.left == 0):
                    m.next = then
                with m.Else():
                    m.d.comb += ports.i.ready.eq(1)
                    with m.If(ports.i.valid):
                        m.d.sync += self.left.eq(self.left - 1)

        with m.State("RESPOND"):  # session, seq and opcode are those of the request
            length = Mux(self.status == Status.OK, self.written + CRC_BYTES, OVERHEAD_BYTES)
            m.d.sync += [
                self.response_header.length.eq(length),
                self.response_header.status.eq(self.status),
                self.response_header.expected.eq(self.order.expected),
                self.response_header.value.eq(self.value),
                self.written.eq(0),
            ]
            m.next = "RESPOND-HEADER"

        with m.State("RESPOND-HEADER"):
            self._emit(header.bits[:8])
            m.d.sync += header.bits.eq(header.bits >> 8)
            with m.If(self.written == HEADER_BYTES - 1):
                m.next = "SEND"

        with m.State("SEND"):
            m.d.comb += ports.o_send.valid.eq(1)
            with m.If(ports.o_send.ready):
                m.d.sync += self.header_count.eq(0)
                m.next = "HEADER"
                with m.If(~self.keep):
                    m.next = "WAIT"

        # A response that is not kept lies in the slot of the next command. It must be sent before
        # that command writes its own response there.
        with m.State("WAIT"):
            with m.If(ports.o_send.ready):
                m.next = "HEADER"
