"""The reference device with a vector unit: programs, what it refuses, and what it forgets."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.program_host import CONFIG, END, ODD, Host, layer, linear_steps
from tritloom.rtl.spec import numerics, requests
from tritloom.rtl.spec.commands import Opcode, Request, Status, unpack_counters
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.vector_program import (
    STEP_BYTES,
    Factor,
    Operation,
    Step,
    encode_program,
    kept_mask,
)
from tritloom.sim.device import reference


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["tiny", "odd"])
def test_a_bitlinear_layer(config, divides):
    """Float bits in and out, of two tokens; the banks that EXECUTE names hold what RUN would."""
    host, trits = Host(config), layer(1, 13, 18)
    host.load(2, trits)
    random = np.random.default_rng(2)
    scale = np.float32(0.37)
    steps, contents, inputs, outputs = linear_steps(
        config, trits, 2, np.zeros(18), scale, divides=divides
    )
    for address, words in contents.items():
        host.put(address, words.view(np.float32))
    assert host.program(steps).status == Status.OK
    for bank in (0, 1):
        x = (random.standard_normal(18) * 10.0 ** random.integers(-3, 4)).astype(np.float32)
        host.put(inputs, x)
        host.done(requests.execute_program(0, bank, 1 - bank))
        expected = numerics.bitlinear(x[None], trits, scale, divides)
        assert host.get(outputs, 13).tobytes() == expected[0].tobytes()
        codes, _ = numerics.absmax_quantize(x[None])
        sums = host.done(*requests.read_results(config, 0, 13, 1000, bank=1 - bank))
        exact = numerics.matmul(trits, codes)[0]
        size = config.acc_bytes
        got = b"".join(response.payload for response in sums)
        assert [
            int.from_bytes(got[n : n + size], "little", signed=True)
            for n in range(0, len(got), size)
        ] == exact.tolist()
    counters = unpack_counters(config, host.done(requests.read_counters())[0].payload)
    assert counters["vector_cycles"] > counters["run_cycles"] > 0


def test_an_interrupt_leaves_no_trace(monkeypatch):
    """Each packet comes to one device again after an interrupt behind all that it changes."""
    plain, disturbed = Host(), Host()
    process = disturbed.device.process

    def fail(*arguments):
        raise KeyboardInterrupt

    def interrupt(packet):
        with monkeypatch.context() as patch:
            patch.setattr(reference, "pack_response", fail)
            with pytest.raises(KeyboardInterrupt):
                process(packet)

    def twice(packet):
        interrupt(packet)
        return process(packet)

    disturbed.device.process = twice
    one = Step(operation=Operation.PRODUCT, factor=Factor.SAME, a=0, d=0, count=3)
    trits, codes = layer(3), np.arange(20).astype(np.int8)
    for host in (plain, disturbed):
        host.load(1, trits)
        host.done(*requests.load_activations(CONFIG, 0, codes, 1000, 0))
        host.done(requests.run_layer(1, 1, 0, 1))
        host.done(*requests.read_results(CONFIG, 0, 16, 1000, bank=1))
        host.put(0, [1, 2, 3])
        assert host.program([one, END]).status == Status.OK
        host.done(requests.execute_program(0))
        assert host.get(0, 3).tolist() == [1, 4, 9]
        assert host.send(Request(Opcode.LOAD, count=1, index=9)).status != Status.OK
        host.done(requests.read_counters())
    assert disturbed.packets == plain.packets
    # A RESET that was interrupted has forgotten nothing, and one that was not has.
    interrupt(Request(Opcode.RESET, session=9).pack())
    for host in (plain, disturbed):
        host.done(requests.execute_program(0), requests.run_layer(1, 1, 0, 0))
        host.done(*requests.read_results(CONFIG, 0, 16, 1000, bank=1))
        assert host.get(0, 3).tolist() == [1, 16, 81]
        host.reset()
        assert host.send(requests.run_layer(1, 1, 0, 0)).status == Status.BAD_STATE
        assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert disturbed.packets == plain.packets


def test_a_program_is_committed_as_a_whole_and_may_begin_anywhere():
    host = Host()
    one = Step(operation=Operation.PRODUCT, factor=Factor.SAME, a=0, d=0, count=3)
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.program([one, one, END]).status == Status.OK
    host.put(0, [1, 2, 3])
    host.done(requests.execute_program(1))
    assert host.get(0, 3).tolist() == [1, 4, 9]
    host.done(requests.execute_program(0))
    assert host.get(0, 3).tolist() == [1, 256, 6561]
    assert host.done(*requests.get_words(0, 1, 100))[0].value > 0
    assert host.send(requests.execute_program(3)).status == Status.OUT_OF_RANGE
    # More steps leave none committed, and a new session forgets them.
    host.done(*requests.write_steps(encode_program([END]), 100, 3))
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.send(requests.commit_program(encode_program([one, one, END]))).status == Status.OK
    host.reset()
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.send(requests.commit_program(encode_program([one, one, END]))).status == Status.OK
    host.done(requests.execute_program(2))
    assert host.get(0, 3).tolist() == [1, 256, 6561]


WRONG = {
    "no END": [Step(operation=Operation.ROOT)],
    "a ends beyond": [Step(operation=Operation.PRODUCT, a=191, d=0, b=0, count=2), END],
    "b ends beyond": [Step(operation=Operation.PRODUCT, b=190, count=3), END],
    "d ends beyond": [Step(operation=Operation.PRODUCT, d=192), END],
    "scalar beyond": [Step(operation=Operation.DIVIDE, b=192), END],
    "too many": [Step(operation=Operation.PRODUCT, codes=True, count=193), END],
}


@pytest.mark.parametrize("steps", WRONG.values(), ids=WRONG)
def test_wrong_steps_are_not_committed(steps):
    host = Host()
    assert host.program([END]).status == Status.OK
    assert host.program(steps).status == Status.OUT_OF_RANGE
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE


def test_an_unknown_operation_is_not_committed():
    host = Host()
    image = bytes([7]) + bytes(STEP_BYTES - 1) + encode_program([END])
    host.done(*requests.write_steps(image, 100))
    assert host.send(requests.commit_program(image)).status == Status.OUT_OF_RANGE


def test_a_wrong_checksum_tells_the_right_one():
    """Bits that no unit of the configuration needs are 0, so a step that needs them is refused."""
    host, steps = Host(), [Step(operation=Operation.PRODUCT, bfloat16=True), END]
    response = host.program(steps)
    kept = encode_program([replace(steps[0], bfloat16=False), END])
    assert response.status == Status.BAD_CHECKSUM
    assert response.value == requests.commit_program(kept).address
    assert host.send(requests.commit_program(kept)).status == Status.OK
    assert kept_mask(replace(CONFIG.vector, bfloat16=True)) != kept_mask(CONFIG.vector)
    whole = encode_program([END]) * 512
    host.done(*requests.write_steps(whole, 108))
    assert host.send(requests.commit_program(whole)).status == Status.OK
    over = requests.commit_program(whole + encode_program([END]))
    assert host.send(over).status == Status.BAD_LENGTH


def test_a_layer_that_a_step_names_must_be_committed():
    host, steps = Host(), [Step(operation=Operation.RUN, a=1), END]
    host.load(0, layer(1), base=0)
    assert host.program(steps).status == Status.BAD_STATE
    host.load(1, layer(2), base=32)
    assert host.send(requests.commit_program(encode_program(steps))).status == Status.OK
    host.load(0, layer(3), base=0)  # which no step names
    host.done(requests.execute_program(0))
    refused = Request(Opcode.DEFINE, index=1, payload=bytes(10))
    assert host.send(refused).status == Status.OUT_OF_RANGE  # it changes nothing
    host.done(requests.execute_program(0))
    host.load(1, layer(4), base=32)
    assert host.send(requests.execute_program(0)).status == Status.BAD_STATE
    assert host.program([Step(operation=Operation.RUN, a=77), END]).status == Status.BAD_STATE


def test_numbers_that_are_not_finite_give_no_words_until_the_next_program():
    host = Host()
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, d=8)
    assert host.program([square, END]).status == Status.OK
    for x, status in (
        (2.0**62, Status.OK),
        (2.0**63, Status.NOT_FINITE),
        (np.nan, Status.NOT_FINITE),
        (np.inf, Status.NOT_FINITE),
        (1.5, Status.OK),
    ):
        host.put(0, [x])
        host.done(requests.execute_program(0))
        response = host.send(next(requests.get_words(8, 1, 100)))
        assert response.status == status
        assert (response.value > 0) == bool(response.payload) == (status == Status.OK)
    host.put(0, [np.inf])
    host.done(requests.execute_program(0))
    host.reset()
    assert np.isinf(host.get(0, 1)[0])


def test_codes_that_are_missing_are_zero_and_results_that_are_missing_too():
    """Whatever a host sends, every program ends, and gives the same words on every device."""
    host, trits = Host(ODD), layer(5)
    host.load(0, trits)
    some = Step(operation=Operation.PRODUCT, a=0, b=32, count=7, codes=True)
    run = Step(operation=Operation.RUN, a=0)
    take = Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, from_core=True, b=40)
    take = replace(take, count=20, d=64)
    assert host.program([some, run, take, some, END]).status == Status.OK
    x = np.arange(-3, 4)
    host.put(0, x)
    host.put(32, np.ones(9))
    host.done(*requests.load_activations(ODD, 0, np.full(20, 100, np.int8), 100))
    host.done(requests.execute_program(0))
    sums = numerics.matmul(trits[:, :7], x[None].astype(np.int8))[0]
    assert host.get(64, 20).tolist() == [*sums.tolist(), 0, 0, 0, 0]
    # The first five of the last codes fill a word of the bank; the other two fill none.
    host.done(requests.run_layer(0, 1))
    results = host.done(*requests.read_results(ODD, 0, 16, 100))
    codes = np.array([*x[:5], *x[5:], *[0] * 13], np.int8)
    exact = numerics.matmul(trits, codes[None])[0]
    assert results[0].payload[: ODD.acc_bytes] == int(exact[0]).to_bytes(
        ODD.acc_bytes, "little", signed=True
    )


def test_a_device_without_a_unit_has_no_such_commands():
    host = Host(TINY)
    for opcode in (op for op in Opcode if op >= Opcode.PUT):
        assert host.send(Request(opcode)).status == Status.BAD_OPCODE


def test_an_interrupted_program_leaves_the_device_as_if_it_had_not_come(monkeypatch):
    host = Host()
    doubled = Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, b=1, add=True)
    assert host.program([doubled, doubled, END]).status == Status.OK
    host.put(0, [1, 1])
    with monkeypatch.context() as patch:
        patch.setattr(
            type(host.device), "_respond", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            host.send(requests.execute_program(0))
    host.seq -= 1
    host.done(requests.execute_program(0))
    assert host.get(0, 1).tolist() == [4]


@pytest.mark.parametrize(
    ("change", "needed"),
    [({"act_bits": 4}, "act_bits must be 8"), ({"banks": 1}, "banks must be 2")],
)
def test_what_a_vector_unit_asks_of_the_core(change, needed):
    with pytest.raises(ConfigError, match=needed):
        replace(CONFIG, **change)


def test_the_unit_is_a_nested_record():
    values = CONFIG.to_dict()
    unit = {"words": 192, "lanes": 1, "multipliers": 1, "bfloat16": False, "steps": 512}
    assert values["vector"] == unit
    assert type(CONFIG).from_dict(values) == CONFIG
    assert "vector" not in TINY.to_dict()
    assert CONFIG.layout_digest != TINY.layout_digest
    for vector, message in (
        (5, "vector must be an object such as"),
        ({"word": 64}, "unknown key 'word' of vector; it has words, lanes, multipliers, bfloat16"),
        ({"words": 65}, "vector words must be a multiple of 32, not 65"),
    ):
        with pytest.raises(ConfigError, match=message):
            type(CONFIG).from_dict(values | {"vector": vector})
    with pytest.raises(ConfigError, match="vector must be None or a record"):
        replace(CONFIG, vector={"words": 64})
