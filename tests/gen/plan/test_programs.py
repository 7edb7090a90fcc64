"""The cycles of routines on a device: by hand, and against the simulated FPGA, every cycle."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.programs import layers_of, random_decoder
from tritloom.gen.plan.programs import execution_cycles, plan_times, routine_cycles
from tritloom.gen.plan.schedule import run_cycles
from tritloom.gen.plan.timing import Host
from tritloom.host.device import Device
from tritloom.host.models.blocks import decoder_program, feed_forward_program
from tritloom.host.models.placed_blocks import BlockPlan
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Step
from tritloom.sim.device.simulated import SimulatedDevice

CONFIG = AcceleratorConfig(
    lanes=20,
    rows=4,
    fill=5,
    memory=BlockRam(words=1024),
    max_in_features=100,
    max_out_features=128,
    max_layers=16,
    packet_bytes=128,
    slots=4,
    vector=VectorConfig(words=1024),
)
TABLES = replace(
    CONFIG,
    engine="table",
    lanes=10,
    rows=3,
    fill=2,
    max_layers=65,  # the layer table has an output register
    link=PacketStream(width=8),
    vector=VectorConfig(words=1024, multipliers=2, bfloat16=True),
)
NO_HOST = Host(call_s=0, command_s=0)
SLOW_HOST = Host(call_s=1.0, command_s=0.5)
RUN = Step(operation=Operation.RUN, a=0)
END = Step(operation=Operation.END)


def product(factor=Factor.SAME, **fields):
    return Step(operation=Operation.PRODUCT, factor=factor, **fields)


@pytest.mark.parametrize(("inputs", "zeros"), [(60, 0), (59, 1 + 1), (55, 5 + 1), (41, 19 + 4)])
def test_a_layer(inputs, zeros):
    """Four cycles until the codes are there, the zeros, the layer, ten more to the first result."""
    steps = [product(count=inputs, codes=True), RUN, product(count=30, from_core=True), END]
    cycles, engine = execution_cycles(CONFIG, steps, [(30, inputs)])
    assert engine == run_cycles(CONFIG, LayerShape.of(CONFIG, 30, inputs))
    waits = 4 + zeros + engine + 10
    assert cycles == program_cycles(steps, CONFIG.vector) + waits


@pytest.mark.parametrize("others", [1, 3, 40])
def test_steps_beside_a_layer(others):
    """What the unit computes before it takes a result costs nothing until the layer is done."""
    some = [product(count=5, d=100)] * others
    first = [product(count=60, codes=True), RUN]
    last = [product(count=30, from_core=True), END]
    alone, engine = execution_cycles(CONFIG, [*first, *last], [(30, 60)])
    both, _ = execution_cycles(CONFIG, [*first, *some, *last], [(30, 60)])
    takes = program_cycles(some, CONFIG.vector) - program_cycles([], CONFIG.vector)
    assert both - alone == max(0, takes - engine - 10)


@pytest.mark.parametrize("form", ["blocks", "activation", "feed_forward"])
def test_times_of_a_plan(form):
    """Each routine of a token once, with the vectors that `PlacedBlocks` moves for it."""
    decoder = random_decoder(
        2, hidden=48, inner=64, queries=48, keys=16, relu2=form != "activation"
    )
    if form == "feed_forward":
        program = feed_forward_program(CONFIG.vector, decoder)
        moved = [("feed_forward 0", "x", "x"), ("feed_forward 1", "x", "x")]
    else:
        program = decoder_program(CONFIG.vector, decoder)
        moved = [("begin", "x", "qkv"), ("block 0", "attention", "qkv")]
        moved += [("block 1", "attention", "hidden")]
        if form == "activation":
            moved[1:] = [("block 0", "attention", "gate_up"), ("feed_forward 0", "inner", "qkv")]
            moved += [("block 1", "attention", "gate_up"), ("feed_forward 1", "inner", "hidden")]
    kind = "feed_forward" if form == "feed_forward" else "blocks"
    times = plan_times(CONFIG, BlockPlan(form=kind, program=program), host=NO_HOST)
    calls = [routine_cycles(CONFIG, program, name, [i], [o]) for name, i, o in moved]
    assert times.calls == len(moved)
    assert times.bytes_in == sum(call.bytes_in for call in calls)
    assert times.bytes_out == sum(call.bytes_out for call in calls)
    assert round(times.total_s * CONFIG.clock_hz) == sum(call.cycles for call in calls)
    assert times.macs == sum(rows * columns for rows, columns in program.layers)
    slow = plan_times(CONFIG, BlockPlan(form=kind, program=program), host=SLOW_HOST)
    commands = sum(call.commands for call in calls)
    assert slow.total_s == slow.host_s == len(moved) * 1.0 + commands * 0.5


@pytest.mark.sim
@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CONFIG, {"divides": True}),
        (TABLES, {"bfloat16": True}),
        pytest.param(
            replace(CONFIG, vector=replace(CONFIG.vector, multipliers=2)),
            {"divides": True},
            marks=pytest.mark.slow,
        ),
        (replace(CONFIG, vector=replace(CONFIG.vector, multipliers=2, lanes=2)), {"divides": True}),
        (replace(CONFIG, vector=replace(CONFIG.vector, multipliers=2, lanes=4)), {"divides": True}),
    ],
    ids=[
        "adders",
        "tables, two multipliers, bfloat16, 8 bytes",
        "adders, two multipliers",
        "two lanes",
        "four lanes",
    ],
)
def test_simulated_fpga(config, options):
    """Each routine of a decoder, from a command's first byte to the last response's last."""
    decoder = random_decoder(1, blocks=1, hidden=48, inner=64, queries=48, keys=16, **options)
    program = decoder_program(config.vector, decoder)
    rng = np.random.default_rng(3)
    transport = SimulatedDevice(config)
    with Device(transport, url="sim", config=config) as device:
        handle = device.load_program(program, [device.load(layer) for layer in layers_of(decoder)])
        for routine, inputs, outputs in (
            ("begin", ["x"], ["qkv"]),
            ("begin", ["x"], ["x", "qkv"]),
            ("block 0", ["attention"], ["hidden"]),
            ("block 0", ["x", "attention"], ["x"]),
        ):
            given = {
                name: rng.normal(0, 1, (1, program.vectors[name].count)).astype(np.float32)
                for name in inputs
            }
            start, before = transport.cycles, handle.stats
            handle.run(routine, given, outputs)
            took, stats = transport.cycles - start, handle.stats - before
            expected = routine_cycles(config, program, routine, inputs, outputs)
            assert (stats.bytes_tx, stats.bytes_rx) == (expected.bytes_in, expected.bytes_out)
            cycles, _ = execution_cycles(config, program.steps_of(routine), program.layers)
            assert (stats.cycles, took) == (cycles, expected.cycles), routine
