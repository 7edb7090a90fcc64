"""The command acceptor: takes commands in order, executes each once, and writes response headers.

It stores what comes in (DEFINE, WRITE, LOAD, SCALES) and starts layers (RUN). What a response holds
beside its header is left to the responder, so a command can be accepted while the ones before it
are still answered. The states come in the order in which a command passes through them: header,
order, checks, words in, weight words, response header.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.control.states import OF_OWNER, CommandStates
from tritloom.rtl.control.tasks import position_shape, task_layout
from tritloom.rtl.control.vector_port import vector_port
from tritloom.rtl.core.activation_scales import scale_layout
from tritloom.rtl.core.core import load_layout, run_layout
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.contract import range_layout, write_layout
from tritloom.rtl.spec.commands import (
    HEADER_BYTES,
)
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["CommandAcceptor"]


class CommandAcceptor(wiring.Component):
    """Accepts the commands of `tritloom.rtl.spec.commands`, one after the other.

    Members
    -------
    i : in, stream of `Link.command_bytes` bytes
        Header and payload of right packets, one after the other. A packet begins with a beat.
    took_header : out, 1 bit
        Strobe: the last byte of a packet's header is taken.
    stranger, barred : in, 1 bit each
        As in `Owner`, from the cycle after `took_header`. Only with `Link.host_bits`.
    slot : out, number
        The slot of the response, from `begins` on.
    begins : out, 1 bit
        Strobe: the packet that `took_header` told of gets a response, in `slot`.
    beat, data, write : out
        A beat of a response's header, its place in the header, and whether there is one. It is
        always stored in `slot`.
    o_task : out, stream of `task_layout`
        What the responder adds to the response of a command. Each command has a task, and only
        CHECKSUM is without a response.
    no_task : in, 1 bit
        The responder has completed all tasks.
    checksum : in, 32 bits
        The result of the last CHECKSUM, once there is `no_task`.
    void : in, 1 bit
        A word of the last CHECKSUM was void, once there is `no_task`. Only if the memory can fail.
    program_void : in, 1 bit
        The core takes a void word. Only if the memory can fail and there is a vector unit.
    o_direct : out, stream of slot numbers
        A response to send that has no task: one that is not kept, or is sent again. Only while
        `unsent` is 0.
    new_session : out, 1 bit
        Strobe: the responses of before are forgotten; the next one lies in `first_slot`.
    unsent : in, number
        Commands whose response has not been sent to its end.
    sending : in, 1 bit
        The response that `o_direct` gave is not sent to its end.
    o_write : out, stream of `write_layout`
        Weight words for the weight memory.
    o_read : out, stream of `range_layout`
        Ranges that the weight memory reads.
    o_load : out, stream of `load_layout`
        Activations for the core.
    o_scale : out, stream of `scale_layout`
        Scales of activations for the core. Only if activations have scales on the device.
    o_run : out, stream of `run_layout`
        The transfer starts a layer in the core.
    starting : out, 1 bit
        The range of a RUN has been asked for, and the layer has not started.
    busy, may_load, may_run : in, 1 bit each
        As in `Banks`, for the banks of `o_run`.
    has_results : in, 1 bit
        A RUN of this session wrote the result bank.
    vector : out, `vector_port`
        The vector unit. Only if the configuration has one.
    read_token : in, number
        The token whose word the responder reads. Only with a vector unit and several tokens.
    read_address : in, number
        The word or step that the responder reads. Only with a vector unit.
    """

    i: stream.Interface
    took_header: Signal
    slot: Signal
    begins: Signal
    beat: Signal
    data: Signal
    write: Signal
    o_task: stream.Interface
    no_task: Signal
    checksum: Signal
    o_direct: stream.Interface
    new_session: Signal
    unsent: Signal
    sending: Signal
    o_write: stream.Interface
    o_read: stream.Interface
    o_load: stream.Interface
    o_run: stream.Interface
    starting: Signal
    busy: Signal
    may_load: Signal
    may_run: Signal
    has_results: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        beat_bytes = config.link.beat_bytes
        of_unit = {}
        if config.vector is not None:
            of_unit = {
                "vector": Out(vector_port(config)),
                "read_address": In(position_shape(config)),
                **({"read_token": In(range(config.tokens))} if config.tokens > 1 else {}),
            }
            if config.memory.can_fail:
                of_unit["program_void"] = In(1)
        if config.scales_activations:
            of_unit["o_scale"] = Out(stream.Signature(scale_layout(config)))
        super().__init__(
            {
                "i": In(stream.Signature(8 * config.link.command_bytes)),
                "took_header": Out(1),
                "slot": Out(range(config.slots)),
                "begins": Out(1),
                "beat": Out(range(HEADER_BYTES // beat_bytes)),
                "data": Out(8 * beat_bytes),
                "write": Out(1),
                "o_task": Out(stream.Signature(task_layout(config))),
                "no_task": In(1),
                "checksum": In(32),
                "o_direct": Out(stream.Signature(range(config.slots))),
                "new_session": Out(1),
                "unsent": In(bits_for(config.slots)),
                "sending": In(1),
                "o_write": Out(stream.Signature(write_layout(config))),
                "o_read": Out(stream.Signature(range_layout(config))),
                "o_load": Out(stream.Signature(load_layout(config))),
                "o_run": Out(stream.Signature(run_layout(config))),
                "starting": Out(1),
                "busy": In(1),
                "may_load": In(1),
                "may_run": In(1),
                "has_results": In(1),
                **of_unit,
                **(dict.fromkeys(OF_OWNER, In(1)) if config.link.host_bits(config) else {}),
                **({"void": In(1)} if config.memory.can_fail else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        states = CommandStates(m, self)
        with m.FSM(init="BEGIN"):
            states.take_request()
            states.put_in_order()
            states.make_checks()
            states.store_words()
            states.use_weights()
            states.respond()
            if states.programs is not None:
                states.programs.check_steps("RESPOND")
                states.programs.execute()
        return m
