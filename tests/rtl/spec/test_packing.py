"""The packer: the order of bits, bytes and words, and its inverse."""

import dataclasses

import numpy as np
import pytest

from tests.support import plugins
from tritloom.rtl.engines import select_facts
from tritloom.rtl.spec import config as config_module
from tritloom.rtl.spec import packing
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, BASE3X5, DIFF2, SYM6X10, encodings
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import (
    pack_activations,
    pack_into,
    pack_results,
    pack_weights,
    unpack_results,
    unpack_weights,
)
from tritloom.rtl.spec.plugins import engines

plugins.register()


def config_of(lanes: int = 10, rows: int = 3, **values: object) -> AcceleratorConfig:
    defaults: dict = {
        "memory": {"kind": "bram", "words": 64},
        "max_in_features": 200,
        "max_out_features": 90,
    }
    return AcceleratorConfig.from_dict({"lanes": lanes, "rows": rows} | defaults | values)


CONFIGS = {
    "5x1": config_of(5, 1),
    "10x3": config_of(10, 3, fill=2, tokens=2),
    "40x8": config_of(40, 8),
    "signed 6x1": config_of(6, 1, engine="test-signed", encoding="test-signed"),
    "signed 12x3": config_of(12, 3, engine="test-signed", encoding="test-signed"),
    "pairs 2x1": config_of(2, 1, encoding="diff2"),
    "pairs 14x3": config_of(14, 3, encoding="diff2"),
    "tables 20x3": config_of(20, 3, engine="table", fill=2),
    "tables 42x2": config_of(42, 2, engine="table", encoding="sym6x10", fill=7),
    "tables 36x3": config_of(36, 3, engine="table", encoding="sym6x10", fill=2),
}


def all_groups(group: int) -> np.ndarray:
    digits = np.arange(3**group)[:, None] // 3 ** np.arange(group) % 3
    return (digits - 1).astype(np.int8)


def trits_by_hand(config: AcceleratorConfig, image: bytes, row: int, column: int) -> int:
    """One trit of an image, found as the text of the module says where it is."""
    encoding, stride = encodings[config.encoding], engines[config.engine].code_stride(config)
    out_groups = len(image) // config.word_bytes // -(-COLUMNS[config] // config.lanes)
    word = column // config.lanes * out_groups + row // config.rows
    number = int.from_bytes(image[word * config.word_bytes :][: config.word_bytes], "little")
    # Of a block of group · stride inputs, stride codes take turns: they are as many blocks apart.
    block, inside = divmod(column % config.lanes, encoding.trits_per_code * stride)
    place, turn = divmod(inside, stride)
    codes = config.lanes // encoding.trits_per_code
    code = turn * (codes // stride) + block
    first = row % config.rows * codes

    def bits_of(code: int) -> int:
        return number >> (first + code) * encoding.code_bits & (1 << encoding.code_bits) - 1

    bits = bits_of(code)
    if encoding.signed:
        # Its sign is the parity of those on the way to code 0, each time without the lowest one.
        top = 1 << encoding.code_bits - 1
        while code:
            code &= code - 1
            bits ^= bits_of(code) & top
    return int(encoding.decode(np.array([bits], np.uint32))[0, place])


COLUMNS: dict[AcceleratorConfig, int] = {}


def test_base3x5_codes():
    trits = all_groups(5)
    assert BASE3X5.encode(trits).tolist() == list(range(243))
    assert (BASE3X5.decode(np.arange(243, dtype=np.uint32)) == trits).all()
    assert BASE3X5.encode(np.array([[1, 0, -1, 0, 0]], np.int8)).tolist() == [121 + 1 - 9]


@pytest.mark.parametrize("code", range(243, 256))
def test_base3x5_refuses(code):
    message = f"base3x5 code must be at most 242, not {code}; repack the weights"
    with pytest.raises(InputError) as raised:
        BASE3X5.decode(np.array([0, code], np.uint32))
    assert str(raised.value) == message


def test_sym6x10_codes():
    """The size of Σ tᵢ·3^i, and above it whether it is negative."""
    trits = all_groups(6)
    numbers = (trits * 3 ** np.arange(6)).sum(-1)
    assert numbers.tolist() == list(range(-364, 365))
    codes = np.abs(numbers) + 512 * (numbers < 0)
    assert SYM6X10.encode(trits).tolist() == codes.tolist()
    assert (SYM6X10.decode(codes.astype(np.uint32)) == trits).all()
    assert SYM6X10.encode(np.array([[1, 0, -1, 0, 0, 0]], np.int8)).tolist() == [512 + 9 - 1]


def test_sym6x10_refuses():
    wrong = [*range(365, 512), 512, *range(512 + 365, 1024)]
    assert 1024 - len(wrong) == 3**6
    for code in wrong:
        with pytest.raises(InputError) as raised:
            SYM6X10.decode(np.array([0, code, 1], np.uint32))
        assert str(raised.value) == (
            f"sym6x10 code must be a sign and a number up to 364, not {code}; repack the weights"
        )


def test_diff2_codes():
    """Bits: first is 0, second is not, their signs differ, sign."""
    codes = {
        (0, 0): 0b0001,
        (1, 0): 0b0000,
        (-1, 0): 0b1000,
        (0, 1): 0b0011,
        (0, -1): 0b1011,
        (1, 1): 0b0010,
        (-1, -1): 0b1010,
        (1, -1): 0b0110,
        (-1, 1): 0b1110,
    }
    trits = np.array(list(codes), np.int8)
    assert DIFF2.encode(trits).tolist() == list(codes.values())
    decoded = DIFF2.decode(np.array(list(codes.values()), np.uint32))
    assert decoded.dtype == np.int8 and (decoded == trits).all()
    for code in set(range(16)) - set(codes.values()):
        with pytest.raises(InputError) as raised:
            DIFF2.decode(np.array([1, code], np.uint32))
        assert str(raised.value) == f"diff2 code must not be {code}; repack the weights"


@pytest.mark.parametrize("name", ["base3x5", "sym6x10", "diff2"])
def test_facts_of_an_encoding(name):
    encoding = encodings[name]
    trits = all_groups(encoding.trits_per_code)
    codes = encoding.encode(trits)
    assert codes.dtype == np.uint32 and codes.max() < 1 << encoding.code_bits
    assert len(set(codes.tolist())) == 3**encoding.trits_per_code
    assert encoding.index_bits == encoding.code_bits - encoding.signed
    if encoding.signed:  # the rest of a code and of its negative is the same
        nonzero = trits.any(-1)
        assert (encoding.encode(-trits)[nonzero] ^ codes[nonzero] == 1 << encoding.index_bits).all()
        assert codes[~nonzero] < 1 << encoding.index_bits
    # Any shape of codes.
    shaped = trits.reshape(3, -1, encoding.trits_per_code)
    assert (encoding.decode(encoding.encode(shaped)) == shaped).all()
    assert encoding.decode(np.zeros(0, np.uint32)).shape == (0, encoding.trits_per_code)


@pytest.mark.parametrize("codes", range(1, 18))
def test_signs_of_a_word(codes):
    """That of code i as it differs from code i & (i − 1)'s; the other bits stay."""
    config = config_of(2 * codes, 2, encoding="diff2")
    rng = np.random.default_rng(codes)
    for _ in range(20):
        trits = rng.integers(-1, 2, (2, 2 * codes)).astype(np.int8)
        image = pack_weights(config, trits)
        number = int.from_bytes(image, "little")
        plain = DIFF2.encode(trits.reshape(2 * codes, 2)).reshape(2, codes).tolist()
        decoded = [[number >> 4 * (row * codes + n) & 15 for n in range(codes)] for row in (0, 1)]
        for had, has in zip(plain, decoded, strict=True):
            assert [code & 7 for code in has] == [code & 7 for code in had]
            assert has[0] == had[0]
            for n in range(1, codes):
                assert has[n] >> 3 == had[n] >> 3 ^ had[n & (n - 1)] >> 3
        assert (unpack_weights(config, image, 2, 2 * codes) == trits).all()


def test_codes_take_turns():
    """Inputs of a code are `code_stride` apart: with fill 2, every other one of twelve."""
    config = config_of(24, 1, engine="table", encoding="sym6x10", fill=2)
    for lane in range(24):
        trits = np.zeros((1, 24), np.int8)
        trits[0, lane] = 1
        number = int.from_bytes(pack_weights(config, trits), "little")
        code = lane % 2 * 2 + lane // 12
        assert number == 3 ** (lane % 12 // 2) << 10 * code


@pytest.mark.parametrize(
    ("values", "image", "message"),
    [
        (
            {"lanes": 12, "engine": "table", "encoding": "sym6x10"},
            # Code 1 is 0 and has the sign of code 0: relative to it, none; so it needs one.
            (1 << 9 | 1).to_bytes(3, "little"),
            "sym6x10 code must be a sign and a number up to 364, not 512; repack the weights",
        ),
        (
            {"lanes": 4, "encoding": "diff2"},
            b"\x18",
            "diff2 code must not be 9; repack the weights",
        ),
    ],
)
def test_wrong_code_in_an_image(values, image, message):
    config = config_of(**{"rows": 1} | values)
    with pytest.raises(InputError) as raised:
        unpack_weights(config, image, 1, config.lanes)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", CONFIGS)
def test_random_shapes(name):
    config = CONFIGS[name]
    rng = np.random.default_rng(17)
    for number in range(30):
        rows, columns = int(rng.integers(1, 91)), int(rng.integers(1, 201))
        trits = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
        if number < 3:
            trits[:] = number - 1
        image = pack_weights(config, trits)
        shape = LayerShape.of(config, rows, columns)
        assert shape == LayerShape(-(-columns // config.lanes), -(-rows // config.rows))
        assert shape.words == shape.tiles * shape.row_groups
        assert len(image) == shape.words * config.word_bytes
        decoded = unpack_weights(config, image, rows, columns)
        assert decoded.dtype == np.int8 and (decoded == trits).all()
        whole = unpack_weights(
            config, image, shape.row_groups * config.rows, shape.tiles * config.lanes
        )
        assert not whole[rows:].any() and not whole[:, columns:].any(), "padding is trit 0"
        COLUMNS[config] = columns
        for _ in range(20):
            row, column = int(rng.integers(rows)), int(rng.integers(columns))
            assert trits_by_hand(config, image, row, column) == trits[row, column]


@pytest.mark.parametrize("name", CONFIGS)
def test_bits_beyond_a_word_are_zero_and_ignored(name):
    config = CONFIGS[name]
    spare = 8 * config.word_bytes - config.word_bits
    trits = np.ones((config.rows, config.lanes), np.int8)
    image = bytearray(pack_weights(config, trits))
    assert image[-1] >> (8 - spare) == 0
    image[-1] |= 0xFF << (8 - spare) & 0xFF
    assert (unpack_weights(config, bytes(image), config.rows, config.lanes) == trits).all()


def test_bytes_of_a_layer():
    """Two tiles × two groups: tile by tile, in it group by group, in a word row by row."""
    config = config_of(5, 2)
    trits = np.zeros((4, 10), np.int8)
    trits[0, 0], trits[1, 1], trits[2, 5], trits[3, 9] = 1, -1, 1, -1
    zero = 121
    assert pack_weights(config, trits) == bytes(
        [zero + 1, zero - 3, zero, zero, zero, zero, zero + 1, zero - 81]
    )


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_image_of_another_size(size):
    with pytest.raises(InputError) as raised:
        unpack_weights(config_of(5, 2), bytes(size), 3, 7)
    assert str(raised.value) == f"image must have 8 bytes for 3 × 7, not {size}"


@pytest.mark.parametrize("columns", [1, 4, 5, 6, 10])
def test_activations(columns):
    codes = np.arange(-128, -128 + columns).astype(np.int8)
    image = pack_activations(config_of(5, 1), codes)
    assert len(image) == -(-columns // 5) * 5
    assert image == codes.tobytes() + bytes(len(image) - columns)


@pytest.mark.parametrize(("features", "size"), [(5, 2), (200, 2), (255, 2), (260, 3), (16384, 3)])
def test_results(features, size):
    config = config_of(5, 1, max_in_features=features)
    assert config.acc_bytes == size
    high = (1 << 8 * size - 1) - 1
    rng = np.random.default_rng(18)
    sums = rng.integers(-high - 1, high + 1, 50).astype(np.int32)
    sums[:4] = 0, -1, high, -high - 1
    payload = pack_results(config, sums)
    assert len(payload) == 50 * size
    assert payload[size : 2 * size] == b"\xff" * size
    assert payload[2 * size : 3 * size] == high.to_bytes(size, "little")
    decoded = unpack_results(config, payload)
    assert decoded.dtype == np.int32 and (decoded == sums).all()
    assert unpack_results(config, b"").shape == (0,)


@pytest.mark.parametrize("name", ["base3x5", "sym3x5", "sym6x10"])
def test_codes_by_number(name):
    """The quick way gives the codes of the plain one, for every group of trits."""
    encoding = encodings[name]
    trits = all_groups(encoding.trits_per_code)
    numbers = (trits * 3 ** np.arange(encoding.trits_per_code)).sum(-1)
    numbers = numbers.astype(np.int8 if encoding.trits_per_code <= 5 else np.int16)
    before = numbers.copy()
    assert np.array_equal(encoding.encode_numbers(numbers), encoding.encode(trits))
    assert np.array_equal(numbers, before)


QUICK = {
    "select 5x1": ("select", "base3x5", 5, 1, 1),
    "select 40x3": ("select", "base3x5", 40, 3, 1),
    "pairs 14x3": ("select", "diff2", 14, 3, 1),
    "table 20x1": ("table", "base3x5", 20, 1, 1),
    "table 20x3, 2 apart": ("table", "base3x5", 20, 3, 2),
    "table 42x2, 7 apart": ("table", "sym6x10", 42, 2, 7),
    "table 36x3, 2 apart": ("table", "sym6x10", 36, 3, 2),
    "table 42x1": ("table", "sym6x10", 42, 1, 1),
    "table 12x3": ("table", "sym3x5", 12, 3, 2),
    "signs 6x2": ("select", "sign2", 6, 2, 1),
    "signs 36x2": ("table", "sign9", 36, 2, 2),
    "signed 12x3": ("test-signed", "test-signed", 12, 3, 1),
}


@pytest.mark.parametrize("piece_trits", [1, 300, 1 << 18])
@pytest.mark.parametrize("name", QUICK)
def test_the_quick_way_gives_the_same_image(name, piece_trits, monkeypatch):
    """In pieces of any size, with rows and columns that fill no group and no tile.

    With a table in place of the arithmetic too.
    """
    engine, encoding, lanes, rows, fill = QUICK[name]
    alphabet = encodings[encoding].alphabet
    config = config_of(lanes, rows, engine=engine, encoding=encoding, fill=fill, alphabet=alphabet)
    monkeypatch.setattr(packing, "_PIECE_TRITS", piece_trits)
    by_table = dataclasses.replace(encodings[encoding], encode_numbers=None)
    rng = np.random.default_rng(lanes)
    for shape in ((rows, lanes), (23, 77), (1, 1), (37, 2 * lanes)):
        trits = rng.integers(-1, 2, shape).astype(np.int8)
        if alphabet == "binary":
            trits = np.where(trits < 0, -1, 1).astype(np.int8)
        image = pack_weights(config, trits)
        assert pack_weights(config, np.asfortranarray(trits)) == image
        with monkeypatch.context() as patch:
            patch.setattr(packing, "encodings", {encoding: by_table})
            assert pack_weights(config, trits) == image
        with monkeypatch.context() as patch:
            patch.setattr(packing, "_MOST_DIGITS", 0)
            assert pack_weights(config, trits) == image
            assert pack_weights(config, np.asfortranarray(trits)) == image


@pytest.mark.parametrize(
    ("trits_per_code", "code_bits", "signed"),
    [(4, 8, False), (4, 4, False), (5, 8, False), (5, 8, True), (8, 8, False)],
)
def test_codes_of_a_byte(trits_per_code, code_bits, signed, monkeypatch):
    """Also codes that the packer of bytes must not take: relative signs, more trits, less bits."""
    plain = encodings["base3x5" if trits_per_code == 5 else "sign2"]
    powers = 3 ** np.arange(trits_per_code)

    def encode(trits):
        numbers = (trits * powers).sum(-1)
        if signed:
            return (abs(numbers) | (numbers < 0) << 7).astype(np.uint32)
        if trits_per_code == 5:
            return plain.encode(trits)
        return ((trits > 0) << np.arange(trits_per_code)).sum(-1).astype(np.uint32)

    made = dataclasses.replace(
        plain,
        trits_per_code=trits_per_code,
        code_bits=code_bits,
        signed=signed,
        encode=encode,
        encode_numbers=None,
    )
    for module in (packing, config_module, select_facts):
        monkeypatch.setattr(module, "encodings", {made.name: made})
    config = config_of(
        4 * trits_per_code, 3, encoding=made.name, alphabet=made.alphabet, max_in_features=320
    )
    trits = np.random.default_rng(8).choice(ALPHABETS[made.alphabet], (13, 77)).astype(np.int8)
    image = pack_weights(config, trits)
    monkeypatch.setattr(packing, "_MOST_DIGITS", 0)
    assert image == pack_weights(config, trits)


@pytest.mark.parametrize("digits", range(1, 6))
def test_numbers_of_adjacent_trits(digits):
    trits = all_groups(digits)
    numbers = packing._adjacent_numbers(trits.reshape(-1), digits)
    assert numbers.dtype == np.int8
    assert np.array_equal(numbers, (trits * 3 ** np.arange(digits)).sum(-1))


def test_extreme_weights():
    """All trits of one sign: the greatest numbers of every code."""
    for name in ("table 42x2, 7 apart", "select 40x3"):
        engine, encoding, lanes, rows, fill = QUICK[name]
        config = config_of(lanes, rows, engine=engine, encoding=encoding, fill=fill)
        for value in (-1, 1):
            trits = np.full((rows + 1, lanes + 7), value, np.int8)
            assert np.array_equal(
                unpack_weights(config, pack_weights(config, trits), *trits.shape), trits
            )


def test_pack_into():
    """Into an array of the caller's, with progress by rows."""
    config = CONFIGS["40x8"]
    trits = np.random.default_rng(3).integers(-1, 2, (37, 77)).astype(np.int8)
    image = np.full(LayerShape.of(config, 37, 77).words * config.word_bytes, 0xA5, np.uint8)
    rows = []
    pack_into(config, trits, image, rows.append)
    assert image.tobytes() == pack_weights(config, trits)
    assert rows == [37]
    with pytest.raises(InputError) as raised:
        pack_into(config, trits, image[1:])
    assert str(raised.value) == (
        f"image must have {image.size} bytes for 37 × 77, not {image.size - 1}"
    )


def test_progress(monkeypatch):
    config = CONFIGS["10x3"]
    monkeypatch.setattr(packing, "_PIECE_TRITS", 4 * 3 * 10)
    trits = np.zeros((31, 10), np.int8)
    image = np.empty(LayerShape.of(config, 31, 10).words * config.word_bytes, np.uint8)
    rows = []
    pack_into(config, trits, image, rows.append)
    assert rows == [12, 24, 31]


def test_a_table_has_the_trits_of_the_alphabet_alone(monkeypatch):
    """An encoding of signs need not know what a code of zeros is."""
    config = config_of(6, 2, encoding="sign2", alphabet="binary")
    plain = encodings["sign2"]

    def encode(trits):
        assert trits.all()
        return plain.encode(trits)

    trits = np.where(np.arange(60).reshape(5, 12) % 7 < 3, -1, 1).astype(np.int8)
    image = pack_weights(config, trits)
    monkeypatch.setattr(packing, "encodings", {"sign2": dataclasses.replace(plain, encode=encode)})
    assert pack_weights(config, trits) == image


def test_a_zero_that_the_alphabet_does_not_have():
    config = config_of(6, 2, encoding="sign2", alphabet="binary")
    trits = np.ones((4, 6), np.int8)
    trits[3, 2] = 0
    message = r"^trits of a binary layer must be -1 or 1, not 0 at \[3, 2\]; use a device of the"
    with pytest.raises(InputError, match=message):
        pack_weights(config, trits)
