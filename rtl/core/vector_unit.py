"""The vector unit: runs programs of steps over float32 vectors, beside the core."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.vector_memory import (
    WORD_BITS,
    CodeQueue,
    VectorMemory,
    code_shape,
    run_shape,
    sums_shape,
    token_bits,
)
from tritloom.rtl.core.vector_pipeline import NUMBER, VectorPipeline, step_layout
from tritloom.rtl.core.vector_results import (
    code_queue,
    greatest,
    quotient_word,
    row_enters,
)
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.float_divide import FloatDivide
from tritloom.rtl.lib.floats import register
from tritloom.rtl.spec.vector_cycles import (
    READ_CYCLES,
    SCALAR_CYCLES,
    addend_cycles,
    pipeline_cycles,
    wrap_pause,
)
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_interpreter import LIMIT_FIELD
from tritloom.rtl.spec.vector_program import FIELDS, Factor, Operation, Second

__all__ = ["VectorUnit"]


class VectorUnit(wiring.Component):
    """Executes the programs of `vector_program`, as `VectorInterpreter` does.

    It trusts `check_program`: a program that was not checked can give wrong words, or wait forever.
    `vector_cycles` states how long each step takes.

    Parameters
    ----------
    config : of the unit
    sum_bits : width of the core's results, at most 25
    tokens : of the core. Each has a vector memory of its own. A program computes tokens 0 to
        `last_token`: first the steps up to a RUN for one token after the other, then the layer for
        all of them, and so on.

    Members
    -------
    address : in, address of the vector memory
    token : in, number; only with several tokens
        While not `busy`: whose memory `address` means.
    put, word : in, 1 bit and 32 bits
        While not `busy`: `word` is written to `address`.
    got : out, 32 bits
        While not `busy`: the word at `address`, `GET_CYCLES` later. A word that was put
        `PUT_CYCLES` earlier is read.
    step_write, step_address, step : in, 1 bit, address, and layout of `FIELDS`
        While not `busy`: `step` is written to the program memory.
    got_step : out, layout of `FIELDS`
        While not `busy`: the step at `step_address`, `GET_CYCLES` later.
    start : in, 1 bit
        While not `busy`: the program at `step_address` begins.
    last_token : in, number; only with several tokens
        With `start`: the last token to compute.
    o_token : out, number; only with several tokens
        The token that is computed.
    busy : out, 1 bit
        From the cycle after `start` until the program has ended, and its codes are taken.
    not_finite : out, 1 bit
        A result since the last `start` was not finite, or 2^126 or more.
    stall : out, 1 bit
        An element waits in this cycle for the core: for its result, or until it takes codes.
    o_code : out, stream of `code_shape`
        Codes of the layer that runs next; up to `lanes` in a transfer.
    o_run : out, stream of `run_shape`
        The layer to compute, when the core has all its codes. Of several tokens each gives the
        layer, and it is computed after the `last` one.
    i_sum : in, stream of signed `sum_bits`, with several lanes of `lanes` of them
        Results of the layer, in the order of its rows; taken by the steps with `from_core`.
    sum_last : out, number; only with several lanes
        A transfer at `i_sum` takes that many results and one more, which must be there before
        `valid` is set. It does not depend on `valid`.
    """

    address: Signal
    token: Signal
    put: Signal
    word: Signal
    got: Signal
    step_write: Signal
    step_address: Signal
    step: Any
    got_step: Any
    start: Signal
    last_token: Signal
    o_token: Signal
    busy: Signal
    not_finite: Signal
    stall: Signal
    o_code: stream.Interface
    o_run: stream.Interface
    i_sum: stream.Interface
    sum_last: Signal

    GET_CYCLES = READ_CYCLES
    PUT_CYCLES = 2
    """Cycles from `put` to the first cycle in which `address` reads the new word."""

    def __init__(self, config: VectorConfig, sum_bits: int, tokens: int = 1) -> None:
        self.config, self.sum_bits, self.tokens = config, sum_bits, tokens
        token = range(tokens)
        several = {"token": In(token), "last_token": In(token), "o_token": Out(token)}
        super().__init__(
            {
                "address": In(config.address_bits),
                "put": In(1),
                "word": In(WORD_BITS),
                "got": Out(WORD_BITS),
                "step_write": In(1),
                "step_address": In(range(config.steps)),
                "step": In(data.StructLayout(FIELDS)),
                "got_step": Out(data.StructLayout(FIELDS)),
                "start": In(1),
                "busy": Out(1),
                "not_finite": Out(1),
                "stall": Out(1),
                "o_code": Out(stream.Signature(code_shape(config.lanes))),
                "o_run": Out(stream.Signature(run_shape(tokens))),
                **(several if tokens > 1 else {}),
                "i_sum": In(stream.Signature(sums_shape(sum_bits, config.lanes))),
                **({"sum_last": Out(config.lane_bits)} if config.lanes > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.memory = memory = VectorMemory(config, self.tokens)
        m.submodules.divide = divide = FloatDivide()
        latency = pipeline_cycles(config)
        program, next_step = self._program(m)
        # The block RAM is slow, so these have one more register. In DECODE the address is already
        # that of the step after, so a step of two cycles leaves time for it.
        operation, factor = register(m, next_step.operation), register(m, next_step.factor)
        second = register(m, next_step.second) if config.multipliers == 2 else Const(0)
        step = Signal(step_layout(config), reset_less=True)
        m.d.comb += [self.got_step[name].eq(next_step[name]) for name, _ in step_layout(config)]
        executes = Signal()

        # Addresses of the elements that enter, and of the results that leave.
        left = Signal(config.address_bits, reset_less=True)
        a, b, c, d, to = (
            Signal(config.address_bits, name=f"{name}_place", reset_less=True)
            for name in ("a", "b", "c", "d", "to")
        )
        enters, reads_scalars, reads_second, in_elements = Signal(), Signal(), Signal(), Signal()
        elements: Value = in_elements  # elements may enter
        final, valids = self._marks(m, left, enters)
        with m.If(enters):
            m.d.sync += [each.eq(each + config.lanes) for each in (a, b, c)]
        with m.If(enters if config.lanes == 1 else delay(m, enters, addend_cycles(config))):
            m.d.sync += d.eq(self._next_address(step, d))
        with m.If(valids[0]):
            m.d.sync += to.eq(self._next_address(step, to))
        m.d.comb += [
            memory.a_address.eq(self._of_token(Mux(executes, a, self.address))),
            memory.b_address.eq(
                self._of_token(self._b_address(step, b, c, d, reads_scalars, reads_second))
            ),
            self.got.eq(memory.o_a[0]),
        ]

        scalar, second_scalar = (
            Signal(WORD_BITS, name=name, reset_less=True) for name in ("scalar", "second_scalar")
        )
        numbers = scalar, second_scalar, divide.o.payload.reciprocal
        outputs = self._pipelines(m, memory, step, numbers)
        stores = Signal()  # a single result is written
        begins = Signal()  # a PRODUCT begins
        word = Signal(NUMBER, reset_less=True)
        words = [word, *(register(m, output, NUMBER, "word") for output in outputs[1:])]
        maximum = greatest(
            m, config, words, [delay(m, each, 1) for each in valids], begins, next_step
        )
        quotient = quotient_word(m, config, memory, divide, step)
        results = outputs[0], quotient, maximum
        self._write(m, memory, to, words, results, valids, stores, step)
        queue = code_queue(m, enters & step.codes, [each & step.codes for each in valids], words)
        wiring.connect(m, queue.o, wiring.flipped(self.o_code))
        m.d.comb += self.busy.eq(executes | ~queue.idle)
        if wrap_pause(config):
            elements &= row_enters(m, config, enters & step.wrap, begins)
        ready = elements & (queue.room | ~step.codes)
        m.d.comb += [
            self.i_sum.ready.eq(ready & step.from_core),
            enters.eq(ready & (self.i_sum.valid | ~step.from_core)),
            self.stall.eq(elements & ~enters),
        ]
        segment, last = self._tokens(m, step)
        wait = Signal(range(max(latency, SCALAR_CYCLES)))
        with m.FSM() as fsm:
            m.d.comb += executes.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += program.eq(self.step_address)
                with m.If(self.start):
                    m.next = "FETCH"
            with m.State("FETCH"):
                if self.tokens > 1:
                    m.d.sync += segment.eq(program)
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += program.eq(program + 1)
                m.next = "DECODE"
            with m.State("DECODE"):
                # A long reciprocal stays in the divider until its step is over.
                m.d.comb += divide.o.ready.eq(1)
                m.d.sync += [
                    step.eq(next_step),
                    left.eq(next_step.last),
                    a.eq(next_step.a),
                    b.eq(next_step.b),
                    *([c.eq(next_step.c)] if config.multipliers == 2 else []),
                    d.eq(next_step.d),
                    to.eq(next_step.d),
                    wait.eq(SCALAR_CYCLES - 1),
                ]
                m.d.comb += begins.eq(operation == Operation.PRODUCT)
                self._choose(m, operation, factor, last if self.tokens > 1 else None)
                if config.multipliers == 2:
                    with m.If((operation == Operation.PRODUCT) & (second == Second.SCALAR)):
                        m.next = "SECOND"
            if config.multipliers == 2:
                with m.State("SECOND"):
                    m.d.comb += reads_second.eq(1)
                    m.d.sync += [wait.eq(wait - 1), second_scalar.eq(memory.o_b[0])]
                    with m.If(wait == 0):
                        m.d.sync += wait.eq(SCALAR_CYCLES - 1)
                        self._choose(m, step.operation, step.factor)
            with m.State("SCALARS"):
                m.d.comb += reads_scalars.eq(1)
                # `scalar` is right in the last of these cycles.
                m.d.sync += [wait.eq(wait - 1), scalar.eq(memory.o_b[0])]
                with m.If(wait == 0):
                    m.next = "DIVIDE"
                    with m.If(
                        (step.operation == Operation.PRODUCT) & (step.factor == Factor.SCALAR)
                    ):
                        m.next = "ELEMENTS"
            if config.lanes > 1:
                # Meanwhile the maxima of the lanes are compared.
                with m.State("LANES"):
                    m.d.sync += wait.eq(wait - 1)
                    with m.If(wait == 0):
                        m.next = "STORE"
            with m.State("DIVIDE"):
                m.d.comb += divide.i.valid.eq(1)
                m.next = "QUOTIENT"
            with m.State("QUOTIENT"):
                with m.If(divide.o.valid):
                    m.next = "STORE"
                    with m.If(step.operation == Operation.PRODUCT):
                        m.next = "ELEMENTS"
            with m.State("ELEMENTS"):
                m.d.comb += in_elements.eq(1)
                m.d.sync += wait.eq(latency - 1)
                with m.If(enters & final):
                    m.next = "DRAIN"
            # The next step may read any result of this one.
            with m.State("DRAIN"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += program.eq(program + 1)
                    m.next = "DECODE"
            with m.State("STORE"):
                m.d.comb += stores.eq(1)
                m.d.sync += program.eq(program + 1)
                m.next = "DECODE"
            self._run_states(m, program, segment, last, queue)
        return m

    def _run_states(
        self, m: Module, program: Signal, segment: Signal, last: Value, queue: CodeQueue
    ) -> None:
        """States that give a layer to the core, and that go on to the next token."""
        with m.State("RUN"):
            m.d.comb += self.o_run.valid.eq(queue.idle)
            runs = self.o_run.valid & self.o_run.ready
            with m.If(runs & last):
                m.d.sync += program.eq(program + 1)
                m.next = "DECODE"
            if self.tokens > 1:
                with m.If(runs & last):
                    m.d.sync += [self.o_token.eq(0), segment.eq(program)]
                with m.Elif(runs):
                    m.next = "NEXT-TOKEN"
        if self.tokens > 1:
            # The next token computes the steps since the last layer.
            with m.State("NEXT-TOKEN"):
                with m.If(queue.idle):
                    m.d.sync += [self.o_token.eq(self.o_token + 1), program.eq(segment)]
                    m.next = "FETCH"

    def _of_token(self, address: Value) -> Value:
        """An address in the memory of the token that is computed, or that the host names."""
        if self.tokens == 1:
            return address
        return Cat(address[: self.config.address_bits], Mux(self.busy, self.o_token, self.token))

    def _tokens(self, m: Module, step: Any) -> tuple[Signal, Value]:
        """Where the steps since the last layer begin, and whether the last token is computed."""
        segment = Signal(range(self.config.steps))
        if self.tokens == 1:
            m.d.comb += self.o_run.payload.eq(step.a)
            return segment, Const(1)
        last_token = Signal(range(self.tokens))
        last = self.o_token == last_token
        m.d.comb += [self.o_run.payload.layer.eq(step.a), self.o_run.payload.last.eq(last)]
        with m.If(self.start & ~self.busy):
            m.d.sync += [last_token.eq(self.last_token), self.o_token.eq(0)]
        return segment, last

    def _b_address(
        self, step: Any, b: Value, c: Value, d: Value, reads_scalars: Value, reads_second: Value
    ) -> Value:
        """The address that the memory's second port reads."""
        address = Mux(step.add & ~reads_scalars, d, b)
        if self.config.multipliers == 1:
            return address
        vector = (step.second == Second.VECTOR) & ~reads_scalars
        return Mux(vector | reads_second, c, address)

    def _choose(
        self, m: Module, operation: Value, factor: Value, last: Value | None = None
    ) -> None:
        """The state that follows DECODE. `last` : no token follows; None with one token."""
        with m.Switch(operation):
            with m.Case(Operation.PRODUCT):
                m.next = "ELEMENTS"
                with m.If((factor == Factor.SCALAR) | (factor == Factor.DIVISOR)):
                    m.next = "SCALARS"
            with m.Case(Operation.DIVIDE, Operation.ROOT):
                m.next = "SCALARS"
            with m.Case(Operation.MAXIMUM):
                m.next = "STORE" if self.config.lanes == 1 else "LANES"
            with m.Case(Operation.RUN):
                m.next = "RUN"
            with m.Default():
                m.next = "IDLE"
                if last is not None:
                    with m.If(~last):
                        m.next = "NEXT-TOKEN"

    def _program(self, m: Module) -> tuple[Signal, Any]:
        """The address in the program memory, and the step there, one cycle later."""
        layout = step_layout(self.config)
        m.submodules.program = memory = block_ram(layout, self.config.steps)
        read, write = ReadPort(m, memory), memory.write_port()
        address = Signal(range(self.config.steps), name="program_address")
        m.d.comb += [
            read.addr.eq(address),
            write.en.eq(self.step_write),
            write.addr.eq(self.step_address),
            *[write.data[name].eq(self.step[name]) for name, _ in layout],
        ]
        return address, read.data

    def _marks(self, m: Module, left: Signal, enters: Value) -> tuple[Value, list[Value]]:
        """Whether the last elements of a step enter, and for each lane whether its result is there.

        `left` is how many elements follow the first one that enters. Lanes take elements together;
        those behind the last element are of no use.
        """
        lanes, low = self.config.lanes, self.config.lane_bits
        latency = pipeline_cycles(self.config)
        final = left[low:] == 0
        valids = [delay(m, enters, latency)]
        for lane in range(1, lanes):
            valids.append(delay(m, enters & (~final | (left[:low] >= lane)), latency))
        with m.If(enters):
            m.d.sync += left.eq(left - lanes)
        if lanes > 1:
            m.d.comb += self.sum_last.eq(Mux(final, left[:low], lanes - 1))
        return final, valids

    def _pipelines(
        self, m: Module, memory: VectorMemory, step: Any, numbers: Sequence[Value]
    ) -> list[Value]:
        """The result of each lane; `numbers` are the scalars and the long reciprocal."""
        outputs: list[Value] = []
        lanes, sums = self.config.lanes, self.i_sum.payload
        for lane in range(lanes):
            pipeline = VectorPipeline(self.config, self.sum_bits)
            m.submodules["pipeline" if lanes == 1 else f"pipeline_{lane}"] = pipeline
            scalar, second_scalar, reciprocal = numbers
            m.d.comb += [
                pipeline.step.eq(step),
                pipeline.scalar.eq(scalar),
                pipeline.reciprocal.eq(reciprocal),
                pipeline.i_sum.eq(sums if lanes == 1 else sums[lane]),
                pipeline.i_a.eq(memory.o_a[lane]),
                pipeline.i_b.eq(memory.o_b[lane]),
            ]
            if self.config.multipliers == 2:
                m.d.comb += pipeline.second_scalar.eq(second_scalar)
            outputs.append(pipeline.o)
        return outputs

    def _write(
        self,
        m: Module,
        memory: VectorMemory,
        to: Value,
        words: Sequence[Any],
        results: Sequence[Value],
        valids: Sequence[Value],
        stores: Value,
        step: Any,
    ) -> None:
        """Write the host's words, and results that are no codes; watch all results.

        `words` are the registers in front of the memory. The first becomes one here: of `results`
        it takes that of the pipeline; where `stores` is set the quotient or the maximum.
        """
        word, valid = words[0], valids[0]
        watched, write = Signal(), Signal()
        address = Signal(self.config.address_bits, reset_less=True)
        place: Value = address
        # One choice of four by two bits takes two LUTs a bit.
        kind = Cat(Mux(stores, step.operation == Operation.MAXIMUM, self.busy), stores)
        choices = Array([self.word, *results])
        if self.tokens > 1:
            address_token = Signal(token_bits(self.tokens), reset_less=True)
            m.d.sync += address_token.eq(Mux(self.busy, self.o_token, self.token))
            place = Cat(address, address_token)
        m.d.sync += [
            watched.eq(valid | stores),
            write.eq(Mux(self.busy, (valid & ~step.codes) | stores, self.put)),
            address.eq(Mux(self.busy, to, self.address)),
            word.as_value().eq(choices[kind]),
        ]
        m.d.comb += [
            memory.write[0].eq(write),
            memory.address.eq(place),
            memory.word[0].eq(word.as_value()),
        ]
        with m.If(watched & (word.exponent >= LIMIT_FIELD)):
            m.d.sync += self.not_finite.eq(1)
        for lane in range(1, self.config.lanes):
            m.d.comb += [
                memory.write[lane].eq(delay(m, valids[lane] & ~step.codes, 1)),
                memory.word[lane].eq(words[lane].as_value()),
            ]
            with m.If(delay(m, valids[lane], 1) & (words[lane].exponent >= LIMIT_FIELD)):
                m.d.sync += self.not_finite.eq(1)
        with m.If(self.start & ~self.busy):
            m.d.sync += self.not_finite.eq(0)

    def _next_address(self, step: Any, address: Signal) -> Value:
        """The address of the next element of d: with `wrap`, of the next of 32 sums."""
        low_bits = (WRAP_WORDS - 1).bit_length()
        after = (address + self.config.lanes)[: len(address)]
        return Cat(after[:low_bits], Mux(step.wrap, address[low_bits:], after[low_bits:]))
