"""The command processor: takes commands in order, executes each once, writes its response.

Its parts work side by side. `CommandAcceptor` takes commands and starts layers, `Responder` writes
what the responses hold, `Banks` keeps apart what would use a bank at the same time. Here they are
joined, and each response is sent when it is complete.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.control.acceptor import CommandAcceptor
from tritloom.rtl.control.banks import Banks
from tritloom.rtl.control.layouts import COUNTER_BITS
from tritloom.rtl.control.responder import Responder
from tritloom.rtl.control.states import OF_OWNER
from tritloom.rtl.control.tasks import Kind, first_slot, has_response, task_layout
from tritloom.rtl.control.vector_port import vector_port
from tritloom.rtl.core.activation_scales import scale_layout
from tritloom.rtl.core.core import load_layout, run_layout
from tritloom.rtl.core.partial_sums import fetch_layout
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.contract import range_layout, write_layout
from tritloom.rtl.spec.commands import counters_of
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["CommandProcessor"]


class CommandProcessor(wiring.Component):
    """Executes the commands of `tritloom.rtl.spec.commands`.

    Members
    -------
    i : in, stream of `Link.command_bytes` bytes
        Header and payload of right packets, one after the other. A packet begins with a beat.
    took_header : out, 1 bit
        Strobe: the last byte of a packet's header is taken.
    stranger, barred, new_session : 1 bit each
        In: as in `Owner`, from the cycle after `took_header`. Out: strobe, the packet that
        `took_header` told of starts a session. Only with `Link.host_bits`.
    begins, begin_slot : out
        Strobe: the packet that `took_header` told of last gets a response; the slot that it lies
        in. A packet whose response is still to come gets no other one.
    address, data, mask, write : out
        A beat of a response for a `PacketSender`, which of its bytes are stored, and whether there
        is one.
    o_send : out, stream of slot numbers
        The response to send, when it is complete. Ready while nothing is sent.
    o_write : out, stream of `write_layout`
        Weight words for the weight memory.
    o_read : out, stream of `range_layout`
        Ranges that the weight memory reads. The words of RUN go to the core, those of READ and
        COMMIT to `i_word`.
    i_word : in, stream of weight words
        The words of READ and COMMIT.
    void : in, 1 bit
        Strobe: a word leaves the weight memory that it could not read. Only if the memory can fail.
    to_core : out, 1 bit
        The next words of the weight memory are those of a RUN. Set from the cycle after the
        transfer at `o_read` until `done`, so it does not change while a word waits.
    running : out, 1 bit
        The core runs a layer; its RESULTS respond with the number of these cycles.
    o_load : out, stream of `load_layout`
        Activations for the core; never for the activation bank of the layer that runs.
    o_scale : out, stream of `scale_layout`
        Scales of activations for the core, as `o_load`. Only if activations have scales on the
        device.
    o_run : out, stream of `run_layout`
        The transfer starts a layer in the core.
    done : in, 1 bit
        The core has completed the layer.
    o_fetch : out, stream of `fetch_layout`
        The row group whose totals the core shall read; never of the result bank of the layer that
        runs.
    i_result : in, stream of `sums_layout`
        Its totals.
    counters : in, `COUNTER_BITS` each
        In the order of `counters_of`.
    vector : out, `vector_port`
        The vector unit. Only if the configuration has one.
    """

    i: stream.Interface
    took_header: Signal
    begins: Signal
    begin_slot: Signal
    address: Signal
    data: Signal
    mask: Signal
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
        beat_bytes = config.link.beat_bytes
        of_unit = {} if config.vector is None else {"vector": Out(vector_port(config))}
        of_scales = {}
        if config.scales_activations:
            of_scales["o_scale"] = Out(stream.Signature(scale_layout(config)))
        of_owner = {**dict.fromkeys(OF_OWNER, In(1)), "new_session": Out(1)}
        super().__init__(
            {
                "i": In(stream.Signature(8 * config.link.command_bytes)),
                "took_header": Out(1),
                "begins": Out(1),
                "begin_slot": Out(range(config.slots)),
                "address": Out(range(config.slots * config.packet_bytes // beat_bytes)),
                "data": Out(8 * beat_bytes),
                "mask": Out(beat_bytes),
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
                "i_result": In(stream.Signature(sums_layout(config, config.result_bits))),
                "counters": In(data.ArrayLayout(COUNTER_BITS, len(counters_of(config)))),
                **of_unit,
                **of_scales,
                **(of_owner if config.link.host_bits(config) else {}),
                **({"void": In(1)} if config.memory.can_fail else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.acceptor = acceptor = CommandAcceptor(self.config)
        m.submodules.responder = responder = Responder(self.config)
        m.submodules.banks = banks = Banks(self.config)
        of_scales = ("o_scale",) if self.config.scales_activations else ()
        for name in ("i", "o_write", "o_read", "o_load", "o_run", *of_scales):
            connect(m, flipped(getattr(self, name)), getattr(acceptor, name))
        for name in ("i_word", "o_fetch", "i_result"):
            connect(m, flipped(getattr(self, name)), getattr(responder, name))
        m.d.comb += [
            self.took_header.eq(acceptor.took_header),
            self.begins.eq(acceptor.begins),
            self.begin_slot.eq(acceptor.slot),
            self.to_core.eq(acceptor.starting | banks.busy),
            self.running.eq(banks.busy),
            responder.counters.eq(self.counters),
            acceptor.checksum.eq(responder.checksum),
            banks.start.eq(self.o_run.valid & self.o_run.ready),
            banks.run.eq(self.o_run.payload),
            banks.done.eq(self.done),
            banks.activation_bank.eq(self.o_run.payload.activation_bank),
            banks.result_bank.eq(self.o_run.payload.result_bank),
            banks.forget.eq(acceptor.new_session),
            acceptor.busy.eq(banks.busy),
            acceptor.may_load.eq(banks.may_load),
            acceptor.may_run.eq(banks.may_run),
            acceptor.has_results.eq(banks.results.present),
            banks.copy_bank.eq(responder.bank),
            banks.copied.eq(responder.copied),
            responder.may_copy.eq(banks.may_copy),
            responder.results.eq(banks.copy_results),
        ]
        # A header is written as a whole, so the beats of the responder wait for it.
        m.d.comb += [
            responder.blocked.eq(acceptor.write),
            self.write.eq(acceptor.write | responder.write),
            self.data.eq(Mux(acceptor.write, acceptor.data, responder.data)),
            self.mask.eq(Mux(acceptor.write, ~0, responder.mask)),
            self.address.eq(
                Mux(
                    acceptor.write,
                    self._address(acceptor.beat, acceptor.slot),
                    self._address(responder.beat, responder.slot),
                )
            ),
        ]
        if self.config.link.host_bits(self.config):
            ports: Any = self
            m.d.comb += ports.new_session.eq(acceptor.new_session)
            m.d.comb += [getattr(acceptor, n).eq(getattr(self, n)) for n in OF_OWNER]
        self._queue_tasks(m, acceptor, responder, banks)
        self._send_in_order(m, acceptor, responder)
        if self.config.vector is not None:
            self._connect_unit(m, acceptor, responder)
        if self.config.memory.can_fail:
            self._connect_failure(m, acceptor, responder, banks)
        return m

    def _connect_failure(self, m: Module, acceptor: Any, responder: Any, banks: Any) -> None:
        """Tell of a void word to whom it belongs: to the layer that runs, or to READ or COMMIT.

        While a layer runs, all words are the layer's.
        """
        void: Any = getattr(self, "void")  # noqa: B009  a member if the memory can fail
        m.d.comb += [
            banks.void.eq(void),
            responder.void.eq(void & ~self.to_core),
            acceptor.void.eq(responder.failed),
        ]
        if self.config.vector is not None:
            m.d.comb += acceptor.program_void.eq(void)

    def _connect_unit(self, m: Module, acceptor: CommandAcceptor, responder: Responder) -> None:
        """Join acceptor and responder with the vector unit, and count a program's cycles."""
        unit: Any = self.vector
        connect(m, flipped(unit), acceptor.vector)
        cycles = Signal(32)
        m.d.comb += [
            acceptor.read_address.eq(responder.read_address),
            *([acceptor.read_token.eq(responder.read_token)] if self.config.tokens > 1 else []),
            responder.word.eq(unit.got),
            responder.step.eq(unit.got_step),
            responder.program_cycles.eq(cycles),
        ]
        with m.If(unit.executes):
            m.d.sync += cycles.eq(cycles + 1)
        with m.If(unit.start | acceptor.new_session):
            m.d.sync += cycles.eq(0)

    def _address(self, beat: Signal, slot: Signal) -> Cat:
        """The place of a beat of a slot, in beats."""
        bits = (self.config.packet_bytes // self.config.link.beat_bytes - 1).bit_length()
        place = Signal(bits)
        return Cat(beat, place[len(beat) :], slot)

    def _queue_tasks(
        self, m: Module, acceptor: CommandAcceptor, responder: Responder, banks: Banks
    ) -> None:
        """Join acceptor and responder by a queue, and count what is in it and in work."""
        tasks = Signal(bits_for(self.config.slots + 1))
        enters = Signal()
        if self.config.banks == 1:  # then nothing runs while results are copied
            connect(m, acceptor.o_task, responder.i_task)
        else:
            layout = task_layout(self.config)
            # A memory of one word, as that of a queue of two, makes yosys warn.
            depth = max(3, self.config.slots)
            m.submodules.tasks = queue = SyncFIFOBuffered(width=layout.size, depth=depth)
            m.d.comb += [
                queue.w_data.eq(acceptor.o_task.payload),
                queue.w_en.eq(acceptor.o_task.valid),
                acceptor.o_task.ready.eq(queue.w_rdy),
                responder.i_task.payload.eq(queue.r_data),
                responder.i_task.valid.eq(queue.r_rdy),
                queue.r_en.eq(responder.i_task.ready),
            ]
        m.d.comb += [
            enters.eq(acceptor.o_task.valid & acceptor.o_task.ready),
            banks.enqueue.eq(enters & (acceptor.o_task.payload.kind == Kind.RESULTS)),
            acceptor.no_task.eq(tasks == 0),
        ]
        m.d.sync += tasks.eq(tasks + enters - responder.ended)
        m.d.comb += responder.new_session.eq(acceptor.new_session)

    def _send_in_order(self, m: Module, acceptor: CommandAcceptor, responder: Responder) -> None:
        """Send each response when it is complete, in the order of the commands."""
        config, send = self.config, self.o_send
        complete = Signal(bits_for(config.slots))  # responses to send
        slot = Signal(range(config.slots), init=first_slot(config))  # of the first of them
        unsent = Signal(bits_for(config.slots))  # these, and those to complete or being sent
        sending = Signal()  # a response is being sent
        sends, accepted, sent = Signal(), Signal(), Signal()
        kept = complete != 0
        m.d.comb += [
            send.valid.eq(kept | acceptor.o_direct.valid),
            send.payload.eq(Mux(kept, slot, acceptor.o_direct.payload)),
            acceptor.o_direct.ready.eq(send.ready & ~kept),
            sends.eq(send.valid & send.ready),
            sent.eq(sending & send.ready),
            accepted.eq(
                acceptor.o_task.valid
                & acceptor.o_task.ready
                & has_response(config, acceptor.o_task.payload.kind)
            ),
            acceptor.unsent.eq(unsent),
            acceptor.sending.eq(sending),
        ]
        with m.If(sent):
            m.d.sync += sending.eq(0)
        with m.If(sends):
            m.d.sync += sending.eq(1)
        with m.If(sends & kept):
            m.d.sync += slot.eq(slot + 1)
        with m.If(acceptor.new_session):
            m.d.sync += slot.eq(first_slot(config))
        was_kept = Signal()  # the response that is being sent has a task
        with m.If(sends):
            m.d.sync += was_kept.eq(kept)
        m.d.sync += [
            complete.eq(complete + responder.finished - (sends & kept)),
            unsent.eq(unsent + accepted - (sent & was_kept)),
        ]
