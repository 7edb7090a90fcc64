"""Packed weights in a file: they are what the packer makes, and every damage shows."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tritloom.host import connect
from tritloom.host.allocator import cut_layer
from tritloom.host.layer import TernaryLayer
from tritloom.host.packed_file import ALIGN, PREFIX, PackedFile, write_packed
from tritloom.host.placement import load_placed, place_layers
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError, InputError
from tritloom.rtl.spec.packing import pack_weights

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=3,
    memory=BlockRam(words=1024),
    max_in_features=60,
    max_out_features=30,
)
RNG = np.random.default_rng(14)
LAYERS = {
    name: TernaryLayer.from_trits(RNG.integers(-1, 2, shape).astype(np.int8), 0.5)
    for name, shape in (("a", (31, 77)), ("b", (1, 1)), ("c", (30, 60)))
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.packed"
    write_packed(path, CONFIG, LAYERS)
    return path


def test_images(path):
    """Each piece of each layer is the packer's image of it."""
    file = PackedFile(path, CONFIG)
    assert file.names == tuple(LAYERS)
    for name, layer in LAYERS.items():
        pieces = cut_layer(CONFIG, *layer.trits.shape)
        images = file.images(name, layer)
        assert len(images) == len(pieces) == (4 if name == "a" else 1)
        for image, (row, rows, column, columns) in zip(images, pieces, strict=True):
            trits = layer.trits[row : row + rows, column : column + columns]
            assert image == pack_weights(CONFIG, trits)


def test_a_device_loads_them(path):
    file = PackedFile(path, CONFIG)
    with connect("golden", config=CONFIG) as device:
        for name, layer in LAYERS.items():
            handle = device.load(layer, file.images(name, layer))
            codes = RNG.integers(-128, 128, (2, layer.in_features)).astype(np.int8)
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(layer.trits, codes))
        with pytest.raises(InputError) as raised:
            device.load(LAYERS["b"], file.images("c", LAYERS["c"]))
        assert str(raised.value) == (
            "images must have [6] bytes for 1 × 1 on this device, not [360]; pack the layer for it"
        )


def test_placed_layers(path):
    """A layer that the device has as a whole is not packed again; a part of one is."""
    file = PackedFile(path, CONFIG)
    asked = []

    def images(name, layer):
        asked.append(name)
        return file.images(name, layer)

    config = replace(CONFIG, memory=BlockRam(words=80))
    with connect("golden", config=config) as device:
        placement = place_layers(config, {n: each.trits.shape for n, each in LAYERS.items()})
        assert [each.where for each in placement.layers] == ["device and host", "device", "device"]
        whole = [each.name for each in placement.layers if each.where == "device"]
        for each in placement.layers:
            layer = LAYERS[each.name]
            placed = load_placed(device, layer, each, images)
            codes = RNG.integers(-128, 128, (2, layer.in_features)).astype(np.int8)
            assert np.array_equal(placed.matmul(codes), numerics.matmul(layer.trits, codes))
    assert asked == whole == ["b", "c"]


def test_progress(tmp_path):
    seen = []
    write_packed(tmp_path / "a", CONFIG, LAYERS, lambda done, total: seen.append((done, total)))
    total = 31 * 77 + 1 + 1800
    assert seen[-1] == (total, total) and len(seen) == 6
    assert seen == sorted(seen)


def test_another_device(path):
    """What the images depend on must be the same; a clock or a memory need not."""
    same = replace(CONFIG, clock_hz=50_000_000, memory=BlockRam(words=64))
    assert PackedFile(path, same).images("b", LAYERS["b"])
    for config, was, now in (
        (replace(CONFIG, lanes=20, rows=1), "lanes 10, rows 3", "lanes 20, rows 1"),
        (replace(CONFIG, encoding="diff2"), "encoding base3x5", "encoding diff2"),
        (replace(CONFIG, engine="table", fill=2), "code_stride 1", "code_stride 2"),
        (replace(CONFIG, max_in_features=70), "max_in_features 60", "max_in_features 70"),
    ):
        with pytest.raises(CheckpointError) as raised:
            PackedFile(path, config)
        assert str(raised.value) == (
            f"{path} was packed for a device with {was}, this one has {now}; "
            "remove it, and it is packed again"
        )


def test_other_weights(path):
    file = PackedFile(path, CONFIG)
    trits = LAYERS["c"].trits.copy()
    trits[29, 59] = 1 - abs(trits[29, 59])
    message = f"{path}: c was packed from other weights than the model has; remove it, and it is"
    with pytest.raises(CheckpointError, match=message):
        file.images("c", TernaryLayer.from_trits(trits, 0.5))
    with pytest.raises(CheckpointError, match=r"b is 1 × 1 there, not 30 × 60; remove it"):
        file.images("b", LAYERS["c"])
    with pytest.raises(CheckpointError, match="has no layer 'd'; remove it"):
        file.images("d", LAYERS["c"])


def test_every_damaged_byte_shows(path):
    """A bit of any image, of the directory, of the prefix; and a file that is cut short."""
    whole = path.read_bytes()
    _, _, start, length, _ = PREFIX.unpack_from(whole)
    places = [0, 8, 12, 20, 28, start, start + length - 1]
    places += [ALIGN, ALIGN + pack_size("a") - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as raised:
            read_all(path)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
        if place >= ALIGN and place < start:
            message = f"{path} is damaged: the checksum of a is wrong"
            assert str(raised.value) == f"{message}; remove it, and it is packed again"
    for size in (0, 5, PREFIX.size, ALIGN, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"is damaged: it has|is no file of packed"):
            PackedFile(path, CONFIG)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"cannot read {path}: No such file"):
        PackedFile(path, CONFIG)


def read_all(path):
    file = PackedFile(path, CONFIG)
    for name, layer in LAYERS.items():
        file.images(name, layer)


def pack_size(name):
    _, rows, _, columns = cut_layer(CONFIG, *LAYERS[name].trits.shape)[0]
    return len(pack_weights(CONFIG, LAYERS[name].trits[:rows, :columns]))


def test_the_directory_is_json(path):
    whole = path.read_bytes()
    magic, number, start, length, crc32 = PREFIX.unpack_from(whole)
    assert (magic, number) == (b"TRITPACK", 1)
    assert zlib.crc32(whole[start:]) == crc32
    directory = json.loads(whole[start : start + length])
    assert [entry["name"] for entry in directory["layers"]] == list(LAYERS)


def test_nothing_is_left_of_a_file_that_fails(tmp_path):
    """Weights that the alphabet does not have, and a folder that is not there."""
    binary = replace(CONFIG, alphabet="binary", encoding="sign2")
    with pytest.raises(InputError, match="trits of a binary layer must be -1 or 1, not 0"):
        write_packed(tmp_path / "a", binary, LAYERS)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"^cannot write .*: No such file.*; choose another file$"):
        write_packed(tmp_path / "none" / "a", CONFIG, LAYERS)
