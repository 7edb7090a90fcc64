"""Both alphabets at both widths of activations, from the packer to the driver."""

import dataclasses
import zlib
from itertools import pairwise, product

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Const

from tests.support import ROOT, quick_first
from tests.support.core import run_core
from tests.support.packets import assert_responses, run_packets
from tritloom.gen.emit.generate import generate
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import describe
from tritloom.gen.measure.engine import engine_config
from tritloom.host import TernaryLayer, connect
from tritloom.host.device import require_linear
from tritloom.host.models import run as model
from tritloom.rtl.engines import select
from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.engines.table import _steps
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.engines.table_walk import walk, walk_steps
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import LAYER, Opcode, Request, Response
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, SIGN2, SIGN9, encodings
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits, pack_weights, unpack_weights
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.engine import check_engine, run_words
from tritloom.sim.conformance.operands import random_codes, random_trits, weight_words
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify.run import verify
from tritloom.sim.verify.traffic import Traffic

ENGINES = {
    "base3x5": "select",
    "diff2": "select",
    "sign2": "select",
    "base3x5 tables": "table",
    "sym6x10": "table",
    "sign9": "table",
}
SIGNS = {"sign2": SIGN2, "sign9": SIGN9}


def config_of(name: str, act_bits: int, codes: int = 2, **values: object) -> AcceleratorConfig:
    """An engine and its encoding by a name of `ENGINES`, and `codes` codes in a row."""
    encoding = encodings[name.split()[0]]
    lanes = codes * encoding.trits_per_code
    defaults: dict = {
        "lanes": lanes,
        "rows": 2,
        "memory": {"kind": "bram", "words": 64},
        "max_in_features": 4 * lanes,
        "max_out_features": 20,
        "max_layers": 4,
        "packet_bytes": 128,
        "slots": 2,
        "engine": ENGINES[name],
        "encoding": encoding.name,
        "alphabet": encoding.alphabet,
        "act_bits": act_bits,
    }
    return AcceleratorConfig.from_dict(defaults | values)


def all_signs(group: int) -> np.ndarray:
    return np.array(list(product((-1, 1), repeat=group)), np.int8)


def test_alphabets_of_the_encodings():
    for name in (*SELECT.encodings, *TABLE.encodings):
        assert encodings[name].alphabet == ("binary" if name in SIGNS else "ternary")
    assert set(SIGNS) < {*SELECT.encodings, *TABLE.encodings}


@pytest.mark.parametrize("name", SIGNS)
def test_codes_of_signs(name):
    """Bit k tells that sign k + 1 is not the first one, the top bit that this is −1."""
    encoding, group = SIGNS[name], encodings[name].trits_per_code
    trits = all_signs(group)
    codes = encoding.encode(trits)
    assert codes.dtype == np.uint32 and sorted(codes.tolist()) == list(range(1 << group))
    assert encoding.code_bits == group and encoding.signed
    for signs, code in zip(trits.tolist(), codes.tolist(), strict=True):
        bits = [sign != signs[0] for sign in signs[1:]] + [signs[0] == -1]
        assert code == sum(bit << n for n, bit in enumerate(bits))
    decoded = encoding.decode(codes)
    assert decoded.dtype == np.int8 and (decoded == trits).all()
    assert (encoding.encode(-trits) ^ codes == 1 << group - 1).all()
    shaped = trits.reshape(2, -1, group)
    assert (encoding.decode(encoding.encode(shaped)) == shaped).all()
    assert encoding.decode(np.zeros(0, np.uint32)).shape == (0, group)


@pytest.mark.parametrize("group", [1, 2, 3, 9])
@pytest.mark.parametrize("signed", [False, True])
def test_binary_walk(group, signed):
    path = walk(group, signed, "binary")
    assert path[0] == (0,) * group
    for before, after in pairwise(path):
        steps = sorted(abs(b - a) for a, b in zip(before, after, strict=True))
        assert steps == [*[0] * (group - 1), 1]
    entries = [trits for trits in path if 0 not in trits]
    wanted = [trits for trits in product((-1, 1), repeat=group) if trits[0] == 1 or not signed]
    assert len(entries) == len(set(entries)) and set(entries) == set(wanted)
    assert path[-1] in wanted
    assert len(path) == group + 1 + 2 * (len(wanted) - 1) == walk_steps(group, signed, "binary")


@pytest.mark.parametrize(
    ("name", "steps"), [("base3x5", 248), ("sym6x10", 365), ("sign2", 5), ("sign9", 520)]
)
def test_steps_write_every_entry(name, steps):
    """Followed as the hardware does, from part to part, they leave each index its sum."""
    encoding = encodings[name]
    group, half = encoding.trits_per_code, encoding.signed
    table: dict[int, int] = {}
    decoded = _steps(encoding)
    assert len(decoded) == walk_steps(group, half, encoding.alphabet) == steps
    values = 3 ** np.arange(2 * group)
    address = -decoded[0]["move"]
    total = 0
    for part in (0, 1):
        for number, step in enumerate(decoded):
            address += step["move"]
            value = int(values[address])
            total = 0 if number == 0 else total - value if step["negative"] else total + value
            table[step["index"]] = total
        trits = np.array(list(product(ALPHABETS[encoding.alphabet], repeat=group)), np.int8)
        codes = encoding.encode(trits)
        of_rest = codes >> encoding.index_bits == 0
        sums = trits[of_rest].astype(np.int64) @ values[part * group : (part + 1) * group]
        assert table == dict(zip(codes[of_rest].tolist(), sums.tolist(), strict=True))


@pytest.mark.parametrize("name", SIGNS)
def test_packed_signs(name):
    """Random shapes there and back; what is beyond the layer is +1."""
    config = config_of(name, 8, 5, rows=3, fill=1)
    rng = np.random.default_rng(31)
    for number in range(20):
        rows, columns = int(rng.integers(1, 21)), int(rng.integers(1, 3 * config.lanes + 1))
        trits = random_trits(config, rng, (rows, columns))
        if number < 2:
            trits[:] = 2 * number - 1
        image = pack_weights(config, trits)
        shape = LayerShape.of(config, rows, columns)
        assert len(image) == shape.words * config.word_bytes
        assert (unpack_weights(config, image, rows, columns) == trits).all()
        whole = shape.row_groups * config.rows, shape.tiles * config.lanes
        padded = unpack_weights(config, image, *whole)
        assert (padded[rows:] == 1).all() and (padded[:, columns:] == 1).all()


def test_padding_is_in_the_alphabet(monkeypatch):
    """An encoding sees nothing but what it has codes for."""

    def encode(trits):
        assert trits.all()
        return SIGN2.encode(trits)

    strict = dataclasses.replace(SIGN2, encode=encode)
    encodings["sign2"]
    monkeypatch.setitem(encodings._loaded, "sign2", strict)
    config = config_of("sign2", 8)
    pack_weights(config, np.ones((3, 5), np.int8))


def test_bits_of_a_word():
    """Row by row nine bits; the second code's sign as it differs from the first one's."""
    config = config_of("sign9", 8)
    trits = np.ones((2, 18), np.int8)
    trits[0, [1, 3]] = trits[1, [0, 9, 17]] = -1
    word = int.from_bytes(pack_weights(config, trits), "little")
    codes = [word >> 9 * n & 511 for n in range(4)]
    assert codes == [0b0_0000_0101, 0, 0b1_1111_1111, 0b0_0111_1111]
    pairs = config_of("sign2", 8)
    assert pack_weights(pairs, np.array([[-1, 1, -1, -1]], np.int8)) == bytes([0b0011])


@pytest.mark.parametrize("name", SIGNS)
def test_zero_is_no_sign(name):
    config = config_of(name, 8)
    trits = np.ones((23, 5), np.int8)  # which a device holds in two pieces
    trits[22, 4] = trits[21, 3] = 0
    message = (
        "trits of a binary layer must be -1 or 1, not 0 at [21, 3]; "
        "use a device of the ternary alphabet"
    )
    with pytest.raises(InputError) as raised:
        pack_weights(config, trits)
    assert str(raised.value) == message
    with connect("golden", config=config) as device:
        before = device.info, device.counters().packets
        with pytest.raises(InputError) as raised:
            device.load(TernaryLayer.from_trits(trits, 1.0))
        assert str(raised.value) == message
        assert (device.info, device.counters().packets) == (before[0], before[1] + 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({"act_bits": n}, f"act_bits must be 4 or 8, not {n}") for n in (1, 2, 3, 7, 9, 16)),
        ({"act_bits": True}, "act_bits must be 4 or 8, not True"),
        (
            {"alphabet": "quinary"},
            "alphabet of the base3x5 encoding must be ternary, not 'quinary'",
        ),
        (
            {"engine": "table", "encoding": "sign9", "lanes": 9},
            "alphabet of the sign9 encoding must be binary, not 'ternary'",
        ),
        (
            {"engine": "table", "encoding": "sign9", "alphabet": "binary", "lanes": 20},
            "lanes must be a multiple of 9, not 20",
        ),
        (
            {"engine": "table", "encoding": "sign9", "alphabet": "binary", "lanes": 18, "fill": 9},
            "fill of the table engine must divide lanes / 9 = 2, not 9",
        ),
    ],
)
def test_refused(values, message):
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(TINY, **values)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("act_bits", "lanes", "widths"),
    [(8, 16, (13, 14, 2)), (4, 16, (9, 10, 2)), (4, 10, (8, 9, 2)), (4, 2, (6, 7, 1))],
)
def test_widths(act_bits, lanes, widths):
    config = dataclasses.replace(
        TINY, lanes=lanes, encoding="diff2", act_bits=act_bits, max_in_features=2 * lanes
    )
    assert (config.sum_bits, config.acc_bits, config.acc_bytes) == widths
    least, greatest = act_limits(config)
    assert (least, greatest) == ((-128, 127) if act_bits == 8 else (-8, 7))
    assert 1 << config.acc_bits - 2 <= -least * 2 * lanes < 1 << config.acc_bits - 1


@quick_first("act_bits", [4, 8])
@quick_first("name", ENGINES)
@pytest.mark.parametrize(("idle", "tokens", "fill"), [(0.0, 1, 2), (0.3, 3, 1)])
def test_engine(name, act_bits, idle, tokens, fill):
    config = config_of(name, act_bits, tokens=tokens, fill=fill, rows=3)
    check_engine(config, row_groups=3, idle=idle, seed=act_bits + tokens)


@quick_first(("act_bits", "fill"), [(4, 1), (8, 2)])
def test_every_entry_of_signs(act_bits, fill):
    """All 512 codes in each of four ports while the next tile is filled."""
    config = config_of("sign9", act_bits, fill=fill, tokens=2)
    lanes, rng = config.lanes, np.random.default_rng(32)
    least, greatest = act_limits(config)
    tiles = [np.full((2, lanes), value) for value in (least, greatest)]
    tiles += [random_codes(config, rng, (2, lanes)).astype(int) for _ in range(2)]
    n = np.arange(512)
    codes = np.stack([n, 511 - n, (7 * n + 3) % 512, 5 * n % 512], axis=-1)
    rows = all_signs(9)[codes].reshape(512, 2, 2, 9)
    rows = rows.transpose(0, 1, 3, 2) if fill == 2 else rows  # which then take turns
    rows = rows.reshape(512, 2, lanes)
    words = weight_words(config, rows.reshape(1024, lanes))
    acts = np.concatenate(tiles, axis=1).astype(np.int8)
    decoded = run_words(config, [words] * len(tiles), acts)
    expected = np.einsum("ktl,nrl->kntr", np.array(tiles), rows.astype(int))
    assert decoded == expected.reshape(-1, 4).tolist()


def test_signs_have_no_zeros(monkeypatch):
    """The masks of the `select` engine are constants, and have no registers."""

    def watched(m, signal, cycles, *, reset_less=False):
        assert not isinstance(signal, Const)
        return delay(m, signal, cycles, reset_less=reset_less)

    monkeypatch.setattr(select, "delay", watched)

    class Watched(select.SelectEngine):
        def _trits(self, m, row):
            decoded = super()._trits(m, row)
            masks.append(decoded[:2])
            return decoded

    masks: list = []
    rtlil.convert(Watched(config_of("sign2", 8)), emit_src=False)
    for zeros, nonzeros in masks:
        assert [bit.value for bit in zeros] == [0, 0] and [bit.value for bit in nonzeros] == [1, 1]
        assert all(type(bit) is Const for bit in (*zeros, *nonzeros))
    assert len(masks) == 2


@quick_first("act_bits", [4, 8])
@quick_first("name", ENGINES)
@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_core(name, act_bits, idle):
    config = config_of(name, act_bits, tokens=2, fill=2)
    shapes = [LayerShape(1, 1), LayerShape(2, 3), LayerShape(3, 10)]
    took, _ = run_core(config, shapes, idle=idle, pause=idle, seed=33)
    if not idle:
        assert took == [config.run_cycles(shape) for shape in shapes]


@pytest.mark.sim
@pytest.mark.parametrize("act_bits", [4, 8])
@pytest.mark.parametrize("name", ["sign2", "diff2", "sign9"])
def test_top(name, act_bits):
    """The bytes that LOAD brings are random: a 4-bit device keeps the low bits of each."""
    config = config_of(name, act_bits, tokens=2, fill=2)
    traffic = Traffic(config, 34 + act_bits)
    traffic.reset(3)
    traffic.product(0, 2, 3, 4)
    traffic.random(40)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    assert_responses(config, traffic.packets, responses)


def test_reference_keeps_the_low_bits():
    config = config_of("diff2", 4, rows=1)
    reference = ReferenceDevice(config)
    reference.process(Request(Opcode.RESET, session=1).pack())
    trits = np.array([[1, 0, 0, 0]], np.int8)
    image = pack_weights(config, trits)
    responses = []
    for seq, fields in enumerate(
        (
            {"opcode": Opcode.DEFINE, "payload": LAYER.pack(0, 1, 1)},
            {"opcode": Opcode.WRITE, "payload": image},
            {"opcode": Opcode.COMMIT, "address": 0},
            {"opcode": Opcode.LOAD, "payload": b"\x58\x7f\x00\x00"},
        ),
        start=1,
    ):
        if fields["opcode"] == Opcode.COMMIT:
            fields["address"] = zlib.crc32(image)
        responses.append(reference.process(Request(seq=seq, session=1, **fields).pack()))
    responses.append(reference.process(Request(Opcode.RUN, 5, 1, count=1).pack()))
    responses.append(reference.process(Request(Opcode.RESULTS, 6, 1, count=1).pack()))
    result = Response.parse(responses[-1])
    assert result.payload == b"\xf8\xff", "0x58 is −8"


def exact_products(device, config, count, tokens):
    """Random layers of every shape, larger than the device too, with extremes among them."""
    rng = np.random.default_rng(35)
    least, greatest = act_limits(config)
    for number in range(count):
        rows = int(rng.integers(1, config.max_out_features + 4))
        columns = int(rng.integers(1, config.max_in_features + 4))
        trits = random_trits(config, rng, (rows, columns))
        codes = random_codes(config, rng, (tokens, columns))
        codes[0, 0] = greatest
        if number % 4 == 0:
            trits[:], codes[:] = -1, least
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        assert np.array_equal(device.matmul(handle, codes), numerics.matmul(trits, codes))
        device.unload(handle)
    result = device.selftest()
    assert result.ok, str(result)
    assert "exact" in str(result)


@pytest.mark.parametrize("act_bits", [4, 8])
@pytest.mark.parametrize("name", ENGINES)
def test_golden_device(name, act_bits):
    config = config_of(name, act_bits, tokens=2)
    with connect("golden", config=config) as device:
        exact_products(device, config, 8, 3)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("name", "act_bits"),
    [
        ("sign9", 4),
        ("diff2", 4),
        *(
            pytest.param(name, act_bits, marks=pytest.mark.slow)
            for name, act_bits in product(ENGINES, (4, 8))
            if (name, act_bits) not in (("sign9", 4), ("diff2", 4))
        ),
    ],
)
def test_simulated_device(name, act_bits):
    config = config_of(name, act_bits, tokens=2, fill=2)
    with connect("sim", config=config) as device:
        exact_products(device, config, 100, 3)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("name", "act_bits"),
    [
        ("sign2", 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("base3x5", 4), ("sym6x10", 4), ("sign9", 4), ("sign9", 8))
        ),
    ],
)
def test_benches(name, act_bits, tmp_path):
    """`tritloom verify` of what `tritloom generate` wrote."""
    generate(config_of(name, act_bits, tokens=2, fill=2), tmp_path)
    result = verify(tmp_path)
    assert result.ok, [bench for bench in result.benches if not bench.ok]


def test_manifest():
    config = config_of("sign9", 4, fill=2)
    described = describe(config)
    assert described["config"]["act_bits"] == 4 and described["config"]["alphabet"] == "binary"
    example = described["weights"]["example"]
    trits = np.array(example["trits"], np.int8)
    assert example["trits"] == [-1, 1, -1, 1, -1, 1, -1, 1, -1]
    assert example["code"] == SIGN9.encode(trits) == 0b1_0101_0101
    header = c_header(described)
    for line in (
        "TRITLOOM_ACT_BITS 4",
        'TRITLOOM_ALPHABET "binary"',
        "TRITLOOM_CODE_TRITS 9",
        "TRITLOOM_CODE_SIGNED 1",
    ):
        assert f"#define {line}\n" in header


@pytest.mark.parametrize(("wrong", "place"), [(8, (1, 2)), (-9, (2, 0)), (127, (0, 4))])
def test_codes_that_a_device_cannot_hold(wrong, place):
    config = config_of("diff2", 4)
    codes = np.zeros((3, 5), np.int8)
    codes[0, 0], codes[0, 1] = 7, -8
    with connect("golden", config=config) as device:
        handle = device.load(TernaryLayer.from_trits(np.ones((1, 5), np.int8), 1.0))
        assert device.matmul(handle, codes)[:, 0].tolist() == [-1, 0, 0]
        codes[place] = wrong
        with pytest.raises(InputError) as raised:
            device.matmul(handle, codes)
        row, column = place
        assert str(raised.value) == (
            f"codes must be -8 to 7 on a device of 4-bit activations, not {wrong} "
            f"at [{row}, {column}]; quantize to 4 bits"
        )
        codes[place] = 0
        assert device.matmul(handle, codes).shape == (3, 1)


NOT_8_BITS = (
    "a layer of floats needs 8-bit activations, the device has 4-bit ones; use matmul with codes "
    "of your own quantizer or a device with act_bits 8"
)


def test_floats_need_8_bits():
    config = config_of("diff2", 4)
    with connect("golden", config=config) as device:
        handle = device.load(TernaryLayer.from_trits(np.ones((1, 5), np.int8), 1.0))
        with pytest.raises(InputError) as raised:
            device.linear(handle, np.zeros((1, 5), np.float32))
        assert str(raised.value) == NOT_8_BITS
    require_linear(config_of("diff2", 8))


def test_a_model_needs_8_bits(monkeypatch):
    """Before a layer is loaded."""
    device = connect("golden", config=config_of("diff2", 4))
    monkeypatch.setattr(model, "connect", lambda url: device)
    monkeypatch.setattr(model, "known_config", lambda url: device.info.config)
    path = ROOT / "models" / "tinylm"
    loaded: list[bool] = []
    with pytest.raises(InputError) as raised:
        model.run_model(path, "golden", "a", 1, loading=lambda *_: loaded.append(True))
    assert str(raised.value) == NOT_8_BITS
    assert not loaded


@pytest.mark.parametrize(("engine", "encoding"), [("select", "sign2"), ("table", "sign9")])
def test_encoding_to_measure(engine, encoding):
    config = engine_config("ecp5", engine, alphabet="binary", lanes=18, rows=1, act_bits=4)
    assert (config.encoding, config.act_bits) == (encoding, 4)
    assert encodings[engine_config("ecp5", engine).encoding].alphabet == "ternary"
