"""`tritloom.gen.emit.pack`: the image, what a driver must know of it, and its errors."""

import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.gen.emit.pack import pack, read_layer
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import LAYER
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.packing import pack_weights, unpack_weights

GROUPS = replace(TINY, max_in_features=30, max_group_sums=32)
TRITS = np.random.default_rng(3).integers(-1, 2, (15, 18)).astype(np.int8)


@pytest.fixture
def archive(tmp_path):
    file = tmp_path / "layers.npz"
    scale = np.float32(1.5)
    np.savez(
        file,
        **{"first.trits": TRITS, "first.scale": scale},
        **{"second.trits": -TRITS, "second.scale": scale},
    )
    return file


def test_files(tmp_path):
    layer, files = pack(TINY, TRITS, tmp_path / "out", "layer")
    assert [file.name for file in files] == ["layer.bin", "layer.h", "layer.json"]
    image = files[0].read_bytes()
    assert image == pack_weights(TINY, TRITS)
    assert (unpack_weights(TINY, image, 15, 18) == TRITS).all()
    facts = json.loads(files[2].read_text())
    assert facts == {
        "in_features": 18,
        "out_features": 15,
        "tiles": 4,
        "row_groups": 8,
        "groups": 1,
        "group_features": 18,
        "group_tiles": 0,
        "words": 32,
        "word_bytes": 2,
        "image_bytes": len(image),
        "crc32": zlib.crc32(image),
        "layout_digest": TINY.layout_digest.hex(),
    }
    assert LAYER.pack(0, layer.tiles, layer.row_groups) == b"\0\0\0\0\4\0\x08\0\0\0"


def test_groups_of_inputs(tmp_path):
    layer, files = pack(GROUPS, TRITS, tmp_path, "layer", 9)
    assert (layer.groups, layer.group_features, layer.group_tiles) == (2, 9, 2)
    assert (layer.tiles, layer.row_groups, layer.words) == (4, 8, 32)
    image = files[0].read_bytes()
    assert image == pack_weights(GROUPS, TRITS, 9)
    assert (unpack_weights(GROUPS, image, 15, 18, 9) == TRITS).all()
    for config, group, message in (
        (GROUPS, 6, "row groups of sums of the layer must be at most 16 on this device, not 24"),
        (GROUPS, 7, "group must divide the 18 inputs of the layer, not be 7"),
        (TINY, 9, "group must be 0 on a device without groups of inputs, not 9"),
    ):
        with pytest.raises(InputError) as error:
            pack(config, TRITS, tmp_path / "out", "layer", group)
        assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_header_has_the_facts(tmp_path):
    layer, files = pack(TINY, TRITS, tmp_path, "proj")
    macros = dict(re.findall(r"^#define (PROJ_\w+) (.+)$", files[1].read_text(), re.MULTILINE))
    assert int(macros.pop("PROJ_CRC32").rstrip("u"), 16) == layer.crc32
    digest = bytes(int(byte, 16) for byte in macros.pop("PROJ_LAYOUT_DIGEST")[1:-1].split(", "))
    assert digest == TINY.layout_digest
    for name, value in macros.items():
        assert int(value) == getattr(layer, name.removeprefix("PROJ_").lower())


def test_read_archive(archive):
    assert (read_layer(archive, "second").trits == -TRITS).all()


def test_read_the_only_layer(tmp_path):
    file = tmp_path / "one.npz"
    np.savez(file, **{"a.trits": TRITS, "a.scale": np.float32(1)})
    assert (read_layer(file).trits == TRITS).all()


def test_read_checkpoint():
    folder = ROOT / "models" / "tinylm"
    name, layer = next(iter(load_checkpoint(folder).layers.items()))
    assert (read_layer(folder, name).trits == layer.trits).all()


def test_which_layer(archive):
    with pytest.raises(InputError) as error:
        read_layer(archive)
    assert str(error.value) == (f"{archive} holds 2 layers; name one with --layer: first, second")
    with pytest.raises(InputError) as error:
        read_layer(archive, "third")
    assert str(error.value) == f"{archive} has no layer 'third'; it has first, second"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((15, 21), "in_features of the layer must be at most 20 on this device, not 21"),
        ((17, 20), "out_features of the layer must be at most 16 on this device, not 17"),
    ],
)
def test_too_large(tmp_path, shape, message):
    with pytest.raises(InputError) as error:
        pack(TINY, np.ones(shape, np.int8), tmp_path / "out", "layer")
    assert str(error.value) == (f"{message}; choose a larger configuration or a smaller layer")
    assert not (tmp_path / "out").exists()


def test_too_many_words(tmp_path):
    with pytest.raises(InputError) as error:
        pack(replace(TINY, memory=BlockRam(words=31)), TRITS, tmp_path, "layer")
    assert str(error.value) == (
        "weight words of the layer must be at most 31 on this device, not 32; "
        "choose a larger configuration or a smaller layer"
    )


def test_name(tmp_path):
    with pytest.raises(InputError, match=r"^name must be a letter"):
        pack(TINY, TRITS, tmp_path, "my-layer")
