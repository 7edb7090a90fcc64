"""A run of a language model: where its layers are computed, and what is refused beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.host import handle
from tritloom.host.models import run as module
from tritloom.host.models.run import find_model, run_model
from tritloom.host.packed_file import PackedFile
from tritloom.host.placement import Placement
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError, CheckpointError, InputError

TINYLM = ROOT / "models" / "tinylm"
REFERENCE = np.load(ROOT / "models" / "tinylm_reference.npz")
CONFIG = load_board("icebreaker").config


def expect(monkeypatch: pytest.MonkeyPatch, config: AcceleratorConfig) -> None:
    """The device will have this configuration, and nothing may open it."""
    monkeypatch.setattr(module, "known_config", lambda url: config)
    monkeypatch.setattr(module, "connect", None)


@pytest.mark.parametrize("known", [True, False])
def test_a_device_that_holds_a_part(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Also of a device whose configuration is known only after it is opened, as on a cable."""
    events: list[str] = []
    placements: list[Placement] = []
    connect = module.connect

    def connecting(url: str) -> object:
        events.append("connect")
        return connect(url)

    def placed(placement: Placement) -> None:
        events.append("placed")
        placements.append(placement)

    monkeypatch.setattr(module, "connect", connecting)
    if not known:
        monkeypatch.setattr(module, "known_config", lambda url: None)
    result = run_model(
        TINYLM,
        "golden?board=icebreaker",
        str(REFERENCE["p0.prompt"]),
        12,
        placed=placed,
        loading=lambda done, total: events.append(f"{done}/{total}"),
    )
    first = ["placed", "connect"] if known else ["connect", "placed"]
    assert events == [*first, "1/2", "2/2"]
    assert placements == [result.placement]
    expected = REFERENCE["p0.greedy_bitlinear"].tolist()
    assert [*result.prompt_ids, *result.ids] == expected[: len(result.prompt_ids) + 12]
    used = {layer.name: layer for layer in result.layers}
    assert list(used) == [layer.name for layer in result.placement.layers]
    for layer in result.placement.layers:
        use = used[layer.name]
        assert use.where == layer.where
        assert use.tokens == len(result.prompt_ids) + 11
        assert use.macs == use.tokens * layer.device_weights
        assert (use.runs > 0) == (use.run_cycles > 0) == (use.bytes > 0) == bool(layer.on_device)
    assert result.timing.run_cycles == sum(layer.run_cycles for layer in result.layers) > 0
    assert 0 < result.timing.mac_per_cycle_run <= CONFIG.macs_per_cycle


def test_a_model_is_packed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second run reads the file; a file of another device is refused."""
    packed = tmp_path / "tinylm.packed"
    seen: list[tuple[int, int]] = []
    made = []
    write = module.write_packed

    def writing(path: Path, *arguments: Any) -> None:
        made.append(path)
        write(path, *arguments)

    def packing(done: int, total: int) -> None:
        seen.append((done, total))

    def run(url: str) -> list[int]:
        prompt = str(REFERENCE["p0.prompt"])
        result = run_model(TINYLM, url, prompt, 3, packed=packed, packing=packing)
        return [*result.prompt_ids, *result.ids]

    monkeypatch.setattr(module, "write_packed", writing)
    first = run("golden?board=ulx3s-85f")
    # From now on the driver must not pack.
    monkeypatch.setattr(handle, "pack_weights", None)
    assert run("golden?board=ulx3s-85f") == first
    assert first == REFERENCE["p0.greedy_bitlinear"][: len(first)].tolist()
    assert made == [packed]
    assert seen[-1] == (1_179_648, 1_179_648)
    with pytest.raises(CheckpointError, match=f"{packed} was packed for a device with lanes 65"):
        run("golden?board=icebreaker")
    monkeypatch.undo()
    packed.unlink()
    result = run_model(TINYLM, "golden?board=icebreaker", "a", 1, packed=packed)
    whole = [layer.name for layer in result.placement.load_order if layer.where == "device"]
    assert list(PackedFile(packed, CONFIG).names) == whole
    assert len(whole) < len(result.placement.load_order)  # a part of a layer is packed each time


def test_a_model_of_which_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, replace(CONFIG, memory=BlockRam(words=5)))
    with pytest.raises(CapacityError, match="no part of the model fits the device, not even"):
        run_model(TINYLM, "sim", "a", 2)


def test_a_model_that_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, CONFIG)
    with pytest.raises(CapacityError, match=r'give fit="layers" \(--fit layers\) to leave'):
        run_model(TINYLM, "sim", "a", 2, fit="all")


def test_a_device_for_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, replace(CONFIG, act_bits=4))
    with pytest.raises(InputError, match="needs 8-bit activations, the device has 4-bit"):
        run_model(TINYLM, "sim", "a", 2)
    expect(monkeypatch, replace(CONFIG, alphabet="binary", encoding="sign2", engine="select"))
    with pytest.raises(InputError, match="binary"):
        run_model(TINYLM, "sim", "a", 2)


def test_an_unknown_device() -> None:
    with pytest.raises(InputError, match="unknown device 'nope'"):
        run_model(TINYLM, "nope", "a", 2)
    with pytest.raises(InputError, match="unknown board 'nope'"):
        run_model(TINYLM, "sim?board=nope", "a", 2)


def test_find_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "m").mkdir(parents=True)
    assert find_model("m") == Path("models/m")
    (tmp_path / "m").mkdir()
    assert find_model("m") == Path("m")
    assert find_model("models/m") == Path("models/m")
    with pytest.raises(CheckpointError, match="no model directory n or models/n; give the path"):
        find_model("n")
    with pytest.raises(CheckpointError, match="no model directory a/n; give the path"):
        find_model("a/n")
