"""Programs of the vector unit: what is committed, the check of their steps, and their execution."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from tritloom.rtl.control.checks import status_of
from tritloom.rtl.control.registers import CommandRegisters
from tritloom.rtl.control.tasks import Kind
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.checks import Quantity
from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.vector_program import Factor, Operation, Second

__all__ = ["ProgramStates"]


class ProgramStates:
    """The states of the command acceptor that only an accelerator with a vector unit has.

    Parameters
    ----------
    m : module of the acceptor
    ports : the acceptor; its `vector` is the port to the unit
    registers : its registers; `request.index` selects the layer that `table` tells of
    table : its `LayerTable`

    Members
    -------
    steps : how many of the first steps are committed
    not_finite : the last program of the session met a number that is not finite
    void : the last program of the session ran a layer with a void word; 0 if the memory cannot fail
    reads_steps : the responder reads the program memory
    """

    def __init__(self, m: Module, ports: Any, registers: CommandRegisters, table: Any) -> None:
        self._m, self._ports, self._registers, self._table = m, ports, registers, table
        self._config = registers.config
        unit = self._config.vector
        assert unit is not None
        self.steps = Signal(bits_for(unit.steps))
        self.not_finite = Signal()
        self.void = Signal() if self._config.memory.can_fail else Const(0)
        self._serving = Signal()  # the layers that run are a program's
        self.reads_steps = Signal()
        self._executed = Signal()  # in this session
        self._named = Signal(self._config.max_layers)  # layers that a committed step runs
        self._step = Signal.like(ports.vector.got_step, reset_less=True)
        self._wrong, self._open = Signal(), Signal()  # found in the steps so far
        self._connect()

    @property
    def _layer(self) -> Value:
        """The request's layer, as a number below `max_layers`."""
        return self._registers.request.index[: (self._config.max_layers - 1).bit_length()]

    def _connect(self) -> None:
        """Add what is the same in all states."""
        m, ports, vector = self._m, self._ports, self._ports.vector
        position, request = self._registers.position, self._registers.request
        m.d.comb += [
            self.not_finite.eq(vector.not_finite & self._executed),
            vector.address.eq(Mux(vector.put, position, ports.read_address)),
            vector.step_address.eq(Mux(self.reads_steps, ports.read_address, position)),
            vector.activation_bank.eq(request.activation_bank),
            vector.result_bank.eq(request.result_bank),
            vector.last_tile.eq(self._table.entry.last_tile),
        ]
        if self._config.tokens > 1:
            of_request = self._registers.token
            m.d.comb += [
                vector.token.eq(Mux(vector.put, of_request, ports.read_token)),
                vector.last_token.eq(of_request),
            ]
        with m.If(self._table.define & self._named.bit_select(self._layer, 1)):
            m.d.sync += self.steps.eq(0)
        with m.If(ports.new_session):
            m.d.sync += [self.steps.eq(0), self._executed.eq(0)]
        if self._config.memory.can_fail:
            with m.If(ports.program_void & self._serving):
                m.d.sync += self.void.eq(1)
            with m.If(vector.start):
                m.d.sync += self._serving.eq(1)
            with m.If(vector.start | ports.new_session):
                m.d.sync += self.void.eq(0)

    def store(self, word: Value, stores: Value) -> Value:
        """PUT and PROGRAM in the state COLLECT: a complete word is stored. Gives whether it is."""
        m, vector, opcode = self._m, self._ports.vector, self._registers.request.opcode
        is_put, is_program = opcode == Opcode.PUT, opcode == Opcode.PROGRAM
        m.d.comb += [
            vector.put.eq(stores & is_put),
            vector.step_write.eq(stores & is_program),
            vector.word.eq(word[-len(vector.word) :]),
            vector.step.eq(word[-vector.step.shape().size :]),
        ]
        with m.If(is_program):
            m.d.sync += self.steps.eq(0)
        return stores & (is_put | is_program)

    def check_steps(self, respond: str) -> None:
        """States of COMMIT_PROGRAM that look at one step after the other, from CHECKSUM on."""
        m, config, registers = self._m, self._config, self._registers
        vector, step, position = self._ports.vector, self._step, registers.position
        committed = self._table.entry.defined & self._table.entry.committed
        opcode = Opcode.COMMIT_PROGRAM

        with m.State("STEP-ADDRESS"):
            m.next = "STEP-READ"
        with m.State("STEP-READ"):
            m.next = "STEP"
        with m.State("STEP"):
            m.d.sync += [step.eq(vector.got_step), registers.request.index.eq(vector.got_step.a)]
            m.next = "STEP-ENDS"

        # An addition and a comparison take a cycle each, as in `HeaderChecks`.
        ends = [Signal(len(step.last) + 1, name=f"{name}_end") for name in ("a", "b", "d", "c")]
        # The entry of the step's layer is known in STEP-CHECK.
        checking = ["STEP-FIND", "STEP-CHECK"][-config.entry_cycles :]
        with m.State("STEP-ENDS"):
            m.d.sync += [
                ends[0].eq(step.a + step.last),
                ends[1].eq(step.b + Mux(step.factor == Factor.VECTOR, step.last, 0)),
                ends[2].eq(step.d + Mux(step.wrap, 0, step.last)),
                ends[3].eq(step.c + Mux(step.second == Second.VECTOR, step.last, 0)),
            ]
            m.next = checking[0]
        for state, then in pairwise(checking):
            with m.State(state):
                m.next = then
        runs = step.operation == Operation.RUN
        with m.State("STEP-CHECK"):
            assert config.vector is not None
            beyond = Cat(end >= config.vector.words for end in ends).any() & ~runs
            unknown = step.operation > max(Operation)
            unended = (registers.items == 1) & (step.operation != Operation.END)
            m.d.sync += [
                self._wrong.eq(self._wrong | beyond | unknown | unended),
                position.eq(position + 1),
                registers.items.eq(registers.items - 1),
            ]
            with m.If(runs):
                m.d.sync += self._named.bit_select(self._layer, 1).eq(1)
                with m.If((step.a >= config.max_layers) | ~committed):
                    m.d.sync += self._open.eq(1)
            m.next = "STEP-ADDRESS"
            with m.If(registers.items == 1):
                m.next = "STEPS-END"
        with m.State("STEPS-END"):
            m.next = respond
            with m.If(self._wrong):
                m.d.sync += registers.status.eq(status_of(opcode, Quantity.WRONG_STEPS))
            with m.Elif(self._open):
                m.d.sync += registers.status.eq(status_of(opcode, Quantity.OPEN_LAYERS))
            with m.Else():
                m.d.sync += [registers.has_checksum.eq(1), self.steps.eq(registers.request.count)]

    def begin_check(self) -> None:
        """Go on from a right checksum to the first step."""
        registers = self._registers
        self._m.d.sync += [
            registers.has_checksum.eq(0),
            registers.position.eq(0),
            registers.items.eq(registers.request.count),
            self._named.eq(0),
            self._wrong.eq(0),
            self._open.eq(0),
        ]
        self._m.next = "STEP-ADDRESS"

    def execute(self) -> None:
        """States of EXECUTE, from its response on: the layers of the program are run here."""
        m, registers, vector = self._m, self._registers, self._ports.vector

        with m.State("BEGIN-PROGRAM"):
            m.d.comb += [vector.active.eq(1), vector.start.eq(1)]
            m.d.sync += self._executed.eq(1)
            m.next = "SERVE"

        with m.State("SERVE"):
            m.d.comb += vector.active.eq(1)
            m.d.sync += registers.request.index.eq(vector.layer)
            # The program began when no layer ran, so the core is free when it wants the next one.
            with m.If(vector.wants):
                m.next = "FIND-LAYER"
            # Results that the program did not take leave the core while the next header comes.
            with m.Elif(~vector.executes & ~vector.computes):
                if self._config.memory.can_fail:
                    m.d.sync += self._serving.eq(0)
                m.next = "HEADER"

        # The entry of the layer is known after as many states as the table needs.
        finding = ["FIND-LAYER", "FIND-ENTRY"][: self._config.entry_cycles]
        for state, then in zip(finding, [*finding[1:], "PAD"], strict=True):
            with m.State(state):
                m.d.comb += vector.active.eq(1)
                m.next = then

        with m.State("PAD"):
            m.d.comb += [vector.active.eq(1), vector.pad.eq(1)]
            m.d.sync += [
                registers.kind.eq(Kind.NOTHING),
                registers.position.eq(0),
                registers.items.eq(self._table.entry.words),
            ]
            with m.If(vector.padded):
                m.next = "ASK"
                if self._config.tokens > 1:
                    with m.If(~vector.runs):
                        m.next = "SERVE"

    @property
    def serves(self) -> Value:
        """The request is an EXECUTE that is accepted."""
        registers = self._registers
        return (registers.request.opcode == Opcode.EXECUTE) & (registers.status == Status.OK)
