"""The command processor: takes commands in order, executes each once, writes its answer."""

from amaranth.hdl import Array, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.core import load_layout, shape_layout
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.contract import range_layout, write_layout
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

REQUEST = data.StructLayout(
    {
        "length": 16,
        "seq": 16,
        "session": 32,
        "opcode": 8,
        "index": 8,
        "count": 16,
        "address": 32,
    }
)
RESPONSE = data.StructLayout(
    {
        "length": 16,
        "seq": 16,
        "session": 32,
        "opcode": 8,
        "status": 8,
        "expected": 16,
        "value": 32,
    }
)
DEFINITION = data.StructLayout({"base": 32, "tiles": 16, "row_groups": 16})
COUNTER_BITS = 64


class CommandProcessor(wiring.Component):
    """Executes the commands of ``tritloom.rtl.spec.commands``, one at a time, to the letter.

    Members
    -------
    i : stream of bytes, header and payload of sound packets
    address, byte, write, o_send : the answer, to a ``PacketSender``
    o_write, o_read, i_word : weight memory
    o_load, o_run, o_word, done, o_fetch, i_result : core
    counters : 64 bits each, in the order of ``COUNTERS``
    running : RUN is executing
    """

    i: stream.Interface
    address: Signal
    byte: Signal
    write: Signal
    o_send: stream.Interface
    o_write: stream.Interface
    o_read: stream.Interface
    i_word: stream.Interface
    o_load: stream.Interface
    o_run: stream.Interface
    o_word: stream.Interface
    done: Signal
    o_fetch: stream.Interface
    i_result: stream.Interface
    counters: data.View
    running: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        word = stream.Signature(Shape(config.word_bits))
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "address": Out(range(config.slots * config.packet_bytes)),
                "byte": Out(8),
                "write": Out(1),
                "o_send": Out(stream.Signature(range(config.slots))),
                "o_write": Out(stream.Signature(write_layout(config))),
                "o_read": Out(stream.Signature(range_layout(config))),
                "i_word": In(word),
                "o_load": Out(stream.Signature(load_layout(config))),
                "o_run": Out(stream.Signature(shape_layout(config))),
                "o_word": Out(word),
                "done": In(1),
                "o_fetch": Out(stream.Signature(range(config.max_row_groups))),
                "i_result": In(stream.Signature(sums_layout(config, config.acc_bits))),
                "counters": In(data.ArrayLayout(COUNTER_BITS, len(COUNTERS))),
                "running": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        word_bytes, acc_bytes, fill = config.word_bytes, config.acc_bytes, config.fill
        about = identity(config)

        # What outlives a command.
        session = Signal(32)
        expected = Signal(16, init=1)
        replayable = Signal(bits_for(config.window))
        has_results = Signal()
        last_result = Signal(range(config.max_row_groups))
        entry_layout = data.StructLayout(
            {
                "base": bits_for(config.memory_words),
                "words": bits_for(config.memory_words),
                **shape_layout(config).members,
                "defined": 1,
                "committed": 1,
            }
        )
        m.submodules.table = table = block_ram(entry_layout, config.max_layers)
        table_write = table.write_port()
        table_read = ReadPort(m, table)
        m.submodules.about = rom = block_ram(8, len(about), about)
        rom_read = ReadPort(m, rom)
        m.submodules.crc = crc = CRC32.create()

        # What belongs to one command.
        header = Signal(
            data.UnionLayout({"request": REQUEST, "response": RESPONSE, "bits": 128}),
            reset_less=True,
        )
        request, response = header.request, header.response
        taken = Signal(range(HEADER_BYTES))
        left = Signal(bits_for(config.packet_bytes))  # payload bytes not yet taken
        written = Signal(bits_for(config.packet_bytes))  # bytes of the answer, header included
        offset = Signal(range(config.packet_bytes))  # of the next byte of the answer in its slot
        slot = Signal(range(config.slots))
        keep = Signal()  # the answer stays for replay
        status = Signal(8)
        value = Signal(32)
        # One bit more than any limit: an address that does not fit becomes all ones, out of range.
        limit_bits = max(
            config.memory_words, config.activation_words, config.max_row_groups, len(about)
        ).bit_length()
        position = Signal(limit_bits + 1)
        items = Signal(max(16, limit_bits))  # words, results, bytes or counters still to come
        reach = Signal(max(len(position), len(items)) + 1)
        is_open = Signal()
        beyond_layer = Signal()
        beyond_about = Signal()
        unit = Signal(range(max(word_bytes, fill, LAYER.size) + 1))  # bytes of a word coming in
        collected = Signal.like(unit)
        # A word on its way in (bytes enter at the top) or out (they leave at the bottom).
        shift = Signal(
            8 * max(word_bytes, fill, config.rows * acc_bytes, LAYER.size), reset_less=True
        )
        bytes_left = Signal(range(max(word_bytes, config.rows * acc_bytes, 8) + 1))
        definition = data.View(DEFINITION, shift[-8 * LAYER.size :])
        loaded = [shift[-8 * (fill - n) :][:8] for n in range(fill)]
        entry = table_read.data
        last_tile, last_group = Signal(16), Signal(16)
        end = Signal(range(config.memory_words + config.max_row_groups + 1))

        def slot_of(seq: Value) -> Value:
            return seq[: len(slot)]

        m.d.comb += [
            offset.eq(written),
            self.address.eq(Cat(offset, slot)),
            table_read.addr.eq(request.index),
            table_write.addr.eq(request.index),
            table_write.data.eq(entry),
            last_tile.eq(definition.tiles - 1),
            last_group.eq(definition.row_groups - 1),
            rom_read.addr.eq(position),
            crc.data.eq(shift[:8]),
            self.o_send.payload.eq(slot),
            self.o_write.payload.word.eq(shift[-8 * word_bytes :]),
            self.o_write.payload.address.eq(entry.base + position),
            self.o_read.payload.address.eq(entry.base + position),
            self.o_read.payload.count.eq(items),
            # Of each byte as many low bits as an activation has.
            self.o_load.payload.word.eq(Cat(byte[: config.act_bits] for byte in loaded)),
            self.o_load.payload.address.eq(position),
            self.o_load.payload.token.eq(request.index),
            self.o_run.payload.last_tile.eq(entry.last_tile),
            self.o_run.payload.last_group.eq(entry.last_group),
            self.o_word.payload.eq(self.i_word.payload),
            self.o_fetch.payload.eq(position),
        ]

        def fail(code: Status) -> None:
            m.d.sync += status.eq(code)
            m.next = "DRAIN"

        def guard(then: str, *checks: tuple[Value, Status]) -> None:
            """Go on, or fail with the status of the first check that is true."""
            m.next = then
            for bad, code in reversed(checks):
                with m.If(bad):
                    fail(code)

        def send_word(word: Value, count: int) -> None:
            """Send the low ``count`` bytes of ``word``, one item, and go on to the next."""
            m.d.sync += [
                shift.eq(word),
                bytes_left.eq(count),
                position.eq(position + 1),
                items.eq(items - 1),
            ]
            m.next = "SHIFT"

        def emit(byte: Value) -> None:
            """Write the next byte of the answer."""
            m.d.comb += [self.byte.eq(byte), self.write.eq(1)]
            m.d.sync += written.eq(written + 1)

        with m.FSM(init="BEGIN"):
            # A memory outlives the reset of the clock domain, so the table is cleared after it.
            with m.State("BEGIN"):
                m.d.sync += [request.opcode.eq(0), request.index.eq(0)]
                m.next = "FORGET"

            with m.State("HEADER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        header.bits.eq(Cat(header.bits[8:], self.i.payload)),
                        taken.eq(taken + 1),
                    ]
                    with m.If(taken == HEADER_BYTES - 1):
                        m.next = "ORDER"

            with m.State("ORDER"):
                behind = Signal(16)
                beyond = request.address[len(position) :].any()
                m.d.comb += behind.eq(expected - request.seq)
                m.d.sync += [
                    left.eq(request.length - OVERHEAD_BYTES),
                    written.eq(HEADER_BYTES),
                    slot.eq(slot_of(expected)),
                    keep.eq(0),
                    status.eq(Status.OK),
                    value.eq(0),
                    collected.eq(0),
                    position.eq(Mux(beyond, ~0, request.address)),
                    items.eq(request.count),
                ]
                with m.If(request.opcode == Opcode.RESET):
                    m.d.sync += value.eq(PROTOCOL_VERSION)
                    m.next = "DRAIN"
                    with m.If(request.session != session):
                        m.d.sync += [
                            session.eq(request.session),
                            expected.eq(1),
                            replayable.eq(0),
                            has_results.eq(0),
                            request.index.eq(0),
                        ]
                        m.next = "FORGET"
                with m.Elif(request.session != session):
                    fail(Status.NO_SESSION)
                with m.Elif(behind == 0):
                    m.d.sync += [expected.eq(expected + 1), keep.eq(1)]
                    with m.If(replayable != config.window):
                        m.d.sync += replayable.eq(replayable + 1)
                    m.next = "REACH"
                with m.Elif(behind <= replayable):
                    m.d.sync += [slot.eq(slot_of(request.seq)), keep.eq(1)]
                    m.next = "REPLAY"
                with m.Else():
                    fail(Status.NAK)

            with m.State("FORGET"):
                m.d.comb += [table_write.en.eq(1), table_write.data.eq(0)]
                m.d.sync += request.index.eq(request.index + 1)
                with m.If(request.index == config.max_layers - 1):
                    m.next = "HEADER"
                    with m.If(request.opcode == Opcode.RESET):
                        m.next = "DRAIN"

            # The table's memory is slow, and so is adding and comparing: a cycle for each.
            with m.State("REACH"):
                m.d.sync += reach.eq(position + items)
                m.next = "COMPARE"

            with m.State("COMPARE"):
                m.d.sync += [
                    is_open.eq(entry.defined & ~entry.committed),
                    beyond_layer.eq(reach > entry.words),
                    beyond_about.eq(reach > len(about)),
                ]
                m.next = "EXECUTE"

            with m.State("EXECUTE"):
                has_payload = left != 0
                no_layer = request.index >= config.max_layers
                no_token = request.index >= config.tokens
                m.d.comb += crc.start.eq(1)
                with m.Switch(request.opcode):
                    with m.Case(Opcode.IDENTIFY):
                        guard(
                            "FETCH",
                            (has_payload, Status.BAD_LENGTH),
                            (not_in(items, config.max_payload), Status.BAD_LENGTH),
                            (beyond_about, Status.OUT_OF_RANGE),
                        )
                    with m.Case(Opcode.DEFINE):
                        m.d.sync += unit.eq(LAYER.size)
                        guard(
                            "COLLECT",
                            (left != LAYER.size, Status.BAD_LENGTH),
                            (no_layer, Status.OUT_OF_RANGE),
                        )
                    with m.Case(Opcode.WRITE):
                        m.d.sync += unit.eq(word_bytes)
                        guard(
                            "COLLECT",
                            (no_layer, Status.OUT_OF_RANGE),
                            (~is_open, Status.BAD_STATE),
                        )
                    with m.Case(Opcode.READ):
                        guard(
                            "ASK",
                            (has_payload, Status.BAD_LENGTH),
                            (no_layer, Status.OUT_OF_RANGE),
                            (not_in(items, config.max_payload // word_bytes), Status.BAD_LENGTH),
                            (~entry.defined, Status.BAD_STATE),
                            (beyond_layer, Status.OUT_OF_RANGE),
                        )
                    with m.Case(Opcode.COMMIT):
                        m.d.sync += [position.eq(0), items.eq(entry.words)]
                        guard(
                            "ASK",
                            (has_payload, Status.BAD_LENGTH),
                            (no_layer, Status.OUT_OF_RANGE),
                            (~is_open, Status.BAD_STATE),
                        )
                    with m.Case(Opcode.LOAD):
                        m.d.sync += unit.eq(fill)
                        guard("COLLECT", (no_token, Status.OUT_OF_RANGE))
                    with m.Case(Opcode.RUN):
                        m.d.sync += [position.eq(0), items.eq(entry.words)]
                        guard(
                            "ASK",
                            (has_payload, Status.BAD_LENGTH),
                            (no_layer, Status.OUT_OF_RANGE),
                            (not_in(items, config.tokens), Status.BAD_LENGTH),
                            (~(entry.defined & entry.committed), Status.BAD_STATE),
                        )
                    with m.Case(Opcode.RESULTS):
                        guard(
                            "FETCH",
                            (has_payload, Status.BAD_LENGTH),
                            (no_token, Status.OUT_OF_RANGE),
                            (not_in(items, config.max_payload // acc_bytes), Status.BAD_LENGTH),
                            (~has_results, Status.BAD_STATE),
                        )
                    with m.Case(Opcode.COUNTERS):
                        m.d.sync += [position.eq(0), items.eq(len(COUNTERS))]
                        guard("FETCH", (has_payload, Status.BAD_LENGTH))
                    with m.Default():
                        fail(Status.BAD_OPCODE)

            # Words in: DEFINE, WRITE, LOAD.
            with m.State("COLLECT"):
                with m.If(collected == unit):
                    m.d.sync += collected.eq(0)
                    m.next = "STORE"
                with m.Elif(left != 0):
                    m.d.comb += self.i.ready.eq(1)
                    with m.If(self.i.valid):
                        m.d.sync += [
                            shift.eq(Cat(shift[8:], self.i.payload)),
                            collected.eq(collected + 1),
                            left.eq(left - 1),
                        ]
                with m.Elif(collected != 0):
                    fail(Status.BAD_LENGTH)
                with m.Else():
                    m.next = "ANSWER"

            with m.State("STORE"):
                with m.Switch(request.opcode):
                    with m.Case(Opcode.DEFINE):
                        m.d.sync += [end.eq(definition.base), items.eq(definition.tiles)]
                        with m.If(
                            (last_tile >= config.max_tiles)  # 0 − 1 is too
                            | (last_group >= config.max_row_groups)
                            | (definition.base > config.memory_words)
                        ):
                            fail(Status.OUT_OF_RANGE)
                        with m.Else():
                            m.next = "EXTENT"
                    with m.Case(Opcode.WRITE):
                        with m.If(position >= entry.words):
                            fail(Status.OUT_OF_RANGE)
                        with m.Else():
                            m.d.comb += self.o_write.valid.eq(1)
                            with m.If(self.o_write.ready):
                                m.d.sync += position.eq(position + 1)
                                m.next = "COLLECT"
                    with m.Default():
                        with m.If(position >= config.activation_words):
                            fail(Status.OUT_OF_RANGE)
                        with m.Else():
                            m.d.comb += self.o_load.valid.eq(1)
                            with m.If(self.o_load.ready):
                                m.d.sync += position.eq(position + 1)
                                m.next = "COLLECT"

            with m.State("EXTENT"):  # words = tiles × groups, by adding
                with m.If(end > config.memory_words):
                    fail(Status.OUT_OF_RANGE)
                with m.Elif(items != 0):
                    m.d.sync += [end.eq(end + definition.row_groups), items.eq(items - 1)]
                with m.Else():
                    m.d.comb += [
                        table_write.en.eq(1),
                        table_write.data.base.eq(definition.base),
                        table_write.data.words.eq(end - definition.base),
                        table_write.data.last_tile.eq(last_tile),
                        table_write.data.last_group.eq(last_group),
                        table_write.data.defined.eq(1),
                        table_write.data.committed.eq(0),
                    ]
                    m.next = "ANSWER"

            # Weight words: READ, COMMIT, RUN.
            with m.State("ASK"):
                m.d.comb += self.o_read.valid.eq(1)
                with m.If(self.o_read.ready):
                    m.next = "FETCH"
                    with m.If(request.opcode == Opcode.RUN):
                        m.next = "START"

            with m.State("START"):
                m.d.comb += self.o_run.valid.eq(1)
                with m.If(self.o_run.ready):
                    m.next = "RUN"

            with m.State("RUN"):
                m.d.comb += [
                    self.running.eq(1),
                    self.o_word.valid.eq(self.i_word.valid),
                    self.i_word.ready.eq(self.o_word.ready),
                ]
                m.d.sync += value.eq(value + 1)
                with m.If(self.done):
                    m.d.sync += [has_results.eq(1), last_result.eq(entry.last_group)]
                    m.next = "ANSWER"

            # Words out: IDENTIFY, READ, COMMIT (into the checksum), RESULTS, COUNTERS.
            with m.State("FETCH"):
                with m.If(items == 0):
                    m.next = "ANSWER"
                    with m.If(request.opcode == Opcode.COMMIT):
                        m.d.sync += value.eq(crc.crc)
                        with m.If(crc.crc == request.address):
                            m.d.comb += [
                                table_write.en.eq(1),
                                table_write.data.committed.eq(1),
                            ]
                        with m.Else():
                            m.d.sync += status.eq(Status.BAD_CHECKSUM)
                with m.Elif(request.opcode == Opcode.IDENTIFY):
                    send_word(rom_read.data, 1)
                with m.Elif(request.opcode == Opcode.COUNTERS):
                    send_word(self.counters[position], COUNTER_BITS // 8)
                with m.Elif(request.opcode == Opcode.RESULTS):
                    with m.If(position > last_result):
                        fail(Status.OUT_OF_RANGE)
                    with m.Else():
                        m.d.comb += self.o_fetch.valid.eq(1)
                        with m.If(self.o_fetch.ready):
                            m.next = "RESULT"
                with m.Else():
                    m.d.comb += self.i_word.ready.eq(1)
                    with m.If(self.i_word.valid):
                        send_word(self.i_word.payload, word_bytes)

            with m.State("RESULT"):
                sums = self.i_result.payload
                rows = [
                    Array(sums[token * config.rows + row] for token in range(config.tokens))[
                        request.index
                    ]
                    for row in range(config.rows)
                ]
                m.d.comb += self.i_result.ready.eq(1)
                with m.If(self.i_result.valid):
                    send_word(
                        Cat(sign_extend(row, 8 * acc_bytes) for row in rows),
                        config.rows * acc_bytes,
                    )
                    m.d.sync += items.eq(items - config.rows)
                    with m.If(items <= config.rows):
                        rest = items[: config.rows.bit_length()]
                        sizes = Array(acc_bytes * count for count in range(config.rows + 1))
                        m.d.sync += [items.eq(0), bytes_left.eq(sizes[rest])]

            with m.State("SHIFT"):
                with m.If(request.opcode == Opcode.COMMIT):
                    m.d.comb += crc.valid.eq(1)
                with m.Else():
                    emit(shift[:8])
                m.d.sync += [shift.eq(shift >> 8), bytes_left.eq(bytes_left - 1)]
                with m.If(bytes_left == 1):
                    m.next = "FETCH"

            # The end of every command.
            with m.State("DRAIN"):
                with m.If(left == 0):
                    m.next = "ANSWER"
                with m.Else():
                    m.d.comb += self.i.ready.eq(1)
                    with m.If(self.i.valid):
                        m.d.sync += left.eq(left - 1)

            with m.State("REPLAY"):
                with m.If(left == 0):
                    m.next = "SEND"
                with m.Else():
                    m.d.comb += self.i.ready.eq(1)
                    with m.If(self.i.valid):
                        m.d.sync += left.eq(left - 1)

            with m.State("ANSWER"):  # seq, session and opcode stay where they are
                m.d.sync += [
                    response.length.eq(
                        Mux(status == Status.OK, written + CRC_BYTES, OVERHEAD_BYTES)
                    ),
                    response.status.eq(status),
                    response.expected.eq(expected),
                    response.value.eq(value),
                    written.eq(0),
                ]
                m.next = "ANSWER-HEADER"

            with m.State("ANSWER-HEADER"):
                emit(header.bits[:8])
                m.d.sync += header.bits.eq(header.bits >> 8)
                with m.If(written == HEADER_BYTES - 1):
                    m.next = "SEND"

            with m.State("SEND"):
                m.d.comb += self.o_send.valid.eq(1)
                with m.If(self.o_send.ready):
                    m.d.sync += taken.eq(0)
                    m.next = "HEADER"
                    with m.If(~keep):
                        m.next = "WAIT"

            with m.State("WAIT"):  # the next command may use the slot that is being sent
                with m.If(self.o_send.ready):
                    m.next = "HEADER"
        return m


def not_in(value: Value, high: int) -> Value:
    """Whether ``value`` is outside 1 to ``high``."""
    return (value == 0) | (value > high)


def sign_extend(value: Value, bits: int) -> Value:
    return Cat(value, value[-1].replicate(bits - len(value)))
