"""The responder: copies what a response holds beside its header, in the order of the commands."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.control.banks import results_layout
from tritloom.rtl.control.checks import status_of
from tritloom.rtl.control.layouts import COUNTER_BITS, RESPONSE
from tritloom.rtl.control.result_floats import ResultFloats
from tritloom.rtl.control.tasks import (
    Kind,
    first_slot,
    only_checksum,
    position_shape,
    task_layout,
)
from tritloom.rtl.control.words import WordSplitter, results_out
from tritloom.rtl.core.partial_sums import fetch_layout
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import WideCrc32
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.checks import Quantity
from tritloom.rtl.spec.commands import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    Opcode,
    Status,
    counters_of,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import STEP_BYTES

__all__ = ["Responder"]


def _places(name: str) -> range:
    """The bytes of a field of a response's header."""
    field = RESPONSE[name]
    return range(field.offset // 8, (field.offset + field.width) // 8)


LENGTH_BYTES, VALUE_BYTES = _places("length"), _places("value")
(STATUS_BYTE,) = _places("status")
"""Places in the header of what is known only when the payload is written."""


class Responder(wiring.Component):
    """Does one task after the other.

    Members
    -------
    i_task : in, stream of `task_layout`
    slot : out, number
        The slot of the response that is written.
    new_session : in, 1 bit
        Strobe: the next response lies in `first_slot`. Only while there is no task.
    beat, data, mask, write : out
        A beat of the response, its place in the slot, which of its bytes are stored, and whether
        there is one.
    blocked : in, 1 bit
        The beat is not stored in this cycle.
    finished : out, 1 bit
        Strobe: the task's response is complete.
    checksum : out, 32 bits
        Of the words of the last CHECKSUM.
    ended : out, 1 bit
        Strobe: a task has ended, with a response or without one.
    i_word : in, stream of weight words
        The words of READ and COMMIT.
    void, failed : 1 bit each
        In: the word that moves at `i_word` is void. Out: a word of the last task was void; until
        the next task. Only if the memory can fail.
    o_fetch : out, stream of `fetch_layout`
        The row groups whose totals the core shall read.
    i_result : in, stream of `sums_layout`
        Their totals; with scales they become float32 here.
    bank : out, number
        The result bank that the task reads.
    may_copy : in, 1 bit
        No layer runs that writes that bank.
    results : in, `results_layout`
        Of that bank.
    copied : out, 1 bit
        Strobe: the RESULTS of that bank has been copied.
    counters : in, `COUNTER_BITS` each
        In the order of `counters_of`.
    read_address, word, step, program_cycles
        Out: the word or step that the vector unit shall read; in: that word and that step,
        `VectorUnit.GET_CYCLES` later, and the cycles of the last program. Only with a vector unit.
    """

    i_task: stream.Interface
    slot: Signal
    new_session: Signal
    beat: Signal
    data: Signal
    mask: Signal
    write: Signal
    blocked: Signal
    finished: Signal
    checksum: Signal
    ended: Signal
    i_word: stream.Interface
    o_fetch: stream.Interface
    i_result: stream.Interface
    bank: Signal
    may_copy: Signal
    results: data.View
    copied: Signal
    counters: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        beat_bytes = config.link.beat_bytes
        of_unit = {
            "read_address": Out(position_shape(config)),
            **({"read_token": Out(range(config.tokens))} if config.tokens > 1 else {}),
            "word": In(8 * VECTOR_WORD_BYTES),
            "step": In(8 * STEP_BYTES),
            "program_cycles": In(32),
        }
        super().__init__(
            {
                "i_task": In(stream.Signature(task_layout(config))),
                "slot": Out(range(config.slots), init=first_slot(config)),
                "new_session": In(1),
                "beat": Out(range(config.packet_bytes // beat_bytes)),
                "data": Out(8 * beat_bytes),
                "mask": Out(beat_bytes),
                "write": Out(1),
                "blocked": In(1),
                "finished": Out(1),
                "checksum": Out(32),
                "ended": Out(1),
                "i_word": In(stream.Signature(Shape(config.word_bits))),
                "o_fetch": Out(stream.Signature(fetch_layout(config))),
                "i_result": In(stream.Signature(sums_layout(config, config.result_bits))),
                "bank": Out(range(config.banks)),
                "may_copy": In(1),
                "results": In(results_layout(config)),
                "copied": Out(1),
                "counters": In(data.ArrayLayout(COUNTER_BITS, len(counters_of(config)))),
                **({} if config.vector is None else of_unit),
                **({"void": In(1), "failed": Out(1)} if config.memory.can_fail else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        beat_bytes = config.link.beat_bytes
        task = Signal(task_layout(config), reset_less=True)
        longest = max(config.word_bytes, config.rows * config.acc_bytes, COUNTER_BITS // 8)
        if config.vector is not None:
            longest = max(longest, STEP_BYTES)
        m.submodules.splitter = splitter = WordSplitter(longest, beat_bytes)
        m.submodules.crc = crc = WideCrc32(beat_bytes)
        moving = Signal()  # the task's words are on their way
        failed = Signal()  # RESULTS asks for a row group that the layer does not have
        void: Any = 0  # the memory failed in a word of the task, or of the RUN that it reads
        written = Signal(bits_for(config.packet_bytes))  # length of the response so far
        # Results whose row groups are not yet asked for.
        unfetched = Signal(bits_for(config.max_payload // config.acc_bytes))
        if config.memory.can_fail:
            void = self._connect_failure(m)
        self._connect_words(m, task, splitter, moving, unfetched, failed)

        place = Signal(range(config.packet_bytes // beat_bytes))  # of the payload's next beat
        beat, is_checksum = splitter.o.payload, only_checksum(config, task.kind)
        stores = Signal()
        m.d.comb += [
            self.bank.eq(task.bank),
            self.checksum.eq(crc.crc),
            crc.data.eq(beat.data),
            crc.size.eq(beat.size),
            stores.eq(splitter.o.valid & ~is_checksum),
            splitter.o.ready.eq(is_checksum | ~self.blocked),
            crc.valid.eq(splitter.o.valid & is_checksum),
            self.beat.eq(place),
            self.data.eq(beat.data),
            self.mask.eq(~0),
            self.write.eq(stores),
        ]
        with m.If(stores & splitter.o.ready):
            m.d.sync += [place.eq(place + 1), written.eq(written + beat.size)]

        with m.If(self.finished):
            m.d.sync += self.slot.eq(self.slot + 1)
        with m.If(self.new_session):
            m.d.sync += self.slot.eq(first_slot(config))

        patches = _Patches(config)
        patch = Signal(range(len(patches)))
        with m.FSM():
            with m.State("TASK"):
                m.d.comb += self.i_task.ready.eq(1)
                m.d.sync += [
                    task.eq(self.i_task.payload),
                    failed.eq(0),
                    place.eq(HEADER_BYTES // beat_bytes),
                    written.eq(OVERHEAD_BYTES),
                    patch.eq(0),
                ]
                with m.If(self.i_task.valid):
                    m.next = "WAIT"
                    with m.If(self.i_task.payload.kind == Kind.NOTHING):
                        m.d.comb += [self.finished.eq(1), self.ended.eq(1)]
                        m.next = "TASK"

            with m.State("WAIT"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += unfetched.eq(task.items)
                with m.If((task.kind != Kind.RESULTS) | self.may_copy):
                    m.next = "MOVE"
                    if config.memory.can_fail:
                        with m.If((task.kind == Kind.RESULTS) & self.results.void):
                            m.d.sync += void.eq(1)
                            m.next = "PATCH"

            with m.State("MOVE"):
                m.d.comb += [moving.eq(1), splitter.flush.eq(task.items == 0)]
                with m.If((task.items == 0) & splitter.empty):
                    m.next = "PATCH"
                    with m.If(is_checksum):
                        m.d.comb += self.ended.eq(1)
                        m.next = "TASK"

            with m.State("PATCH"):
                no_payload = failed | void if config.memory.can_fail else failed
                value = Mux((task.kind == Kind.RESULTS) & ~no_payload, self.results.cycles, 0)
                if config.vector is not None:
                    value = Mux(task.kind == Kind.VECTOR, self.program_cycles, value)
                m.d.comb += [
                    self.write.eq(1),
                    patches.connect(
                        self, patch, Mux(no_payload, OVERHEAD_BYTES, written), value, void
                    ),
                ]
                with m.If(~self.blocked):
                    m.d.sync += patch.eq(patch + 1)
                    with m.If(patch == len(patches) - 1):
                        m.d.comb += [
                            self.finished.eq(1),
                            self.ended.eq(1),
                            self.copied.eq(task.kind == Kind.RESULTS),
                        ]
                        m.next = "TASK"
        return m

    def _connect_failure(self, m: Module) -> Signal:
        """A register that says that a word was void, until the next task."""
        ports: Any = self
        void = Signal()
        m.d.comb += ports.failed.eq(void)
        with m.If(self.i_task.valid & self.i_task.ready):
            m.d.sync += void.eq(0)
        with m.If(ports.void):
            m.d.sync += void.eq(1)
        return void

    def _connect_words(
        self,
        m: Module,
        task: data.View,
        splitter: WordSplitter,
        moving: Signal,
        unfetched: Signal,
        failed: Signal,
    ) -> None:
        """Bring the task's items into the splitter, while it is `moving`."""
        config, about = self.config, identity(self.config)
        m.submodules.identity = rom = block_ram(8, len(about), about)
        read = ReadPort(m, rom)
        has_read = Signal()  # `read.data` is the byte at the task's position
        words, word = splitter.i, splitter.i.payload
        wanted = Signal()  # at least one item has not entered the splitter
        enters = Signal()
        is_results = task.kind == Kind.RESULTS
        m.d.comb += [
            wanted.eq(moving & (task.items != 0)),
            read.addr.eq(task.position),
            enters.eq(words.valid & words.ready),
            self.o_fetch.valid.eq(moving & is_results & (unfetched != 0)),
            self.o_fetch.payload.row_group.eq(task.position),
            self.o_fetch.payload.bank.eq(task.bank),
        ]
        m.d.sync += has_read.eq(wanted & ~enters)
        # Above an item's bytes the word can be anything, so weight words are not masked.
        m.d.comb += word.word.eq(self.i_word.payload)
        late = Signal()  # the vector unit has read at the task's position
        if config.vector is not None:
            m.d.comb += self.read_address.eq(task.position)
            if config.tokens > 1:
                m.d.comb += self.read_token.eq(task.token)
            m.d.sync += late.eq(has_read & ~enters)
        floats = None if config.scale is None else self._connect_floats(m, task, moving)
        with m.Switch(task.kind):
            with m.Case(Kind.IDENTITY):
                m.d.comb += [
                    words.valid.eq(wanted & has_read),
                    word.word[:8].eq(read.data),
                    word.size.eq(1),
                ]
            with m.Case(Kind.COUNTERS):
                number = len(counters_of(config))
                counters = Array(self.counters[index] for index in range(number))
                m.d.comb += [
                    words.valid.eq(wanted),
                    word.word[:COUNTER_BITS].eq(
                        counters[task.position[: (number - 1).bit_length()]]
                    ),
                    word.size.eq(COUNTER_BITS // 8),
                ]
            with m.Case(Kind.RESULTS):
                if floats is None:
                    results, size = results_out(
                        config, self.i_result.payload, task.token, task.items
                    )
                    source = self.i_result
                else:
                    results, size, source = floats.o.payload, FLOAT_BYTES, floats.o
                m.d.comb += [
                    words.valid.eq(wanted & source.valid),
                    source.ready.eq(wanted & words.ready),
                    word.word[: len(results)].eq(results),
                    word.size.eq(size),
                ]
            if config.vector is not None:
                for kind, value in ((Kind.VECTOR, self.word), (Kind.STEPS, self.step)):
                    with m.Case(kind):
                        m.d.comb += [
                            words.valid.eq(wanted & has_read & late),
                            word.word[: len(value)].eq(value),
                            word.size.eq(len(value) // 8),
                        ]
            with m.Default():
                m.d.comb += [
                    words.valid.eq(wanted & self.i_word.valid),
                    self.i_word.ready.eq(wanted & words.ready),
                    word.size.eq(config.word_bytes),
                ]
        step: Any = 1 if floats else Mux(is_results, config.rows, 1)
        with m.If(enters):
            # The last row group may hold more results than are asked for.
            m.d.sync += task.items.eq(Mux(task.items < step, 0, task.items - step))
        fetches = self.o_fetch.valid & self.o_fetch.ready
        with m.If(fetches):
            m.d.sync += unfetched.eq(Mux(unfetched < config.rows, 0, unfetched - config.rows))
            with m.If(task.position > self.results.last_group):
                m.d.sync += failed.eq(1)
        with m.If(fetches | (enters & ~is_results)):
            m.d.sync += task.position.eq(task.position + 1)

    def _connect_floats(self, m: Module, task: data.View, moving: Signal) -> ResultFloats:
        """Add what makes totals float32; it stands still unless the task's words move."""
        m.submodules.floats = floats = ResultFloats(self.config)
        m.d.comb += [
            floats.i.valid.eq(self.i_result.valid),
            floats.i.payload.eq(self.i_result.payload),
            self.i_result.ready.eq(floats.i.ready),
            floats.token.eq(task.token),
            floats.start.eq(~moving),
            floats.count.eq(task.items),
        ]
        return floats


class _Patches:
    """The beats of a header that hold its length, status and value."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self._beat_bytes = config.link.beat_bytes
        self._can_fail = config.memory.can_fail
        places = (*LENGTH_BYTES, STATUS_BYTE, *VALUE_BYTES)
        self._beats = sorted({place // self._beat_bytes for place in places})

    def __len__(self) -> int:
        return len(self._beats)

    def connect(
        self, ports: Responder, number: Value, length: Value, value: Value, void: Value
    ) -> list[Any]:
        """The statements that write beat `number`; a response without a payload has failed."""
        failed = length == OVERHEAD_BYTES
        failure: Any = status_of(Opcode.RESULTS, Quantity.ROW_GROUPS_END)
        if self._can_fail:
            failure = Mux(void, status_of(Opcode.RESULTS, Quantity.VOID_WORDS), failure)
        lengths, status, values = Signal(16), Signal(8), Signal(32)
        contents: dict[int, Value] = {STATUS_BYTE: status}
        contents |= {place: lengths.word_select(n, 8) for n, place in enumerate(LENGTH_BYTES)}
        contents |= {place: values.word_select(n, 8) for n, place in enumerate(VALUE_BYTES)}
        data, masks = [], []
        for beat in self._beats:
            places = range(beat * self._beat_bytes, (beat + 1) * self._beat_bytes)
            data.append(Cat(contents.get(place, Const(0, 8)) for place in places))
            masks.append(Cat(Const(place in contents, 1) for place in places))
        return [
            lengths.eq(length),
            status.eq(Mux(failed, failure, Status.OK)),
            values.eq(value),
            ports.beat.eq(Array(self._beats)[number]),
            ports.data.eq(Array(data)[number]),
            ports.mask.eq(Array(masks)[number]),
        ]
