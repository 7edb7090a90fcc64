"""The packer: the order of bits, bytes and words, and its inverse."""

import numpy as np
import pytest

from tests import plugins
from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.errors import InputError
from tritloom.rtl.packing import (
    BASE3X5,
    LayerShape,
    encodings,
    pack_activations,
    pack_results,
    pack_weights,
    unpack_results,
    unpack_weights,
)

plugins.register()


def config_of(lanes: int = 10, rows: int = 3, **values: object) -> AcceleratorConfig:
    defaults: dict = {"memory_words": 64, "max_in_features": 200, "max_out_features": 90}
    return AcceleratorConfig(lanes=lanes, rows=rows, **(defaults | values))


CONFIGS = {
    "5x1": config_of(5, 1),
    "10x3": config_of(10, 3, fill=2, tokens=2),
    "40x8": config_of(40, 8),
    "signed 6x1": config_of(6, 1, engine="test-signed", encoding="test-signed"),
    "signed 12x3": config_of(12, 3, engine="test-signed", encoding="test-signed"),
}


def all_groups(group: int) -> np.ndarray:
    digits = np.arange(3**group)[:, None] // 3 ** np.arange(group) % 3
    return (digits - 1).astype(np.int8)


def trits_by_hand(config: AcceleratorConfig, image: bytes, row: int, column: int) -> int:
    """One trit of an image, found as the text of the module says where it is."""
    encoding = encodings[config.encoding]
    out_groups = len(image) // config.word_bytes // -(-COLUMNS[config] // config.lanes)
    word = column // config.lanes * out_groups + row // config.rows
    number = int.from_bytes(image[word * config.word_bytes :][: config.word_bytes], "little")
    lane = column % config.lanes
    code = row % config.rows * (config.lanes // encoding.group) + lane // encoding.group
    bits = number >> code * encoding.code_bits & (1 << encoding.code_bits) - 1
    return int(encoding.decode(np.array([bits], np.uint32))[0, lane % encoding.group])


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


def test_nothing_decodes_to_nothing():
    assert BASE3X5.decode(np.zeros(0, np.uint32)).shape == (0, 5)


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
        assert shape.words == shape.tiles * shape.groups
        assert len(image) == shape.words * config.word_bytes
        found = unpack_weights(config, image, rows, columns)
        assert found.dtype == np.int8 and (found == trits).all()
        whole = unpack_weights(
            config, image, shape.groups * config.rows, shape.tiles * config.lanes
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
    found = unpack_results(config, payload)
    assert found.dtype == np.int32 and (found == sums).all()
    assert unpack_results(config, b"").shape == (0,)
