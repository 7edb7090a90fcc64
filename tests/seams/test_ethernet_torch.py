"""transformers with layers on a board on Linux's network writes the ids that it writes on `sim`."""

import json

import pytest

from tests.sim.device.test_tap import in_own_process, was_tried


@pytest.mark.torch
@pytest.mark.sim
@pytest.mark.parametrize("kind", ["linux", pytest.param("user", marks=pytest.mark.slow)])
def test_transformers_writes_the_same(kind, capsys):
    ran = in_own_process("-m", "tests.support.network", kind, "generate")
    if not was_tried(ran, capsys):
        ran = in_own_process("-m", "tests.support.network", "user", "generate")
    assert ran.returncode == 0, ran.stderr[-3000:]
    wrote = json.loads(ran.stdout)
    assert len(wrote["board"]) == 16
    assert wrote["board"] == wrote["sim"] == wrote["transformers"]
    assert wrote["board cycles"] == wrote["sim cycles"] > 0
