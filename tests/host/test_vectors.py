"""Programs on the reference device: exact floats or a clear error, and what lies where."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.faults import FaultyTransport
from tests.support.layers import layer_of
from tests.support.programs import layers_of, random_decoder, same_bits
from tritloom.host import (
    CapacityError,
    Device,
    DeviceError,
    InputError,
    NotFiniteError,
    connect,
)
from tritloom.host.handle import COMMIT_TRIES
from tritloom.host.models.blocks import decoder_program, feed_forward_program
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.device.reference import ReferenceTransport

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=4,
    fill=5,
    memory=BlockRam(words=4096),
    max_in_features=200,
    max_out_features=200,
    max_layers=12,
    packet_bytes=256,
    slots=4,
    vector=VectorConfig(words=2048),
)


class Watched(ReferenceTransport):
    """Counts the opcodes that come; a device that keeps no steps while `forgets` is above 0."""

    def __init__(self, config=CONFIG):
        super().__init__(config)
        self.opcodes = []
        self.forgets = 0

    def send(self, packet):
        request = Request.parse(packet)
        self.opcodes.append(Opcode(request.opcode))
        super().send(packet)
        if request.opcode == Opcode.PROGRAM and self.forgets:
            self.forgets -= 1
            self.device._programs.steps[0] ^= 1

    def taken(self):
        """The opcodes since the last call."""
        opcodes, self.opcodes = self.opcodes, []
        return opcodes


@pytest.fixture
def transport():
    return Watched()


@pytest.fixture
def device(transport):
    with Device(transport, url="test") as device:
        yield device


def load(device, decoder, make=decoder_program):
    handles = [device.load(layer) for layer in layers_of(decoder)]
    if make is feed_forward_program:
        handles = [
            handle for index in range(0, len(handles), 4) for handle in handles[index + 2 :][:2]
        ]
    return device.load_program(make(device.info.config.vector, decoder), handles)


def vectors(decoder, tokens, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        rng.standard_normal((tokens, count)).astype(np.float32)
        for count in (decoder.hidden, decoder.queries)
    )


def check(handle, decoder, tokens=3, seed=0):
    """All routines, with x from outside for several tokens, else with x on the device."""
    golden = GoldenBlocks(decoder)
    x, _ = vectors(decoder, tokens, seed)
    assert same_bits(handle.run("begin", {"x": x}, ["qkv"])["qkv"], golden.qkv(0, x))
    for index in range(len(decoder.blocks)):
        _, attention = vectors(decoder, tokens, seed + index)
        inputs = {"attention": attention} | ({"x": x} if tokens > 1 else {})
        x = golden.feed_forward(index, golden.attention(index, x, attention))
        last = index + 1 == len(decoder.blocks)
        got = handle.run(f"block {index}", inputs, ["x", "hidden" if last else "qkv"])
        assert same_bits(got["x"], x)
        if last:
            assert same_bits(got["hidden"], golden.final(x))
        else:
            assert same_bits(got["qkv"], golden.qkv(index + 1, x))


@pytest.mark.parametrize("tokens", [1, 5])
def test_blocks_are_exact(device, tokens):
    decoder = random_decoder(0)
    handle = load(device, decoder)
    check(handle, decoder, tokens)
    assert handle.stats.executions == 3 * tokens
    assert handle.stats_of("begin").executions == tokens


@pytest.mark.parametrize("tokens", [2, 3])
def test_several_tokens_at_once(tokens):
    """An EXECUTE computes as many tokens as the core has, each with its own words and errors."""
    transport = Watched(replace(CONFIG, tokens=tokens))
    with Device(transport, url="test", config=replace(CONFIG, tokens=tokens)) as device:
        decoder = random_decoder(0)
        handle = load(device, decoder)
        transport.taken()
        check(handle, decoder, 5)
        opcodes = transport.taken()
        assert opcodes.count(Opcode.EXECUTE) == 3 * -(-5 // tokens)
        assert handle.stats.executions == 3 * 5
        cycles = handle.stats.cycles
        check(handle, decoder, 1)  # the hidden vector stays in the words of the first token
        assert handle.stats.executions == 3 * 6
        assert tokens - 1 < cycles / (handle.stats.cycles - cycles) <= 5
        x, _ = vectors(decoder, 5)
        before = handle.run("begin", {"x": x}, ["qkv"])["qkv"]
        wrong = x.copy()
        wrong[3] = 2.0**70
        which = f"tokens {3 // tokens * tokens} to {min(5, 3 // tokens * tokens + tokens) - 1}"
        with pytest.raises(NotFiniteError, match=f"routine begin, {which}: a number"):
            handle.run("begin", {"x": wrong}, ["qkv"])
        assert same_bits(handle.run("begin", {"x": x}, ["qkv"])["qkv"], before)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_other_numbers(bfloat16):
    unit = VectorConfig(words=4096, bfloat16=bfloat16)
    decoder = random_decoder(1, bfloat16=bfloat16, divides=True, bias=True)
    with connect("golden", config=replace(CONFIG, vector=unit)) as device:
        handle = load(device, decoder)
        golden = GoldenBlocks(decoder)
        x, _ = vectors(decoder, 4)
        x = x.view(np.uint32) & 0xFFFF_0000
        x = x.view(np.float32)
        assert same_bits(handle.run("begin", {"x": x}, ["qkv"])["qkv"], golden.qkv(0, x))


def test_commands_of_a_token(device, transport):
    """Neighbouring vectors share their packets; 59 words fit in one."""
    decoder = random_decoder(2)
    handle = load(device, decoder)
    x, attention = vectors(decoder, 2)
    transport.taken()
    got = handle.run("block 0", {"attention": attention, "x": x}, ["qkv", "x"])
    put, execute, get = Opcode.PUT, Opcode.EXECUTE, Opcode.GET
    assert transport.taken() == [*[put] * 3, execute, *[get] * 4] * 2
    assert list(got) == ["x", "qkv"]
    assert [array.shape for array in got.values()] == [(2, 64), (2, 128)]
    assert all(array.dtype == np.float32 for array in got.values())
    handle.run("begin", {}, [])
    assert transport.taken() == [execute]
    handle.run("begin", {}, ["x"])
    assert transport.taken() == [execute, get, get]


def test_stats(device):
    """Cycles are the device's; bytes are those of whole packets."""
    decoder = random_decoder(3)
    handle = load(device, decoder)
    x, _ = vectors(decoder, 2)
    before = device.counters()
    got = handle.submit("begin", {"x": x}, ["qkv"])
    assert handle.stats.executions == 0
    first = got.result()
    assert got.result() is first
    stats, after = handle.stats, device.counters()
    assert stats.cycles == after.vector_cycles - before.vector_cycles
    assert stats.cycles > after.run_cycles - before.run_cycles > 0
    assert stats.bytes_tx == 2 * (64 * 4 + 2 * 20 + 20 + 3 * 20)
    assert stats.bytes_rx == 2 * (128 * 4 + 6 * 20)
    assert stats == handle.stats_of("begin")
    handle.run("begin", {"x": x}, [])
    assert handle.stats.executions == 4


def test_several_executions_and_products_at_once(device):
    """Results can be waited for in any order."""
    decoder = random_decoder(4)
    handle = load(device, decoder)
    golden = GoldenBlocks(decoder)
    inputs = [vectors(decoder, 3, seed)[0] for seed in range(4)]
    layer = handle.layers[0]
    codes = np.random.default_rng(4).integers(-128, 128, (3, 64), np.int8)
    executions, jobs = [], []
    for x in inputs:
        executions.append(handle.submit("begin", {"x": x}, ["qkv"]))
        jobs.append(device.submit(layer, codes))
    for x, execution, job in reversed(list(zip(inputs, executions, jobs, strict=True))):
        assert same_bits(execution.result()["qkv"], golden.qkv(0, x))
        assert np.array_equal(job.result(), codes.astype(int) @ layer.layer.trits.T)


def test_patience(device):
    """EXECUTE is accepted at once; the commands behind it wait for its cycles."""
    decoder = random_decoder(3)
    handle = load(device, decoder)
    execution = handle.submit("begin", {}, ["x", "qkv"])
    (commands,) = execution._commands
    execution.result()
    cycles = [command.cycles for command in commands]
    assert cycles[0] == cycles[1] >= handle.stats.cycles
    assert cycles[0] < 1.1 * handle.stats.cycles
    assert not any(cycles[2:])


def test_steps_that_are_there_are_not_written_again(device, transport):
    decoders = [random_decoder(seed, blocks=1, inner=64) for seed in (5, 6)]
    handles = [load(device, decoder) for decoder in decoders]
    handles[1].unload()
    check(handles[0], decoders[0])
    transport.taken()
    handles[1] = device.load_program(handles[1].program, handles[1].layers)
    assert Opcode.PROGRAM not in transport.taken()
    for handle, decoder in zip(handles, decoders, strict=True):
        check(handle, decoder)


def test_words_are_aligned():
    """The free words would be enough, but not from a multiple of 32 on."""
    decoder = random_decoder(5, blocks=1, inner=32, hidden=60)
    program = decoder_program(VectorConfig(words=2048), decoder)
    assert 0 < program.words % 32 <= 16
    unit = VectorConfig(words=program.words // 32 * 64 + 32)
    with connect("golden", config=replace(CONFIG, vector=unit)) as device:
        handles = [device.load(layer) for layer in layers_of(decoder)]
        device.load_program(program, handles)
        assert device.info.free_vector_words >= program.words
        with pytest.raises(CapacityError):
            device.load_program(program, handles)


def test_two_programs_share_the_device(device, transport):
    decoders = [random_decoder(seed, blocks=1, inner=64) for seed in (5, 6)]
    free = device.info.free_vector_words, device.info.free_steps
    assert free == (2048, 512)
    handles = [load(device, decoder) for decoder in decoders]
    for handle, decoder in zip(handles, decoders, strict=True):
        check(handle, decoder, 1)
    assert device.info.free_steps == 512 - 2 * len(handles[0].program.steps)
    handles[0].unload()
    handles[0].unload()
    with pytest.raises(InputError, match=r"^the program was unloaded; load it again$"):
        handles[0].run("begin", {}, [])
    transport.taken()
    check(handles[1], decoders[1], 1)
    assert transport.taken().count(Opcode.COMMIT_PROGRAM) == 1
    again = device.load_program(handles[0].program, handles[0].layers)
    check(again, decoders[0], 1)
    check(handles[1], decoders[1], 1)
    for handle in (again, handles[1]):
        handle.unload()
    assert (device.info.free_vector_words, device.info.free_steps) == free


@pytest.mark.parametrize("first", ["execute", "load"])
def test_a_layer_that_is_unloaded(device, transport, first):
    """Its number goes to another layer. That one must not run in its place, and others do run."""
    decoders = [random_decoder(seed, blocks=1, inner=64) for seed in (7, 8)]
    handles = [load(device, decoder) for decoder in decoders]
    device.unload(handles[0].layers[2])
    if first == "execute":
        check(handles[1], decoders[1], 2)
    other = device.load(layer_of(np.random.default_rng(0), 128, 64))
    assert device.allocation().pieces(other)[0].index == 2
    with pytest.raises(InputError, match="a layer of the program was unloaded; load both"):
        handles[0].run("begin", {}, [])
    transport.taken()
    check(handles[1], decoders[1], 2)
    assert transport.taken().count(Opcode.COMMIT_PROGRAM) == (first == "load")


def test_loading_other_layers_leaves_programs_committed(device, transport):
    decoder = random_decoder(9, blocks=1)
    handle = load(device, decoder)
    other = device.load(layer_of(np.random.default_rng(0), 8, 10))
    device.unload(other)
    device.selftest()
    transport.taken()
    check(handle, decoder)
    assert Opcode.COMMIT_PROGRAM not in transport.taken()


def test_numbers_that_are_not_finite(device):
    """The session goes on, and so do tokens behind."""
    decoder = random_decoder(10)
    handle = load(device, decoder)
    golden = GoldenBlocks(decoder)
    x = vectors(decoder, 3)[0]
    wrong = x.copy()
    wrong[1:, 5] = 2.0**64
    bad = handle.submit("begin", {"x": wrong}, ["qkv", "x"])
    good = handle.submit("begin", {"x": x}, ["qkv"])
    assert same_bits(good.result()["qkv"], golden.qkv(0, x))
    for _ in range(2):
        with pytest.raises(NotFiniteError) as caught:
            bad.result()
        assert str(caught.value) == (
            "routine begin, token 1: a number was not finite or 2^126 or more; "
            "compute this input on the host"
        )
    assert handle.stats.executions == 6
    check(handle, decoder, 1)


ONE = np.zeros((1, 64), np.float32)


@pytest.mark.parametrize(
    ("routine", "inputs", "outputs", "message"),
    [
        ("start", {}, [], "the program has no routine 'start'; it has begin, block 0"),
        ("begin", {}, ["y"], "the program has no vector 'y'; it has x, qkv, attention, hidden"),
        ("begin", {"y": ONE}, [], "the program has no vector 'y'; it has x, qkv"),
        ("begin", {"x": ONE[0]}, [], r"x must have shape \[tokens, 64\], not \(64,\)"),
        ("begin", {"x": ONE[:, 1:]}, [], r"x must have shape \[tokens, 64\], not \(1, 63\)"),
        ("begin", {"x": ONE[:0]}, [], r"x must have shape \[tokens, 64\], not \(0, 64\)"),
        ("begin", {"x": ONE.astype(int)}, [], r"x must be float32, not int64; use"),
        ("begin", {"x": "a"}, [], "x must be float32, not <U1"),
        (
            "begin",
            {"x": ONE, "attention": np.zeros((2, 64))},
            [],
            "all inputs must have the same number of tokens, not {'x': 1, 'attention': 2}",
        ),
        (
            "begin",
            {"qkv": np.zeros((1, 128)), "attention": ONE},
            [],
            "inputs attention and qkv lie in the same words; give one of them",
        ),
    ],
)
def test_inputs_that_are_refused(device, routine, inputs, outputs, message):
    handle = load(device, random_decoder(11, blocks=1))
    with pytest.raises(InputError, match=f"^{message}"):
        handle.submit(routine, inputs, outputs)
    assert device.counters().vector_cycles == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "1e+300"), (-(2.0**126), "-8.50706e+37")],
)
def test_numbers_that_are_refused(device, value, shown):
    handle = load(device, random_decoder(12, blocks=1))
    x = np.zeros((2, 64))
    x[1, 7] = value
    with pytest.raises(NotFiniteError) as caught:
        handle.submit("begin", {"x": x}, [])
    assert str(caught.value) == (
        f"x must be finite and below 2^126, not {shown} at token 1, position 7; "
        "compute this input on the host"
    )


def test_what_is_not_loaded(device):
    decoder = random_decoder(13)
    handle = load(device, decoder)
    free = device.info
    for layers, message in (
        (handle.layers[1:], "^the program has 8 layers, not 7$"),
        ([1, *handle.layers[1:]], r"^layers must be what load returned, not int \(0\)$"),
        (handle.layers[::-1], r"^layer 0 of the program must be 128 × 64, not 64 × 96$"),
    ):
        with pytest.raises(InputError, match=message):
            device.load_program(handle.program, layers)
    second = device.load_program(handle.program, handle.layers)
    with pytest.raises(CapacityError) as caught:
        device.load_program(handle.program, handle.layers)
    assert str(caught.value) == (
        "the program needs 916 vector words, free are 216 of 2,048; "
        "unload programs, or compute on the host"
    )
    second.unload()
    handle.unload()
    device.unload(handle.layers[3])
    with pytest.raises(InputError, match="the layer was unloaded; load it again"):
        device.load_program(handle.program, handle.layers)
    assert free.free_words < device.info.free_words


def test_steps_that_do_not_fit():
    decoder = random_decoder(13)
    unit = VectorConfig(words=4096)
    with connect("golden", config=replace(CONFIG, vector=unit)) as device:
        handle = load(device, decoder)
        other = device.load_program(handle.program, handle.layers)
        with pytest.raises(CapacityError) as caught:
            device.load_program(handle.program, handle.layers)
        assert str(caught.value).startswith("the program needs 237 steps, free are 38 of 512; ")
        handle.unload()
        again = device.load_program(handle.program, handle.layers)
        check(other, decoder)
        check(again, decoder)


def test_layers_in_pieces():
    decoder = random_decoder(14, blocks=1)
    config = replace(CONFIG, max_out_features=100)
    with connect("golden", config=config) as device:
        with pytest.raises(InputError) as caught:
            load(device, decoder)
    assert str(caught.value) == (
        "layer 0 of the program lies in 2 pieces, a program needs it in one; "
        "build the device with greater feature limits"
    )


def test_a_device_without_a_vector_unit():
    decoder = random_decoder(15, blocks=1)
    program = decoder_program(VectorConfig(), decoder)
    with connect("golden", config=replace(CONFIG, vector=None)) as device:
        assert (device.info.free_vector_words, device.info.free_steps) == (0, 0)
        handles = [device.load(layer) for layer in layers_of(decoder)]
        with pytest.raises(InputError) as caught:
            device.load_program(program, handles)
    assert str(caught.value) == (
        "golden has no vector unit; build it with vector, or compute on the host"
    )


@pytest.mark.parametrize("times", [1, COMMIT_TRIES])
def test_steps_that_are_not_kept(transport, device, times):
    decoder = random_decoder(16, blocks=1)
    transport.forgets = times * 100
    if times == 1:
        transport.forgets = 1
        check(load(device, decoder), decoder)
        return
    with pytest.raises(DeviceError) as caught:
        load(device, decoder)
    assert str(caught.value) == (
        f"test does not keep the steps of a program: wrong checksum {COMMIT_TRIES} times; "
        "run its self-test"
    )
    assert device.info.free_steps == 512
    transport.forgets = 0
    handles = [device.load(layer) for layer in layers_of(random_decoder(17, blocks=1))]
    decoder = random_decoder(17, blocks=1)
    check(device.load_program(decoder_program(CONFIG.vector, decoder), handles), decoder)


def test_a_bad_link():
    """Whatever is lost, repeated or damaged: each routine runs once a token."""
    faulty = FaultyTransport(
        ReferenceTransport(CONFIG), lose=0.05, duplicate=0.05, reorder=0.05, corrupt=0.05, seed=5
    )
    with Device(faulty, url="test") as device:
        decoder = random_decoder(18)
        handle = load(device, decoder)
        for seed in range(4):
            check(handle, decoder, 1 + seed % 2 * 3, seed)
    assert sum(faulty.faults.values()) > 50


def test_feed_forward_on_the_device(device):
    decoder = random_decoder(19)
    handle = load(device, decoder, feed_forward_program)
    golden = GoldenBlocks(decoder)
    x, _ = vectors(decoder, 4)
    for index in range(2):
        got = handle.run(f"feed_forward {index}", {"x": x}, ["x"])["x"]
        assert same_bits(got, golden.feed_forward(index, x))


@pytest.mark.sim
@pytest.mark.parametrize("multipliers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_on_the_simulated_device(multipliers):
    """The hardware gives the same floats, goes on after numbers that are not finite, and counts."""
    vector = VectorConfig(words=2048, multipliers=multipliers)
    with connect("sim", config=replace(CONFIG, vector=vector)) as device:
        for seed, options in enumerate(({}, {"divides": True}, {"relu2": True, "bias": True})):
            decoder = random_decoder(seed, blocks=1, **options)
            handle = load(device, decoder)
            check(handle, decoder, 1)
            before = device.counters().vector_cycles, handle.stats.cycles
            check(handle, decoder, 4)
            assert device.counters().vector_cycles - before[0] == handle.stats.cycles - before[1]
            wrong = vectors(decoder, 2)[0]
            wrong[0, 3] = 2.0**70
            with pytest.raises(NotFiniteError, match="routine begin, token 0"):
                handle.run("begin", {"x": wrong}, ["qkv"])
            check(handle, decoder, 2)
            device.unload(handle.layers[1])
            with pytest.raises(InputError, match="a layer of the program was unloaded"):
                handle.run("begin", {}, [])
            handle.unload()
            for layer in (handle.layers[0], *handle.layers[2:]):
                device.unload(layer)


@pytest.mark.sim
@pytest.mark.parametrize("packets", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_link(packets):
    """One packet in a hundred is damaged, whichever way; each float is right all the same."""
    faulty = FaultyTransport(ReferenceTransport(CONFIG), corrupt=0.01, seed=6)
    with Device(faulty, url="test") as device:
        decoder = random_decoder(20, blocks=1)
        handle = load(device, decoder)
        seed = 0
        while device.counters().packets < packets:
            check(handle, decoder, 16, seed)
            seed += 1
    assert sum(faulty.faults.values()) > packets / 70
