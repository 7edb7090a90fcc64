import json
import zlib

import numpy as np

from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.packing import pack_weights

TRITS = np.random.default_rng(4).integers(-1, 2, (9, 20)).astype(np.int8)


def project(folder):
    """A configuration and an archive of one layer."""
    config, archive = folder / "tiny.json", folder / "layers.npz"
    config.write_text(TINY.to_json())
    np.savez(archive, **{"a.trits": TRITS, "a.scale": np.float32(1)})
    return config, archive


def test_pack(run, tmp_path):
    config, archive = project(tmp_path)
    out = tmp_path / "out"
    status, printed, err = run("pack", archive, "--config", config, "-o", out, "--json")
    assert (status, err) == (0, "")
    facts = json.loads(printed)
    image = (out / "layer.bin").read_bytes()
    assert image == pack_weights(TINY, TRITS)
    assert facts["crc32"] == zlib.crc32(image)
    assert facts["files"] == {file.name: file.stat().st_size for file in out.iterdir()}
    assert {key: facts[key] for key in facts if key != "files"} == json.loads(
        (out / "layer.json").read_text()
    )


def test_names(run, tmp_path):
    config, archive = project(tmp_path)
    out = tmp_path / "out"
    status, printed, err = run(
        *("pack", archive, "--layer", "a", "--config", config, "-o", out, "--name", "first")
    )
    assert (status, err) == (0, "")
    assert [line.split()[-1] for line in printed.splitlines()] == [
        str(out / name) for name in ("first.bin", "first.h", "first.json")
    ]


def test_unknown_layer(run, tmp_path):
    config, archive = project(tmp_path)
    status, printed, err = run(
        *("pack", archive, "--layer", "b", "--config", config, "-o", tmp_path / "out")
    )
    assert (status, printed) == (1, "")
    assert err == f"tritloom: error: {archive} has no layer 'b'; it has a\n"
    assert not (tmp_path / "out").exists()


def test_no_archive(run, tmp_path):
    config, _ = project(tmp_path)
    missing = tmp_path / "none.npz"
    status, _, err = run("pack", missing, "--config", config, "-o", tmp_path / "out")
    assert status == 1
    assert err == (
        f"tritloom: error: no model file {missing}; give an .npz with NAME.trits and NAME.scale\n"
    )
