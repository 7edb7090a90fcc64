"""The accelerator: packets of commands in, packets of answers out. A link only carries them."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.control.packets import PacketReceiver, PacketSender
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.core.core import Core
from tritloom.rtl.lib.streams import PACKET, StreamRegister, StreamSwitch
from tritloom.rtl.links.uart import UartLink
from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.spec.config import AcceleratorConfig


class Accelerator(wiring.Component):
    """Everything but clock and pins.

    Members
    -------
    i, o : streams of PACKET (link ``stream``); the commands are in ``tritloom.rtl.spec.commands``
    rx, tx : the lines of the UART (link ``uart``)
    running : RUN is executing
    good, bad : strobes, a packet came, a wrong one came
    """

    i: stream.Interface
    o: stream.Interface
    rx: Signal
    tx: Signal
    running: Signal
    good: Signal
    bad: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        packets = stream.Signature(PACKET)
        members = {
            "stream": {"i": In(packets), "o": Out(packets)},
            "uart": {"rx": In(1, init=1), "tx": Out(1, init=1)},
        }
        super().__init__({**members[config.link], "running": Out(1), "good": Out(1), "bad": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = PacketReceiver(self.config)
        m.submodules.processor = processor = CommandProcessor(self.config)
        m.submodules.sender = sender = PacketSender(self.config)
        m.submodules.memory = memory = create_memory(self.config)
        m.submodules.core = core = Core(self.config)

        if self.config.link == "uart":
            m.submodules.link = link = UartLink(self.config)
            connect(m, link.o, receiver.i)
            connect(m, sender.o, link.i)
            m.d.comb += [
                link.rx.eq(self.rx),
                self.tx.eq(link.tx),
                receiver.abort.eq(link.abort),
            ]
        else:
            connect(m, flipped(self.i), receiver.i)
            connect(m, sender.o, flipped(self.o))
        # The buffer's block RAM answers late in a cycle; what reads it begins a new one.
        m.submodules.command = command = StreamRegister(8)
        connect(m, receiver.o, command.i)
        connect(m, command.o, processor.i)
        connect(m, processor.o_send, sender.i)
        connect(m, processor.o_write, memory.i_write)
        connect(m, processor.o_read, memory.i_read)
        # Weight words go to the core while it runs a layer, else to READ and COMMIT.
        m.submodules.weights = weights = StreamSwitch(self.config.word_bits)
        connect(m, memory.o, weights.i)
        connect(m, weights.o_first, processor.i_word)
        connect(m, weights.o_second, core.i_word)
        connect(m, processor.o_load, core.i_load)
        connect(m, processor.o_run, core.i_run)
        connect(m, processor.o_fetch, core.i_fetch)
        connect(m, core.o, processor.i_result)
        m.d.comb += [
            sender.address.eq(processor.address),
            sender.byte.eq(processor.byte),
            sender.write.eq(processor.write),
            processor.done.eq(core.done),
            weights.second.eq(processor.running),
            self.running.eq(processor.running),
            self.good.eq(receiver.good),
            self.bad.eq(receiver.bad),
        ]

        # In the order of COUNTERS; at 100 MHz cycles are counted for a month, packets for longer.
        events = [
            (48, Const(1)),
            (48, processor.running),
            (48, processor.running & core.stall),
            (32, receiver.good),
            (32, receiver.bad),
            (32, receiver.dropped),
        ]
        for index, (bits, event) in enumerate(events):
            counter = Signal(bits, name=f"counter_{index}")
            m.d.sync += counter.eq(counter + event)
            m.d.comb += processor.counters[index].eq(counter)
        return m
