"""An accelerator with a vector unit against the reference device: every response, byte for byte."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tests.support.packets import assert_responses, run_packets
from tests.support.plugins import Failing
from tests.support.program_host import CONFIG, END, ODD, Host, layer, linear_steps
from tritloom.gen.plan.programs import execution_cycles
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status, unpack_counters
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import (
    STEP_BYTES,
    Factor,
    Operation,
    Second,
    Step,
    encode_program,
)
from tritloom.rtl.top import Accelerator
from tritloom.sim.verify.traffic import Traffic

LONG = replace(CONFIG, vector=VectorConfig(words=160, steps=1024))
OTHERS = {
    "odd": ODD,
    "wide": replace(ODD, link=PacketStream(width=8), slots=4, tokens=2, rows=5),
    "two lanes": replace(ODD, rows=3, vector=VectorConfig(words=160, lanes=2)),
    "four lanes": replace(
        ODD, tokens=2, rows=4, vector=VectorConfig(words=160, lanes=4, multipliers=2)
    ),
    "bfloat16": replace(CONFIG, vector=VectorConfig(words=128, multipliers=2, bfloat16=True)),
}


def slow_but(quick, configs):
    """The configurations as parameters; those that are not `quick` are for `make test-all`."""
    return [
        pytest.param(config, id=name, marks=() if name in quick else pytest.mark.slow)
        for name, config in configs.items()
    ]


def bitlinear(host):
    """A layer with floats in and out, in both banks, and what is read of it in between."""
    config, trits = host.config, layer(1, 13, 18)
    host.load(2, trits)
    random = np.random.default_rng(2)
    steps, contents, inputs, outputs = linear_steps(
        config, trits, 2, np.zeros(18), np.float32(0.37), divides=True
    )
    for address, words in contents.items():
        host.put(address, words.view(np.float32))
    assert host.program(steps).status == Status.OK
    for bank in (0, 1):
        host.put(inputs, random.standard_normal(18))
        host.done(requests.execute_program(0, bank, 1 - bank))
        host.get(outputs, 13)
        host.done(*requests.read_results(config, 0, 13, 100, bank=1 - bank))
        host.get(0, 40)
        host.done(requests.read_counters())
    host.put(inputs, [np.inf])
    host.done(requests.execute_program(0))
    assert host.send(next(requests.get_words(0, 1, 100))).status == Status.NOT_FINITE
    host.put(inputs, [1])
    host.done(requests.execute_program(0), requests.read_counters())
    host.get(inputs, 1)


def refused(host):
    """Each refusal of a program, and what it leaves behind."""
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=3)
    words = host.config.vector.words
    last = Step(operation=Operation.PRODUCT, factor=Factor.SAME, a=words - 2, d=words - 2)
    statuses = []
    for steps in (
        [square, END],
        [square],
        [replace(last, count=2), END],
        [replace(last, count=3), END],
        [replace(last, a=words, d=0), END],
        [replace(square, factor=Factor.VECTOR, b=words - 3), END],
        [replace(square, factor=Factor.VECTOR, b=words - 2), END],
        [replace(square, factor=Factor.SCALAR, b=words - 1), END],
        [replace(square, d=words - 2), END],
        [replace(square, a=words - 2), END],
        [replace(square, count=40, add=True, wrap=True, d=words - 32), END],
        [replace(square, second=Second.VECTOR, c=words - 3), END],
        [replace(square, second=Second.VECTOR, c=words - 2), END],
        [replace(square, second=Second.SCALAR, c=words - 1), END],
        [Step(operation=Operation.RUN, a=1), END],
        [Step(operation=Operation.RUN, a=200), END],
        [Step(operation=Operation.RUN, a=1), replace(last, count=3), END],
        [replace(square, bfloat16=True), END],
    ):
        statuses.append(host.program(steps).status)
        host.send(requests.execute_program(0))
        host.send(requests.execute_program(len(steps)))
    assert {Status.OK, Status.OUT_OF_RANGE, Status.BAD_STATE} <= set(statuses)
    image = bytes([6]) + bytes(STEP_BYTES - 1) + encode_program([END])
    host.done(*requests.write_steps(image, 100))
    assert host.send(requests.commit_program(image)).status == Status.OUT_OF_RANGE
    for request in (
        Request(Opcode.PUT, address=words, payload=bytes(4)),
        Request(Opcode.PUT, address=words - 1, payload=bytes(range(8))),
        Request(Opcode.PUT, address=1 << 31, payload=bytes(4)),
        Request(Opcode.PUT, address=1, payload=bytes(range(7))),
        Request(Opcode.PUT),
        Request(Opcode.GET, address=words, count=1),
        Request(Opcode.GET, address=0),
        Request(Opcode.GET, address=0, count=1, payload=b"x"),
        Request(Opcode.PROGRAM, address=511, payload=bytes(range(24))),
        Request(Opcode.PROGRAM, address=0, payload=bytes(range(13))),
        Request(Opcode.COMMIT_PROGRAM, address=0),
        Request(Opcode.COMMIT_PROGRAM, address=0, count=513),
        Request(Opcode.COMMIT_PROGRAM, address=0, count=3),
        Request(Opcode.EXECUTE, payload=b"x"),
        Request(Opcode.EXECUTE),
    ):
        host.send(request)
    host.get(0, 4)
    host.get(words - 2, 2)


def forgotten(host):
    """DEFINE of a named layer, PROGRAM and RESET leave no step committed; other layers do not."""
    host.load(0, layer(1), base=0)
    host.load(1, layer(2), base=32)
    beyond = host.config.max_layers + 1  # its low bits are those of a committed layer
    assert host.program([Step(operation=Operation.RUN, a=beyond), END]).status == Status.BAD_STATE
    steps = [Step(operation=Operation.RUN, a=1), END]
    host.done(requests.define_layer(1, 32, LayerShape(1, 1)))
    assert host.program(steps).status == Status.BAD_STATE
    host.load(1, layer(2), base=32)
    assert host.send(requests.commit_program(encode_program(steps))).status == Status.OK
    host.load(0, layer(3), base=0)
    host.done(requests.execute_program(0))
    assert host.send(Request(Opcode.DEFINE, index=1, payload=bytes(10))).status != Status.OK
    host.done(requests.execute_program(0))
    host.load(1, layer(4), base=32)
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.send(requests.commit_program(encode_program(steps))).status == Status.OK
    host.done(*requests.write_steps(encode_program([END]), 100, 40))
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.send(requests.commit_program(encode_program(steps))).status == Status.OK
    # A commit that is refused leaves nothing of the one before.
    for image in (encode_program([END, steps[0]]), encode_program([END])):
        assert host.program([END]).status == Status.OK
        host.done(requests.execute_program(0))
        wrong = replace(requests.commit_program(image), address=1)
        refusal = requests.commit_program(image) if len(image) > STEP_BYTES else wrong
        assert host.send(refusal).status != Status.OK
        host.send(requests.execute_program(0))
    assert host.program(steps).status == Status.OK
    host.put(0, [2.0**100])
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME)
    assert host.program([square, END]).status == Status.OK
    host.load(1, layer(6), base=32)  # the last program does not name it
    host.done(requests.execute_program(0))
    assert host.send(next(requests.get_words(0, 1, 100))).status == Status.NOT_FINITE
    host.reset()
    host.get(0, 1)
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.program(steps).status == Status.BAD_STATE


def unbalanced(host):
    """Too few and too many codes and results: the program ends, and every bank is as it must be."""
    config, trits = host.config, layer(5)
    host.load(0, trits)
    some = Step(operation=Operation.PRODUCT, a=0, b=32, count=7, codes=True)
    run = Step(operation=Operation.RUN, a=0)
    take = Step(
        operation=Operation.PRODUCT, factor=Factor.SCALAR, from_core=True, b=40, d=64, count=20
    )
    many = replace(some, count=24)
    for program in (
        [some, run, take, some, END],
        [take, END],
        [many, run, replace(take, count=3), many, run, replace(take, count=5), END],
        [run, run, replace(take, count=2), END],
        [run, run, END],
        [many, some, END],
    ):
        assert host.program(program).status == Status.OK
        host.put(0, np.arange(-12, 12))
        host.put(32, np.ones(24))
        host.done(*requests.load_activations(config, 0, np.full(20, 100, np.int8), 100))
        host.done(requests.execute_program(0))
        host.get(64, 20)
        host.done(requests.run_layer(0, 1, 0, 1))
        host.done(*requests.read_results(config, 0, 16, 100, bank=1))


FAILING = replace(CONFIG, memory=Failing(words=64), slots=4)
FIRST_VOID = Failing.first_void


def failing(host):
    """Void words in a program's first layer, in its last, in a RUN, and in READ and COMMIT."""
    host.load(0, layer(8), base=1)
    host.load(1, layer(9, 2), base=FIRST_VOID)
    host.load(2, layer(9, 2), base=0)
    product = Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, b=60, a=0, count=20)
    codes = replace(product, codes=True)
    takes = replace(product, from_core=True, d=64, count=2)
    runs = [[codes, Step(operation=Operation.RUN, a=index), takes] for index in (0, 1)]
    steps = [*runs[0], *runs[1], END, *runs[1], *runs[0], END, *runs[0], END]
    assert host.program(steps).status == Status.OK
    host.put(0, np.arange(-30, 34))
    get = next(requests.get_words(64, 2, 100))
    for word, failure in ((1, Status.MEMORY_ERROR), (2, Status.OK)):
        image = word.to_bytes(host.config.word_bytes, "little")
        host.done(requests.define_layer(2, 0, LayerShape(1, 1)))
        host.done(*requests.write_words(host.config, 2, image, 100))
        for first, status in ((0, failure), (7, failure), (14, Status.OK)):
            host.done(requests.execute_program(first))
            assert host.send(get).status == status
        for index, status in ((0, Status.OK), (1, failure)):
            host.done(requests.run_layer(index, 1, 0, 1))
            assert host.send(get).status == Status.OK  # of the program, not of the RUN
            results = next(requests.read_results(host.config, 0, 2, 100, bank=1))
            assert host.send(results).status == status
            assert host.send(next(requests.read_words(host.config, index, 2, 100))).status == status
        host.done(requests.execute_program(0))
        # The words of the second layer wait at the memory while the first one still runs.
        for index in (0, 1):
            host.done(requests.run_layer(index, 1, 0, index))
        for index, status in ((0, Status.OK), (1, failure)):
            results = next(requests.read_results(host.config, 0, 2, 100, bank=index))
            assert host.send(results).status == status
    host.put(60, [np.inf])
    host.done(requests.execute_program(0))
    assert host.send(get).status == Status.NOT_FINITE


@pytest.mark.sim
def test_a_memory_that_fails():
    """A program with a void word has no results; neither has a RUN. The session goes on."""
    check(FAILING, failing, idle=0.1)


TWO_TOKENS = replace(CONFIG, tokens=2, slots=4, memory=BlockRam(words=128))


@pytest.mark.sim
@pytest.mark.parametrize("seed", [1, 4])
def test_random_programs_of_two_tokens(seed):
    traffic = Programs(TWO_TOKENS, seed)
    traffic.reset(seed)
    while not traffic.layers or len(traffic.packets) < 60:
        traffic.random(2)
    responses = run_packets(Accelerator(TWO_TOKENS), TWO_TOKENS, traffic.packets, seed=seed)
    assert_responses(TWO_TOKENS, traffic.packets, responses)


class Programs(Traffic):
    """Random traffic; `layers` counts the programs that computed a layer."""

    layers = 0

    def _execute(self, command):
        response = super()._execute(command)
        if command.opcode == Opcode.EXECUTE and response.status == Status.OK:
            self.layers += self._programs.last_run(command.address) is not None
        return response


@pytest.mark.sim
@pytest.mark.parametrize("seed", [103, 125, 34, 79])  # few packets are enough with these
def test_random_programs(seed):
    """Random commands of the unit, right and wrong, and EXECUTE with layers among them."""
    traffic = Programs(CONFIG, seed)
    traffic.reset(seed)
    while not traffic.layers or len(traffic.packets) < 25:
        traffic.random(2)
    responses = run_packets(Accelerator(CONFIG), CONFIG, traffic.packets, seed=seed)
    assert_responses(CONFIG, traffic.packets, responses)


def overlapping(host):
    """Commands right behind a GET that is still answered: it must not see what they change."""
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=20)
    assert host.program([square, END]).status == Status.OK
    host.put(0, np.arange(20))
    get = next(requests.get_words(0, 20, 100))
    image = encode_program([replace(square, count=7), END])
    host.done(get)
    host.put(19, [7])  # so short that it comes before the last word is read
    host.done(get, requests.execute_program(0), get)
    host.done(*requests.write_steps(image, 100))
    host.done(get, requests.commit_program(image), get, requests.execute_program(0), get)


BUSY = replace(
    CONFIG, rows=1, memory=BlockRam(words=512), max_in_features=20, max_out_features=100, slots=4
)


def behind_a_run(host):
    """A program behind a RUN that still computes: it waits, or its codes would be the RUN's."""
    config, trits = host.config, layer(6, 100)
    host.load(0, trits)
    host.load(1, layer(7, 3), base=400)
    codes = Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, b=40, count=20, codes=True)
    takes = replace(codes, codes=False, from_core=True, d=41, count=3)
    assert host.program([codes, Step(operation=Operation.RUN, a=1), takes, END]).status == Status.OK
    host.put(0, np.arange(41))
    host.done(*requests.load_activations(config, 0, np.arange(20, dtype=np.int8), 100))
    host.done(requests.run_layer(0, 1, 0, 1), requests.execute_program(0, 0, 0))
    host.done(*requests.read_results(config, 0, 100, 100, bank=1))
    host.get(41, 3)


@pytest.mark.sim
def test_a_program_behind_a_run():
    check(BUSY, behind_a_run)


def several_tokens(host):
    """Tokens with inputs of their own, all of them or the first ones, layer after layer."""
    config = host.config
    host.load(0, layer(10, 16, 20))
    host.load(1, layer(11, 13, 16), base=64)
    codes = Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, b=40, count=20, codes=True)
    takes = replace(codes, codes=False, from_core=True, d=60, count=16)
    runs = [Step(operation=Operation.RUN, a=index) for index in range(2)]
    again = replace(codes, a=60, count=16)
    few = replace(takes, count=7)  # results are left, which the next token must not get
    steps = [codes, runs[0], takes, again, runs[1], replace(takes, d=80, count=13), END]
    steps += [codes, runs[0], replace(few, d=100), END, few, codes, END, codes, again, runs[0], END]
    assert host.program(steps).status == Status.OK
    for token in range(config.tokens):
        host.put(0, np.arange(-20, 21) * (token + 1), token)
    for first, last in ((0, 1), (7, 1), (11, 1), (14, 1), (0, 0), (0, config.tokens - 1)):
        host.done(requests.execute_program(first, 0, 1, last))
        for token in range(config.tokens):
            host.get(60, 60, token)
        host.done(requests.run_layer(0, config.tokens, 0, 0))
        for token in range(config.tokens):
            host.done(*requests.read_results(config, token, 16, 100, bank=0))
    host.put(0, [np.inf], config.tokens - 1)
    host.done(requests.execute_program(0, 0, 1, config.tokens - 2))
    host.get(60, 60)
    host.done(requests.execute_program(0, 0, 1, config.tokens - 1))
    for token in range(config.tokens):
        assert host.send(Request(Opcode.GET, index=token, count=1)).status == Status.NOT_FINITE
    for opcode in (Opcode.GET, Opcode.EXECUTE, Opcode.PUT):
        request = Request(opcode, index=config.tokens, count=opcode == Opcode.GET)
        assert host.send(request).status == Status.OUT_OF_RANGE


SEVERAL = {
    "two": replace(ODD, tokens=2, memory=BlockRam(words=256)),
    "three, no power of two": replace(CONFIG, tokens=3, rows=5, memory=BlockRam(words=256)),
    "lanes": replace(
        ODD,
        tokens=2,
        rows=4,
        memory=BlockRam(words=256),
        vector=VectorConfig(words=160, lanes=4, multipliers=2),
    ),
}


@pytest.mark.sim
@pytest.mark.parametrize("config", slow_but(("three, no power of two",), SEVERAL))
def test_several_tokens(config):
    check(config, several_tokens)


def long_program(host):
    """All steps of a larger program memory, and what lies beyond them."""
    steps = host.config.vector.steps
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=3)
    image = bytes((steps - 2) * STEP_BYTES) + encode_program([square, END])
    end = encode_program([square, END])
    host.done(*requests.write_steps(end, 100, steps - 2))
    host.put(0, [2, 3, 4])
    for address in (steps - 1, steps):
        beyond = Request(Opcode.PROGRAM, address=address, payload=end)
        assert host.send(beyond).status == Status.OUT_OF_RANGE
    host.done(*requests.write_steps(end, 100, steps - 2))
    too_long = requests.commit_program(image + end)
    assert host.send(too_long).status != Status.OK
    host.done(requests.commit_program(image), requests.execute_program(steps - 2))
    host.get(0, 3)
    assert host.send(requests.execute_program(steps)).status != Status.OK


@pytest.mark.sim
def test_a_long_program():
    check(LONG, long_program)


@pytest.mark.sim
def test_overlapping_commands():
    check(replace(CONFIG, slots=4), overlapping)


def check(config, scene, **flow):
    host = Host(config)
    scene(host)
    responses = run_packets(Accelerator(config), config, host.packets, seed=1, **flow)
    assert_responses(config, host.packets, responses)


@quick_first("scene", [bitlinear, refused, forgotten, unbalanced])
def test_programs(scene):
    check(CONFIG, scene)


@pytest.mark.sim
@pytest.mark.parametrize("scene", [bitlinear, unbalanced])
@pytest.mark.parametrize("config", slow_but(("odd", "wide", "bfloat16", "four lanes"), OTHERS))
def test_programs_of_other_units(config, scene):
    """With pauses on the link: other widths of the memory, the stream, the rows and the floats."""
    check(config, scene, idle=0.3, pause=0.4)


@pytest.mark.sim
def test_cycles():
    """GET and COUNTERS tell the cycles of a program; the unit waits in those that need a layer."""
    host = Host(CONFIG)
    host.load(0, layer(7))
    host.put(0, np.ones(20))
    product = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=9, d=9)
    alone = [product, replace(product, factor=Factor.DIVISOR), END]
    taken = replace(product, from_core=True)
    assert host.program([*alone, Step(operation=Operation.RUN, a=0), taken, END])
    for first in (0, 3):
        host.done(requests.execute_program(first))
        host.get(0, 1)
        host.done(requests.read_counters())
    responses = run_packets(Accelerator(CONFIG), CONFIG, host.packets)
    *_, read, counters, _, read_2, counters_2 = (Response.parse(packet) for packet in responses)
    cycles = program_cycles(alone, CONFIG.vector)
    assert read.value == cycles
    seen, seen_2 = (unpack_counters(CONFIG, r.payload) for r in (counters, counters_2))
    assert (seen["vector_cycles"], seen["vector_stall_cycles"]) == (cycles, 0)
    assert seen_2["vector_cycles"] == cycles + read_2.value
    waits = seen_2["vector_stall_cycles"]
    needed = program_cycles([Step(operation=Operation.RUN, a=0), taken, END], CONFIG.vector)
    # The transfer of the layer takes a few cycles in which no element waits.
    assert CONFIG.run_cycles(LayerShape.of(CONFIG, 16, 20)) < waits
    assert 0 <= read_2.value - needed - waits < 8


@pytest.mark.sim
def test_cycles_of_several_tokens():
    """Steps without a layer: each token takes those of the program, and goes on to the next."""
    config = SEVERAL["three, no power of two"]
    host = Host(config)
    product = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=9, d=9)
    steps = [product, replace(product, factor=Factor.DIVISOR), END]
    assert host.program(steps).status == Status.OK
    for token in range(3):
        host.put(0, np.ones(20), token)
    for last in range(3):
        host.done(requests.execute_program(0, last_token=last))
        host.get(0, 1)
    *_, one, _, two, _, three = (
        Response.parse(packet) for packet in run_packets(Accelerator(config), config, host.packets)
    )
    for tokens, response in enumerate((one, two, three), 1):
        assert response.value == program_cycles(steps, config.vector, tokens)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("lanes", "rows"),
    [(2, 3), (4, 4), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 2), (4, 5)))],
)
def test_cycles_of_a_layer(lanes, rows):
    """The time model is exact: codes, zeros, the layer and its results, whatever their numbers."""
    unit = VectorConfig(words=192, lanes=lanes)
    config = replace(ODD, rows=rows, memory=BlockRam(words=256), max_out_features=60, vector=unit)
    for out_features, in_features in ((57, 18), (12, 7)):
        host = Host(config)
        trits = layer(1, out_features, in_features)
        host.load(0, trits)
        inputs = np.zeros(in_features)
        steps, contents, _, outputs = linear_steps(config, trits, 0, inputs, 0.37, divides=True)
        for address, words in contents.items():
            host.put(address, words.view(np.float32))
        assert host.program(steps).status == Status.OK
        host.done(requests.execute_program(0))
        host.get(outputs, 1)
        *_, got = (
            Response.parse(packet)
            for packet in run_packets(Accelerator(config), config, host.packets)
        )
        expected, _ = execution_cycles(config, steps, [(out_features, in_features)])
        assert got.value == expected


@pytest.mark.sim
def test_refusals_of_a_unit_with_two_multipliers():
    check(OTHERS["bfloat16"], refused)


@pytest.mark.sim
def test_without_a_unit_there_is_nothing_of_it():
    """Neither a component nor a signal; the design with a unit shows that the names are right."""
    names = ("\\vector", "\\runner", "reads_steps", "read_address")
    with_unit, without = (
        rtlil.convert(Accelerator(config), emit_src=False)
        for config in (CONFIG, replace(CONFIG, vector=None))
    )
    assert all(name in with_unit for name in names)
    assert not any(name in without for name in names)
