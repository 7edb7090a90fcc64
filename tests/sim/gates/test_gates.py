"""Gate level: netlists that run as the RTL does, and the cell models that this rests on."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tests.support.packets import assert_responses
from tritloom.boards.families.family import TOP, bitstream_families, load_family
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import PACKET
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.spram_facts import Spram
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.top import Accelerator
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.gates.gates import simulatable
from tritloom.sim.verify.traffic import Traffic

CONFIGS = {
    "ecp5": replace(TINY, lanes=10, rows=2, fill=5, memory=BlockRam(words=512), max_in_features=40),
    "ice40": replace(TINY, lanes=5, rows=2, memory=BlockRam(words=512)),
}
"""Small ones with block RAM for weights, of the kind that the boards of a family have."""

ULTRA_PLUS = SimpleNamespace(device="iCE40UP5K")
"""What a platform of amaranth-boards says of the part that has SPRAM."""
BLOCKS = {"ecp5": ("DP16KD", "MULT18X18D"), "ice40": ("SB_RAM40_4K",)}
LIMIT_CYCLES = 100_000


def netlist_of(design: wiring.Component, family: str) -> str:
    return synthesise(rtlil.convert(design, emit_src=False), family)


def simulate_gates(netlist: str, family: str, stall_seed: int = 0) -> Simulation:
    return Simulation(
        build(lambda: simulatable(netlist, load_family(family).gate_models)), stall_seed
    )


def modes(netlist: str, family: str) -> set[tuple[str, ...]]:
    """The blocks of a netlist, each with its parameters but for what is stored in it."""
    kinds = set()
    for cell in Netlist(json.loads(netlist), TOP).cells.values():
        if cell["type"] in BLOCKS[family]:
            facts = cell["parameters"].items()
            parameters = (f"{name}={value}" for name, value in facts if not name.startswith("INIT"))
            kinds.add((cell["type"], *sorted(parameters)))
    return kinds


@pytest.fixture(scope="module")
def netlists() -> dict[str, str]:
    """The netlist of the small accelerator of each family, made when first asked for."""
    texts: dict[str, str] = {}

    class Lazily(dict[str, str]):
        def __missing__(self, family: str) -> str:
            texts[family] = self[family] = netlist_of(Accelerator(CONFIGS[family]), family)
            return texts[family]

    return Lazily()


def vectors(config: AcceleratorConfig) -> Traffic:
    """Layers at the edges of the geometry, extreme operands among them, then anything."""
    traffic = Traffic(config, seed=1)
    for index, (tiles, groups) in enumerate([(1, 1), (1, 8), (4, 1), (4, 8)]):
        for _ in range(3):
            traffic.product(index, 32 * index, tiles, groups)
    traffic.random(500)
    return traffic


def run(simulation: Simulation, traffic: Traffic) -> list[bytes | None]:
    """The responses; ends at the first that does not come."""
    responses: list[bytes | None] = []
    for packet, expected in traffic.packets:
        simulation.send(packet)
        if expected is not None:
            responses.append(simulation.receive(LIMIT_CYCLES))
            if responses[-1] is None:
                break
    return responses


@pytest.mark.slow
@pytest.mark.parametrize("family", bitstream_families())
def test_gates_response_as_the_rtl(family: str, netlists: dict[str, str]) -> None:
    config = CONFIGS[family]
    assert BLOCKS[family][0] in {block for block, *_ in modes(netlists[family], family)}
    traffic = vectors(config)
    design = rtlil.convert(Accelerator(config), emit_src=False)
    library = build(lambda: design)
    for stall_seed in (0, 3):
        gates = simulate_gates(netlists[family], family, stall_seed)
        rtl = Simulation(library, stall_seed)
        responses = run(gates, traffic)
        assert_responses(config, traffic.packets, responses)
        assert responses == run(rtl, traffic)
        # Bytes and clock cycles: nothing tells them apart.
        assert gates.cycles == rtl.cycles
        assert gates.receive(LIMIT_CYCLES) is None


@pytest.mark.slow
def test_spram_responds_as_the_rtl() -> None:
    """The four blocks of an UltraPlus, in words of one read and of two."""
    for lanes, rows in ((20, 1), (45, 1)):
        config = replace(TINY, lanes=lanes, rows=rows, memory=Spram(words=512), max_in_features=90)
        design = rtlil.convert(Accelerator(config), platform=ULTRA_PLUS, emit_src=False)
        netlist = synthesise(design, "ice40")
        cells = Netlist(json.loads(netlist), TOP).cells.values()
        assert sum(cell["type"] == "SB_SPRAM256KA" for cell in cells) == Spram.BLOCKS
        traffic = Traffic(config, seed=2)
        traffic.product(0, 0, 2, 4)
        traffic.product(1, 500, 1, 3)
        traffic.random(200)
        responses = run(simulate_gates(netlist, "ice40"), traffic)
        assert_responses(config, traffic.packets, responses)


class Probe(wiring.Component):
    """Memories and products with random operands in every cycle; responds with their results.

    Each byte that comes is one cycle of work; the response is the exclusive or of all outputs.
    `memories`: width, depth, kind. The kind `late` is a `block_ram`, never read where it is
    written, and a register behind it with an enable of its own.
    """

    def __init__(
        self, memories: list[tuple[int, int, str]], products: list[tuple[Shape, Shape]]
    ) -> None:
        self.memories = memories
        self.products = products
        packets = stream.Signature(PACKET)
        super().__init__({"i": In(packets), "o": Out(packets)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        work = Signal()
        past = Signal(88)
        noise = Cat(self.i.payload.data, past)
        m.d.comb += [
            work.eq(self.i.valid & self.o.ready),
            self.i.ready.eq(self.o.ready),
            self.o.valid.eq(self.i.valid),
            self.o.payload.last.eq(self.i.payload.last),
        ]
        with m.If(work):
            m.d.sync += past.eq(noise)

        def bits(count: int, turn: int) -> Value:
            turned = noise.rotate_left(turn)
            return Cat(turned, turned ^ turned.rotate_left(13))[:count]

        rng = random.Random(5)
        results: list[Value] = []
        for number, (width, depth, kind) in enumerate(self.memories):
            init = [rng.getrandbits(width) for _ in range(depth)]
            create = block_ram if kind == "late" else Memory
            m.submodules[f"memory_{number}"] = memory = create(shape=width, depth=depth, init=init)
            write, read_at = None, bits((depth - 1).bit_length(), 3 * number + 9)
            if kind != "rom":
                granularity = 8 if kind == "bytes" else None
                write = memory.write_port(granularity=granularity)
                write_at = bits((depth - 1).bit_length(), 3 * number)
                enable = bits(len(write.en), 3 * number + 40)
                m.d.comb += [
                    write.addr.eq(write_at),
                    write.data.eq(bits(width, 3 * number + 20)),
                    write.en.eq(Mux(work, enable, 0)),
                ]
                # One in four is read where it is written.
                read_at = Mux(bits(2, number + 50) == 0, write_at, read_at)
            if kind == "same":
                read_at = write_at
            if kind == "late":
                late = Signal(width, name=f"late_{number}", reset_less=True)
                port = ReadPort(m, memory)
                m.d.comb += [
                    port.addr.eq(Cat(read_at[:-1], ~write_at[-1])),
                    port.en.eq(work & noise[number + 60]),
                ]
                with m.If(work & noise[number + 30]):
                    m.d.sync += late.eq(port.data)
                results.append(late)
                continue
            transparent = [write] if kind == "transparent" else []
            read = memory.read_port(transparent_for=transparent)
            m.d.comb += [read.addr.eq(read_at), read.en.eq(work & noise[number + 60])]
            results.append(read.data)
        for number, (left, right) in enumerate(self.products):
            a, b = Signal(left), Signal(right)
            with m.If(work):
                m.d.sync += [
                    a.eq(bits(len(a), 7 * number + 2)),
                    b.eq(bits(len(b), 7 * number + 31)),
                ]
            results.append(a * b)

        folded = [result[at : at + 8] for result in results for at in range(0, len(result), 8)]
        total: Value = folded[0]
        for part in folded[1:]:
            total = total ^ part
        m.d.comb += self.o.payload.data.eq(total)
        return m


PROBES: dict[str, tuple[list[tuple[int, int, str]], list[tuple[Shape, Shape]]]] = {
    "ecp5": (
        [
            (1, 16384, "plain"),
            (2, 8192, "plain"),
            (4, 4096, "plain"),
            (9, 2048, "plain"),
            (18, 1024, "plain"),
            (36, 512, "plain"),
            (8, 2048, "transparent"),
            (36, 512, "transparent"),
            (18, 1024, "same"),
            (9, 2048, "same"),
            (16, 1024, "bytes"),
            (32, 512, "bytes"),
            (8, 2048, "rom"),
            (18, 1024, "rom"),
            (9, 2048, "late"),
            (18, 1024, "late"),
            (36, 512, "late"),
        ],
        [
            (signed(18), signed(18)),
            (unsigned(18), unsigned(18)),
            (signed(12), unsigned(17)),
            (unsigned(9), signed(16)),
        ],
    ),
    "ice40": (
        [
            (2, 2048, "plain"),
            (4, 1024, "plain"),
            (8, 512, "plain"),
            (16, 256, "plain"),
            (8, 512, "transparent"),
            (16, 256, "transparent"),
            (16, 256, "same"),
            (16, 256, "bytes"),
            (8, 512, "rom"),
        ],
        [],
    ),
}
"""Each shape that the blocks have, and what the memories of the accelerator are."""


@pytest.mark.slow
@pytest.mark.parametrize("family", bitstream_families())
def test_models_of_blocks(family: str, netlists: dict[str, str]) -> None:
    design = rtlil.convert(Probe(*PROBES[family]), emit_src=False)
    netlist = synthesise(design, family)
    # What the accelerator needs of a block is what is tried here.
    tried = modes(netlist, family)
    assert {block for block, *_ in tried} == set(BLOCKS[family])
    assert modes(netlists[family], family) <= tried
    gates, rtl = simulate_gates(netlist, family), Simulation(build(lambda: design))
    rng = random.Random(9)
    for _ in range(20):
        packet = rng.randbytes(5000)
        gates.send(packet)
        rtl.send(packet)
        response = gates.receive(LIMIT_CYCLES)
        assert response == rtl.receive(LIMIT_CYCLES)
        assert response is not None
        assert len(set(response)) == 256


def test_what_has_no_model() -> None:
    with pytest.raises(ToolError, match=r"^family must be one of ecp5, ice40, not 'gowin'$"):
        synthesise("", "gowin")
    with pytest.raises(ToolError, match=r"^the family has no models of its cells; choose one "):
        simulatable("", load_family("gowin").gate_models)
