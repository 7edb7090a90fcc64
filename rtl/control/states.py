"""The states of the command acceptor, in the order in which a command passes through them."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from tritloom.rtl.control.checks import HeaderChecks, rest_of_block, status_of
from tritloom.rtl.control.layer_table import LayerTable
from tritloom.rtl.control.order import CommandOrder
from tritloom.rtl.control.programs import ProgramStates
from tritloom.rtl.control.registers import CommandRegisters
from tritloom.rtl.control.tasks import Kind, only_checksum
from tritloom.rtl.control.wide import WideWordCollector
from tritloom.rtl.control.words import WordCollector, activations_in
from tritloom.rtl.core.core import shape_layout
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.checks import UNITS, Quantity
from tritloom.rtl.spec.commands import (
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Status,
    counters_of,
)

__all__ = ["OF_OWNER", "CommandStates"]

OF_OWNER = ("stranger", "barred")
"""What `Owner` says of a request; ports of the acceptor if the link has hosts."""


class CommandStates(CommandRegisters):
    """The states of the acceptor `ports`, and the parts that they use.

    Each public method adds some states to the state machine.
    """

    def __init__(self, m: Module, ports: Any) -> None:
        super().__init__(ports.config)
        self.m = m
        self.ports = ports
        config = self.config
        m.submodules.order = self.order = CommandOrder(config)
        self.has_owner = config.link.host_bits(config) != 0
        if self.has_owner:
            m.d.comb += [getattr(self.order, n).eq(getattr(ports, n)) for n in OF_OWNER]
        m.submodules.table = self.table = LayerTable(config)
        self.command_bytes = config.link.command_bytes
        collector: Any = WordCollector if self.command_bytes == 1 else WideWordCollector
        m.submodules.words = self.words = collector(self.longest)
        self.programs = None if config.vector is None else ProgramStates(m, ports, self, self.table)
        fields = (self.request, self.left, self.position, self.items, self.table.entry)
        self.checks = HeaderChecks(m, config, *fields, ports.has_results, self.programs)
        self._connect()

    def _connect(self) -> None:
        """Add what is the same in all states."""
        config, ports, request, position = self.config, self.ports, self.request, self.position
        word, entry = self.words.word, self.table.entry
        place = ports.o_task.payload.position
        address = Signal(bits_for(config.memory_words))  # of the next word in the weight memory
        beat_bytes = config.link.beat_bytes
        self.m.d.comb += [
            self.order.session.eq(request.session),
            self.order.seq.eq(request.seq),
            self.order.reset.eq(request.opcode == Opcode.RESET),
            self.order.unsent.eq(ports.unsent),
            self.table.index.eq(request.index),
            self.table.definition.eq(word[-8 * LAYER.size :]),
            self.words.size.eq(self.size),
            *self._connect_payload(),
            ports.slot.eq(self.slot),
            ports.beat.eq(self.header_count[: len(ports.beat)]),
            ports.data.eq(self.header.bits[: 8 * beat_bytes]),
            ports.o_task.payload.kind.eq(self.kind),
            ports.o_task.payload.items.eq(self.items),
            # A place beyond what the field can say stays beyond every limit.
            ports.o_task.payload.position.eq(Mux(position[len(place) :].any(), ~0, position)),
            ports.o_task.payload.token.eq(self.token),
            ports.o_task.payload.bank.eq(request.result_bank),
            ports.o_direct.payload.eq(self.slot),
            address.eq(entry.base + position),
            ports.o_write.payload.word.eq(word[-8 * config.word_bytes :]),
            ports.o_write.payload.address.eq(self.write_address),
            ports.o_read.payload.address.eq(address),
            ports.o_read.payload.count.eq(self.items),
            ports.o_load.payload.word.eq(activations_in(config, word)),
            ports.o_load.payload.address.eq(position),
            ports.o_load.payload.token.eq(self.token),
            ports.o_load.payload.bank.eq(request.activation_bank),
            *(ports.o_run.payload[name].eq(entry[name]) for name in shape_layout(config).members),
            ports.o_run.payload.activation_bank.eq(request.activation_bank),
            ports.o_run.payload.result_bank.eq(request.result_bank),
        ]
        if config.scales_activations:
            scale = ports.o_scale.payload
            self.m.d.comb += [
                scale.scale.eq(word[-8 * UNITS[Opcode.SCALES].of(config) :]),
                scale.group.eq(position),
                scale.token.eq(self.token),
                scale.bank.eq(request.activation_bank),
            ]
        if config.has_groups:
            self.m.d.comb += self.table.group_tiles.eq(request.count)
        # `no_room` must be right in the cycle after a word is taken: activations may come so fast.
        last = config.activation_words - 1
        loads_beyond = position >= Mux(self.words.take, last, last + 1)
        no_room = Mux(request.opcode == Opcode.WRITE, position >= entry.words, loads_beyond)
        ends = {}
        if config.vector is not None:
            ends = {Opcode.PUT: config.vector.words, Opcode.PROGRAM: config.vector.steps}
        if config.scales_activations:
            ends = {Opcode.SCALES: config.max_tiles}
        for opcode, end in ends.items():  # their words are longer than what comes in a cycle
            no_room = Mux(request.opcode == opcode, position >= end, no_room)
        self.m.d.sync += [self.write_address.eq(address), self.no_room.eq(no_room)]
        with self.m.If(ports.no_task):
            self.m.d.sync += self.reading.eq(0)

    def _connect_payload(self) -> list[Any]:
        """The statements that give the collector what comes of the payload."""
        words, payload = self.words, self.ports.i.payload
        if self.command_bytes == 1:
            return [words.byte.eq(payload)]
        return [words.beat.eq(payload), words.single.eq(self.left == 1)]

    def _fewer_left(self) -> Any:
        """The payload's bytes that are still to come once this beat has come."""
        if self.command_bytes == 1:
            return self.left - 1
        return Mux(self.left == 1, 0, self.left - self.command_bytes)

    def _fail(self, status: Status) -> None:
        """Go on to a response without payload."""
        self.m.d.sync += [
            self.status.eq(status),
            self.kind.eq(Kind.NOTHING),
        ]
        self.m.next = "DRAIN"

    def take_request(self) -> None:
        """States that take a request's header."""
        m, ports, header, request = self.m, self.ports, self.header, self.request

        # A memory outlives the reset of the clock domain, so the layer table is cleared after it.
        with m.State("BEGIN"):
            m.d.sync += [request.opcode.eq(0), request.index.eq(0)]
            m.next = "FORGET"

        with m.State("HEADER"):
            m.d.comb += ports.i.ready.eq(1)
            with m.If(ports.i.valid):
                m.d.sync += [
                    header.bits.eq(Cat(header.bits[8 * self.command_bytes :], ports.i.payload)),
                    self.header_count.eq(self.header_count + 1),
                ]
                with m.If(self.header_count == HEADER_BYTES // self.command_bytes - 1):
                    m.d.comb += ports.took_header.eq(1)
                    m.next = "ORDER"

    def put_in_order(self) -> None:
        """States that decide by session and number what becomes of a request."""
        m, ports, request, order = self.m, self.ports, self.request, self.order

        with m.State("ORDER"):
            too_high = request.address[len(self.position) :].any()
            m.d.comb += self.words.clear.eq(1)
            m.d.sync += [
                self.left.eq(request.length - OVERHEAD_BYTES),
                self.slot.eq(order.expected),  # modulo the number of slots
                self.keep.eq(0),
                self.status.eq(Status.OK),
                self.has_checksum.eq(0),
                self.kind.eq(Kind.NOTHING),
                self.token.eq(request.index),
                self.position.eq(Mux(too_high, ~0, request.address)),
                self.items.eq(request.count),
            ]
            with m.If(order.reset | order.foreign):
                m.next = "QUIET"
            with m.Elif(order.in_order):
                with m.If(~order.full):
                    m.d.comb += order.decide.eq(1)
                    m.d.sync += self.keep.eq(1)
                    m.next = "REACH"
            with m.Elif(order.awaited):  # its response comes anyway
                m.next = "DROP"
            with m.Else():
                m.next = "QUIET"

        # A response that is not kept lies in the slot of the next command, and one that is sent
        # again in a slot that later commands use. So all other responses are sent before it, and
        # the next command is taken after it.
        with m.State("QUIET"):
            with m.If((ports.unsent == 0) & ~(order.reset & order.starts & ports.busy)):
                m.d.comb += order.decide.eq(1)
                with m.If(order.reset):
                    m.next = "DRAIN"
                    with m.If(order.starts):
                        m.d.comb += ports.new_session.eq(1)
                        m.d.sync += request.index.eq(0)
                        m.next = "FORGET"
                    if self.has_owner:
                        with m.Elif(order.foreign):
                            self._fail(Status.NO_SESSION)
                with m.Elif(order.foreign):
                    self._fail(Status.NO_SESSION)
                with m.Elif(order.repeated):
                    m.d.sync += self.slot.eq(request.seq)
                    m.next = "REPLAY"
                with m.Else():
                    self._fail(Status.NAK)

        with m.State("FORGET"):
            m.d.comb += self.table.forget.eq(1)
            m.d.sync += [request.index.eq(request.index + 1), self.slot.eq(order.expected)]
            with m.If(request.index == self.config.max_layers - 1):
                m.next = "HEADER"
                with m.If(request.opcode == Opcode.RESET):
                    m.next = "DRAIN"

    def make_checks(self) -> None:
        """States that make the checks of `Stage.HEADER` and choose what to do."""
        m, config, ports = self.m, self.config, self.ports

        with m.State("REACH"):
            self.checks.add()
            m.next = "COMPARE"

        with m.State("COMPARE"):
            self.checks.compare()
            m.next = "EXECUTE"

        memory_free = ~(ports.busy | self.reading)
        whole_layer = [self.position.eq(0), self.items.eq(self.table.entry.words)]
        all_counters = [self.position.eq(0), self.items.eq(len(counters_of(config)))]
        word_bytes = self.size.eq(config.word_bytes)
        with m.State("EXECUTE"):
            with m.Switch(self.request.opcode):
                self._start(Opcode.IDENTIFY, 1, "RESPOND", self.kind.eq(Kind.IDENTITY))
                self._start(Opcode.DEFINE, memory_free, "COLLECT", self.size.eq(LAYER.size))
                self._start(Opcode.WRITE, memory_free, "COLLECT", word_bytes)
                self._start(Opcode.READ, ~ports.busy, "ASK", self.kind.eq(Kind.WORDS))
                checksum = [*whole_layer, self.kind.eq(Kind.CHECKSUM)]
                self._start(Opcode.COMMIT, memory_free, "ASK", *checksum)
                self._start(Opcode.LOAD, ports.may_load, "COLLECT", self.size.eq(config.fill))
                may_ask = ~self.reading
                if not config.asks_ahead:
                    may_ask &= ports.may_run
                self._start(Opcode.RUN, may_ask, "ASK", *whole_layer)
                self._start(Opcode.RESULTS, 1, "RESPOND", self.kind.eq(Kind.RESULTS))
                counters = [*all_counters, self.kind.eq(Kind.COUNTERS)]
                self._start(Opcode.COUNTERS, ~ports.busy, "RESPOND", *counters)
                if config.vector is not None:
                    self._start_with_unit()
                if config.scales_activations:
                    size = self.size.eq(UNITS[Opcode.SCALES].of(config))
                    self._start(Opcode.SCALES, ports.may_load, "COLLECT", size)
                with m.Default():
                    self._fail(Status.BAD_OPCODE)

    def _start_with_unit(self) -> None:
        """Start a command of the vector unit, which is idle in the state EXECUTE."""
        config, ports, kind = self.config, self.ports, self.kind
        for opcode in (Opcode.PUT, Opcode.PROGRAM):
            size = self.size.eq(UNITS[opcode].of(config))
            self._start(opcode, ~self.reading, "COLLECT", size)
        self._start(Opcode.GET, 1, "RESPOND", kind.eq(Kind.VECTOR))
        steps = [self.position.eq(0), kind.eq(Kind.STEPS)]
        self._start(Opcode.COMMIT_PROGRAM, 1, "PUSH", *steps)  # a task like others, in its order
        # The program uses the core's port for results, so all RESULTS must have been copied.
        self._start(Opcode.EXECUTE, ~ports.busy & ports.no_task, "RESPOND")

    def _start(self, opcode: Opcode, may: Value | int, state: str, *preparation: Any) -> None:
        """Go on to `state` as soon as the command `may`, or fail by the first check that fails."""
        m = self.m
        with m.Case(opcode):
            with m.If(may):
                m.d.sync += list(preparation)
                m.next = state
            # Of several assignments the last one counts, so the first check comes last.
            for failure, status in reversed(self.checks.failures(opcode)):
                with m.If(failure):
                    self._fail(status)

    def store_words(self) -> None:
        """States that collect words from the payload and store them, as WRITE and LOAD."""
        m, config, ports, request, words = self.m, self.config, self.ports, self.request, self.words
        is_write = request.opcode == Opcode.WRITE
        is_load = request.opcode == Opcode.LOAD

        with m.State("COLLECT"):
            stores = Signal()  # a complete word has room
            taken = stores & ((is_write & ports.o_write.ready) | (is_load & ports.o_load.ready))
            if self.programs is not None:
                taken |= self.programs.store(words.word, stores)
            if config.scales_activations:
                stores_scale = stores & (request.opcode == Opcode.SCALES)
                m.d.comb += ports.o_scale.valid.eq(stores_scale)
                taken |= stores_scale & ports.o_scale.ready
            m.d.comb += [
                stores.eq(words.complete & ~self.no_room),
                ports.o_write.valid.eq(stores & is_write),
                ports.o_load.valid.eq(stores & is_load),
                words.take.eq(taken),
            ]
            with m.If(words.take):
                m.d.sync += self.position.eq(self.position + 1)
            # `write_address` needs a cycle after a word is taken, so a word of few bytes waits.
            follows = words.take
            if config.word_bytes < 2 * self.command_bytes:
                follows = words.take & ~is_write
            may_enter = ~words.complete | follows
            if self.command_bytes > 1:
                may_enter &= words.free
            with m.If((self.left != 0) & may_enter):
                m.d.comb += ports.i.ready.eq(1)
                with m.If(ports.i.valid):
                    m.d.comb += words.enter.eq(1)
                    m.d.sync += self.left.eq(self._fewer_left())
            with m.If(words.complete & (request.opcode == Opcode.DEFINE)):
                m.d.comb += self.table.begin.eq(1)
                m.d.sync += self.items.eq(self.table.definition.tiles)
                with m.If(self.table.wrong_shape):
                    self._fail(status_of(Opcode.DEFINE, Quantity.TILES))
                with m.Else():
                    m.next = "EXTENT"
            with m.Elif(words.complete & self.no_room):
                self._fail(status_of(Opcode.WRITE, Quantity.WORDS_END))
            with m.Elif((self.left == 0) & ~words.complete):
                m.next = "RESPOND"
                with m.If(words.partial):
                    self._fail(status_of(Opcode.WRITE, Quantity.REST_BYTES))
                if config.align > 1:
                    # A position that does not fit its register stays what it is: no word was
                    # stored.
                    fits = ~self.request.address[len(self.position) :].any()
                    in_block = rest_of_block(config, self.position).any()
                    within = self.position != self.table.entry.words
                    with m.Elif(is_write & fits & in_block & within):
                        self._fail(status_of(Opcode.WRITE, Quantity.REST_WORDS))

        with m.State("EXTENT"):
            with m.If(self.table.beyond):
                self._fail(status_of(Opcode.DEFINE, Quantity.MEMORY_END))
            with m.Elif(self.items != 0):
                m.d.comb += self.table.add.eq(1)
                m.d.sync += self.items.eq(self.items - 1)
            with m.Else():
                m.d.comb += self.table.define.eq(1)
                m.next = "RESPOND"

    def use_weights(self) -> None:
        """States that ask for weight words (READ, COMMIT, RUN), start a layer, and commit one."""
        m, ports = self.m, self.ports

        with m.State("ASK"):
            m.d.comb += ports.o_read.valid.eq(1)
            with m.If(ports.o_read.ready):
                with m.Switch(self.kind):
                    with m.Case(Kind.WORDS):
                        m.next = "RESPOND"
                    with m.Case(Kind.CHECKSUM):
                        m.next = "PUSH"
                    with m.Default():
                        m.next = "START"

        with m.State("START"):
            m.d.comb += [ports.o_run.valid.eq(1), ports.starting.eq(1)]
            if self.config.asks_ahead:
                m.d.comb += ports.o_run.valid.eq(ports.may_run)
            with m.If(ports.o_run.valid & ports.o_run.ready):
                m.next = "RESPOND"
                if self.programs is not None:
                    with m.If(self.request.opcode == Opcode.EXECUTE):
                        m.next = "SERVE"

        with m.State("CHECKSUM"):
            if self.programs is not None:
                with m.If(self.kind == Kind.STEPS):
                    m.d.comb += self.programs.reads_steps.eq(1)
                    m.d.sync += self.programs.steps.eq(0)
            with m.If(ports.no_task):
                m.d.sync += [self.has_checksum.eq(1), self.kind.eq(Kind.NOTHING)]
                m.next = "RESPOND"
                right = ports.checksum == self.request.address
                if self.config.memory.can_fail:
                    right &= ~ports.void
                with m.If(right):
                    if self.programs is None:
                        m.d.comb += self.table.commit.eq(1)
                    else:
                        with m.If(self.kind == Kind.STEPS):
                            self.programs.begin_check()
                        with m.Else():
                            m.d.comb += self.table.commit.eq(1)
                with m.Else():
                    m.d.sync += self.status.eq(status_of(Opcode.COMMIT, Quantity.ADDRESS))
                if self.config.memory.can_fail:
                    with m.If(ports.void):
                        void = status_of(Opcode.COMMIT, Quantity.VOID_WORDS)
                        m.d.sync += [self.status.eq(void), self.has_checksum.eq(0)]

    def respond(self) -> None:
        """States that end a command: the rest of its payload, its response's header, its task."""
        m, header, ports = self.m, self.header, self.ports

        # A repeated command does not need what comes either: its response is stored, or comes.
        for state, then in (("DRAIN", "RESPOND"), ("REPLAY", "DIRECT"), ("DROP", "HEADER")):
            with m.State(state):
                with m.If(self.left == 0):
                    m.next = then
                    m.d.comb += ports.begins.eq(state == "REPLAY")
                    m.d.sync += self.header_count.eq(0)
                with m.Else():
                    m.d.comb += ports.i.ready.eq(1)
                    with m.If(ports.i.valid):
                        m.d.sync += self.left.eq(self._fewer_left())

        # Session, seq, opcode and banks are those of the request. The responder replaces length,
        # status and value if it adds anything.
        with m.State("RESPOND"):
            version = Mux(self.order.reset, PROTOCOL_VERSION, 0)
            m.d.comb += ports.begins.eq(1)
            m.d.sync += [
                self.response_header.length.eq(OVERHEAD_BYTES),
                self.response_header.status.eq(self.status),
                self.response_header.expected.eq(self.order.expected),
                self.response_header.value.eq(Mux(self.has_checksum, ports.checksum, version)),
                self.header_count.eq(0),
            ]
            m.next = "RESPOND-HEADER"

        with m.State("RESPOND-HEADER"):
            bits = 8 * self.config.link.beat_bytes
            m.d.comb += ports.write.eq(1)
            # It turns once around, so that the opcode's banks stay where they are.
            m.d.sync += [
                header.bits.eq(Cat(header.bits[bits:], header.bits[:bits])),
                self.header_count.eq(self.header_count + 1),
            ]
            with m.If(self.header_count == HEADER_BYTES // self.config.link.beat_bytes - 1):
                m.d.sync += self.header_count.eq(0)
                m.next = "PUSH"
                with m.If(~self.keep):
                    m.next = "DIRECT"

        with m.State("PUSH"):
            m.d.comb += ports.o_task.valid.eq(1)
            with m.If(ports.o_task.ready):
                m.next = "HEADER"
                with m.If((self.kind == Kind.WORDS) | (self.kind == Kind.COUNTERS)):
                    m.d.sync += self.reading.eq(1)
                if self.programs is not None:
                    with m.If(self.kind == Kind.VECTOR):
                        m.d.sync += self.reading.eq(1)
                    with m.If(self.programs.serves):
                        m.next = "BEGIN-PROGRAM"
                with m.If(only_checksum(self.config, self.kind)):
                    m.next = "CHECKSUM"

        with m.State("DIRECT"):
            m.d.comb += ports.o_direct.valid.eq(1)
            with m.If(ports.o_direct.ready):
                m.next = "SENT"

        with m.State("SENT"):
            with m.If(~ports.sending):
                m.next = "HEADER"
