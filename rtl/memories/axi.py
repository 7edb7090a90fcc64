"""Weight memory behind AXI ports."""

from typing import Any

from amaranth.hdl import Cat, Module

from tritloom.rtl.lib.ports import forward_port
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_pads import axi_pads, read_members, write_members
from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import AxiWriter
from tritloom.rtl.memories.line_contract import LineStore
from tritloom.rtl.memories.line_facts import LineFormat
from tritloom.rtl.memories.lines import LineMemory
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["AxiMemory", "AxiStore"]


class AxiStore(LineStore):
    """Lines behind one, two or four AXI ports: each port has its part of every line.

    A range goes to all ports at once, when all have room for it; a line's beats are taken when all
    ports have theirs. A line is void if one of its beats is. A range is accepted when all lines
    that were written are answered. If one of them failed, the next range is void.

    Parameters
    ----------
    record : ports, widths and bursts
    line_format : sizes of the lines
    bases : first byte of each port's region
    """

    def __init__(self, record: Axi, line_format: LineFormat, bases: tuple[int, ...]) -> None:
        self.record = record
        self.bases = bases
        super().__init__(line_format, axi_pads(record))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        record, lines = self.record, self.format.lines
        readers = [AxiReader(record, lines) for _ in self.bases]
        writers = [AxiWriter(record) for _ in self.bases]
        ports = [*readers, *writers]
        channels = [*[read_members(record)] * len(readers), *[write_members(record)] * len(writers)]
        for number, (port, members) in enumerate(zip(ports, channels, strict=True)):
            prefix = record.prefixes[number % record.ports]
            name = "reader" if number < len(readers) else "writer"
            m.submodules[f"{name}_{number % record.ports}"] = port
            for pad, member in members.items():
                forward_port(m, getattr(self, prefix + pad), getattr(port, pad), member)

        reads: list[Any] = [reader.i_read for reader in readers]
        writes: list[Any] = [writer.i_write for writer in writers]
        beats: list[Any] = [reader.o for reader in readers]
        idle = Cat(writer.idle for writer in writers).all()
        readable = Cat(read.ready for read in reads).all() & idle
        writable = Cat(write.ready for write in writes).all()
        whole = Cat(beat.valid for beat in beats).all()
        m.d.comb += [
            self.i_read.ready.eq(readable),
            self.i_write.ready.eq(writable),
            self.o.valid.eq(whole),
            self.o.payload.data.eq(Cat(beat.payload.data for beat in beats)),
            self.o.payload.error.eq(Cat(beat.payload.error for beat in beats).any()),
        ]
        written = self.i_write.payload.data
        for number, base in enumerate(self.bases):
            read, write = reads[number].payload, writes[number].payload
            m.d.comb += [
                reads[number].valid.eq(self.i_read.valid & readable),
                read.beat.eq(self.i_read.payload.line + base // record.beat_bytes),
                read.count.eq(self.i_read.payload.count),
                read.void.eq(writers[number].failed),
                writers[number].clear.eq(self.i_read.valid & readable),
                writes[number].valid.eq(self.i_write.valid & writable),
                write.beat.eq(self.i_write.payload.line + base // record.beat_bytes),
                write.data.eq(written.word_select(number, record.width)),
                beats[number].ready.eq(self.o.ready & whole),
            ]
        return m


class AxiMemory(LineMemory):
    """Weights behind AXI ports. Members: see `WeightMemory`; the pads are those of `axi_pads`."""

    def __init__(self, config: AcceleratorConfig) -> None:
        record = config.memory
        assert isinstance(record, Axi)  # the record names this class
        self.record = record
        super().__init__(config, axi_pads(record))

    def create_store(self) -> AxiStore:
        return AxiStore(self.record, self.format, self.record.bases(self.config))
