"""`docs/reference/core.md` against the design: its code packs, its examples and pins are right."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.gen.emit.manifest import describe
from tritloom.rtl.links.port_names import AXI, PLAIN
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.packing import pack_weights

PAGE = (ROOT / "docs" / "reference" / "core.md").read_text(encoding="utf-8")
CONFIGS = {
    "base3x5": TINY,
    "sym3x5": replace(TINY, lanes=6, engine="table", encoding="sym3x5"),
    "sym6x10": replace(TINY, lanes=24, engine="table", encoding="sym6x10", fill=2),
    "diff2": replace(TINY, lanes=8, encoding="diff2"),
    "sign2": replace(TINY, lanes=8, encoding="sign2", alphabet="binary"),
    "sign9": replace(TINY, lanes=18, engine="table", encoding="sign9", alphabet="binary"),
}


def functions():
    """`encode` and `pack` of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(code, names)
    return names["encode"], names["pack"]


@pytest.mark.parametrize("name", CONFIGS)
def test_pack(name):
    """The page's code makes the image, from the manifest alone, also of a layer with padding."""
    config = CONFIGS[name]
    alphabet = ALPHABETS[config.alphabet]
    trits = np.random.default_rng(2).choice(alphabet, (15, 19)).astype(np.int8)
    _, pack = functions()
    assert pack(describe(config), trits.tolist()) == pack_weights(config, trits)


def test_every_encoding():
    ours = {name for name in encodings if encodings.package(name) == "tritloom"}
    assert set(CONFIGS) == ours
    assert {encoding for encoding, _, _ in examples()} == ours


def examples():
    rows = re.findall(r"^\| (\w+) \| ([-0-9 ]+) \| (\d+) \|$", PAGE, re.MULTILINE)
    return [(name, [int(trit) for trit in trits.split()], int(code)) for name, trits, code in rows]


@pytest.mark.parametrize(("name", "trits", "code"), examples())
def test_example(name, trits, code):
    encode, _ = functions()
    assert encode(name, trits) == code
    assert int(encodings[name].encode(np.array(trits, np.int8))) == code


def test_pins():
    """The table has every pin of both namings, with its direction."""
    rows = re.findall(r"^\| `(\w+)(?:\[7:0\])?` \| `(\w+)(?:\[7:0\])?` \| (\w+) \|", PAGE, re.M)
    for column, names in enumerate((PLAIN, AXI)):
        ports = describe(TINY, "core", names)["ports"]
        assert [(port["name"], port["direction"].removesuffix("put")) for port in ports] == [
            (row[column], row[2]) for row in rows
        ]
