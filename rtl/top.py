"""The accelerator: packets of commands in, packets of responses out. A link only carries them."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Member, Out, connect

from tritloom.rtl.control.owner import Owner
from tritloom.rtl.control.packets import PacketNarrower, PacketReceiver, PacketSender
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.control.wide import WidePacketReceiver
from tritloom.rtl.core.core import Core
from tritloom.rtl.core.layer_runner import LayerRunner
from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.ports import forward_port
from tritloom.rtl.lib.streams import StreamRegister, StreamSwitch
from tritloom.rtl.links.contract import PacketLink, create_link, link_members
from tritloom.rtl.memories.contract import create_memory, memory_members
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["STATUS", "Accelerator"]

STATUS = ("running", "good", "bad")
"""The outputs of 1 bit that show the accelerator's state."""


class Accelerator(wiring.Component):
    """Everything but clock and pins.

    Members
    -------
    the link's pads : with `stream` the packet streams `i` and `o`, with `uart` the lines `rx` and
        `tx`; the commands are in `tritloom.rtl.spec.commands`
    the memory's pads : none with `bram`
    running : 1 bit out; RUN is executing
    good : 1 bit out; strobe, a sound packet was taken
    bad : 1 bit out; strobe, a packet with a wrong checksum or length was dropped

    Attributes
    ----------
    pads : the members that the link and the memory bring, under the keys `link` and `memory`
    """

    running: Signal
    good: Signal
    bad: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._link = create_link(config)
        self._memory = create_memory(config)
        self.pads = {
            "link": _pads(self._link, link_members(config)),
            "memory": _pads(self._memory, memory_members(config)),
        }
        members: dict[str, Member] = {}
        for what, pads in self.pads.items():
            for name, member in pads.items():
                if name in members or name in STATUS:
                    raise ConfigError(
                        f"the {what}'s pad {name!r} has the name of another port; rename it"
                    )
                members[name] = member
        super().__init__({**members, **{name: Out(1) for name in STATUS}})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command_bytes = self.config.link.command_bytes
        kind: Any = PacketReceiver if command_bytes == 1 else WidePacketReceiver
        m.submodules.receiver = receiver = kind(self.config)
        m.submodules.processor = processor = CommandProcessor(self.config)
        m.submodules.sender = sender = PacketSender(self.config)
        m.submodules.memory = memory = self._memory
        m.submodules.core = core = Core(self.config)
        m.submodules.link = link = self._link
        for component, pads in ((link, self.pads["link"]), (memory, self.pads["memory"])):
            for name, member in pads.items():
                forward_port(m, getattr(self, name), getattr(component, name), member)

        if self.config.link.beat_bytes == command_bytes:
            connect(m, link.o_packet, receiver.i)
            m.d.comb += receiver.abort.eq(link.o_abort)
        else:
            # Most links bring less than they take, so a byte a cycle is enough behind them.
            m.submodules.narrower = narrower = PacketNarrower(self.config.link.beat_bytes)
            connect(m, link.o_packet, narrower.i)
            connect(m, narrower.o, receiver.i)
            m.d.comb += [
                narrower.i_abort.eq(link.o_abort),
                receiver.abort.eq(narrower.o_abort),
            ]
        connect(m, sender.o, link.i_packet)
        m.d.comb += [
            link.i_good.eq(receiver.good),
            link.i_bad.eq(receiver.bad),
            link.i_dropped.eq(receiver.dropped),
        ]
        # The buffer's block RAM gives its data late in a cycle, so a register follows it.
        m.submodules.command = command = StreamRegister(8 * command_bytes)
        connect(m, receiver.o, command.i)
        connect(m, command.o, processor.i)
        connect(m, processor.o_send, sender.i)
        connect(m, processor.o_write, memory.i_write)
        connect(m, processor.o_read, memory.i_read)
        # The weight words of RUN go to the core, those of READ and COMMIT to the processor.
        m.submodules.weights = weights = StreamSwitch(self.config.word_bits)
        connect(m, memory.o, weights.i)
        connect(m, weights.o_first, processor.i_word)
        connect(m, weights.o_second, core.i_word)
        connect(m, processor.o_run, core.i_run)
        if self.config.scales_activations:
            ports: Any = (processor, core)
            connect(m, ports[0].o_scale, ports[1].i_scale)
        if self.config.vector is None:
            connect(m, processor.o_load, core.i_load)
            connect(m, processor.o_fetch, core.i_fetch)
            connect(m, core.o, processor.i_result)
        m.d.comb += [
            sender.address.eq(processor.address),
            sender.data.eq(processor.data),
            sender.mask.eq(processor.mask),
            sender.write.eq(processor.write),
            processor.done.eq(core.done),
            weights.second.eq(processor.to_core),
            self.running.eq(processor.running),
            self.good.eq(receiver.good),
            self.bad.eq(receiver.bad),
        ]
        if self.config.memory.can_fail:
            void: Any = getattr(processor, "void")  # noqa: B009  a member if the memory can fail
            m.d.comb += void.eq(memory.o.valid & memory.o.ready & memory.error)
        self._connect_peers(m, receiver, processor, link)
        stalls = self._connect_unit(m, processor, core)

        # In the order of `counters_of`. At 100 MHz cycles are counted for a month, packets for
        # longer.
        events = [
            (48, Const(1)),
            (48, processor.running),
            (48, processor.running & core.stall),
            (32, receiver.good),
            (32, receiver.bad),
            (32, receiver.dropped),
            *((48, event) for event in stalls),
        ]
        for index, (bits, event) in enumerate(events):
            counter = Signal(bits, name=f"counter_{index}")
            m.d.sync += counter.eq(counter + event)
            m.d.comb += processor.counters[index].eq(counter)
        return m

    def _connect_unit(self, m: Module, processor: CommandProcessor, core: Core) -> list[Value]:
        """Add the vector unit, if there is one; gives whether it executes, and whether it stalls.

        While a program is executed, it has the core's ports for activations and results.
        """
        config = self.config
        if config.vector is None:
            return []
        port: Any = processor.vector
        m.submodules.vector = unit = VectorUnit(config.vector, config.acc_bits, config.tokens)
        m.submodules.runner = runner = LayerRunner(config)
        connect(m, unit.o_code, runner.i_code)
        connect(m, unit.o_run, runner.i_run)
        connect(m, runner.o_sum, unit.i_sum)
        if config.tokens > 1:
            m.d.comb += [
                unit.token.eq(port.token),
                unit.last_token.eq(port.last_token),
                runner.token.eq(unit.o_token),
                port.runs.eq(runner.runs),
            ]
        if config.vector.lanes > 1:
            m.d.comb += runner.sum_last.eq(unit.sum_last)
        for name in ("address", "put", "word", "step_address", "step_write", "step", "start"):
            m.d.comb += getattr(unit, name).eq(getattr(port, name))
        for name in ("active", "activation_bank", "result_bank", "pad", "last_tile"):
            m.d.comb += getattr(runner, name).eq(getattr(port, name))
        for name in ("computes", "wants", "layer", "padded"):
            m.d.comb += getattr(port, name).eq(getattr(runner, name))
        m.d.comb += [
            port.got.eq(unit.got),
            port.got_step.eq(unit.got_step),
            port.executes.eq(unit.busy),
            port.not_finite.eq(unit.not_finite),
            runner.start.eq(core.i_run.valid & core.i_run.ready),
            runner.last_group.eq(core.i_run.payload.last_group),
            runner.done.eq(core.done),
        ]
        # The command acceptor takes no command while a program is executed, so it loads nothing;
        # and no RESULTS is left then.
        of_program = Signal()
        m.d.comb += of_program.eq(port.active | runner.busy)
        commands = processor.o_load
        m.d.comb += [
            core.i_load.valid.eq(commands.valid | runner.o_load.valid),
            core.i_load.payload.eq(
                Mux(runner.o_load.valid, runner.o_load.payload, commands.payload)
            ),
            commands.ready.eq(1),
            runner.o_load.ready.eq(1),
        ]
        fetches, results = (
            (processor.o_fetch, runner.o_fetch),
            (processor.i_result, runner.i_result),
        )
        fetch, result = core.i_fetch, core.o
        m.d.comb += [
            fetch.valid.eq(Mux(of_program, fetches[1].valid, fetches[0].valid)),
            fetch.payload.eq(Mux(of_program, fetches[1].payload, fetches[0].payload)),
            fetches[0].ready.eq(fetch.ready & ~of_program),
            fetches[1].ready.eq(fetch.ready & of_program),
            results[0].valid.eq(result.valid & ~of_program),
            results[1].valid.eq(result.valid & of_program),
            results[0].payload.eq(result.payload),
            results[1].payload.eq(result.payload),
            result.ready.eq(Mux(of_program, results[1].ready, results[0].ready)),
        ]
        return [unit.busy, unit.stall]

    def _connect_peers(
        self,
        m: Module,
        receiver: Any,
        processor: CommandProcessor,
        link: PacketLink,
    ) -> None:
        """Keep each packet's sender until its response is sent, for links with several peers."""
        bits = self.config.link.peer_bits(self.config)
        if not bits:
            return
        m.submodules.peers = peers = SyncFIFO(width=bits, depth=self.config.slots)
        # The sender of each response, in the slot of the response.
        m.submodules.of_slot = of_slot = block_ram(bits, self.config.slots)
        write, read = of_slot.write_port(), ReadPort(m, of_slot)
        peer = Signal(bits)  # of the command that the processor has taken last
        m.d.comb += [
            peers.w_data.eq(link.o_peer),
            peers.w_en.eq(receiver.good),
            receiver.crowded.eq(~peers.w_rdy),
            peers.r_en.eq(processor.took_header),
            write.addr.eq(processor.begin_slot),
            write.data.eq(peer),
            write.en.eq(processor.begins),
            read.addr.eq(processor.o_send.payload),
            read.en.eq(processor.o_send.valid & processor.o_send.ready),
            link.i_peer.eq(read.data),
        ]
        with m.If(processor.took_header):
            m.d.sync += peer.eq(peers.r_data)
        if self.config.link.host_bits(self.config):
            ports: Any = processor
            m.submodules.owner = owner = Owner(self.config)
            m.d.comb += [
                owner.next_peer.eq(peers.r_data),
                owner.took_header.eq(processor.took_header),
                owner.peer.eq(peer),
                owner.new_session.eq(ports.new_session),
                ports.stranger.eq(owner.stranger),
                ports.barred.eq(owner.barred),
            ]


def _pads(component: wiring.Component, contract: dict[str, Member]) -> dict[str, Member]:
    """The members of a component that are not of its contract."""
    return {
        name: member for name, member in component.signature.members.items() if name not in contract
    }
