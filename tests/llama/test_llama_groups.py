"""llama.cpp with a device that sums groups of inputs, or scales these sums itself."""

import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from tests.llama.running import (
    FLOATS,
    GROUPS,
    PROMPTS,
    TOKENS,
    compiled,
    completion,
    is_same_text,
    run_on,
    run_with,
)
from tests.support import ROOT
from tritloom.host import connect
from tritloom.host.serve.thread import serving
from tritloom.rtl.spec.groups import float_totals
from tritloom.rtl.spec.llama import DEVICE

pytestmark = pytest.mark.llama


def any_records(random, groups, size):
    """Sums and patterns of scales; products lie around 2^-126, or the totals around 2^128."""
    sums = random.integers(-(1 << 16), 1 << 16, (size, groups), np.int32)
    sums[random.random(sums.shape) < 0.1] = 0
    acts = random.integers(0, 255 << 23, (size, groups), np.uint32)
    near = random.random(size) < 0.5
    small = random.random((size, 1)) < 0.5
    powers = np.where(small, random.integers(1, 40, acts.shape), 220).astype(np.uint32)
    acts[near] = (powers << 23 | acts & 0x7FFFFF)[near]
    acts |= random.integers(0, 2, acts.shape, np.uint32) << 31
    halves = random.integers(0, 31 << 10, (size, groups), np.uint16)
    return sums, acts, halves | random.integers(0, 2, halves.shape, np.uint16) << 15


def small_records(random, groups, size):
    """The product of two scales is within some units in the last place of 2^-126, or a total is."""
    sums = np.zeros((size, groups), np.int32)
    sums[:, 0] = 1
    fractions = random.integers(512, 1025, (size, 1)) / 1024  # of half precision, exactly
    halves = np.repeat(fractions.astype(np.float16).view(np.uint16), groups, axis=1)
    units = random.integers(-8, 9, (size, groups)).astype(np.int64)
    acts = (np.float32(2.0**-126) / fractions.astype(np.float32)).view(np.uint32) + units
    odd = np.arange(size) % 2 == 1
    sums[odd], halves[odd] = random.integers(-1, 2, (odd.sum(), groups)), 0x3C00
    acts[odd] = random.integers(1 << 23, 2 << 23, (odd.sum(), groups))
    return sums, acts.astype(np.uint32), halves


@pytest.mark.parametrize("make", [any_records, small_records])
def test_floats_of_a_device_that_scales(llama, tmp_path, make):
    """The back end compares a device's floats with those of the twin, also near 0 and infinity."""
    program, random = compiled(llama, "floats", tmp_path), np.random.default_rng(15)
    groups = 5
    sums, acts, halves = make(random, groups, 1 << 18)
    weights = halves.view(np.float16).astype(np.float32).view(np.uint32)
    records = np.hstack([sums.view(np.uint32), acts, weights])
    ran = subprocess.run([program, str(groups)], input=records.tobytes(), capture_output=True)
    expected = float_totals(sums, halves, acts)[:, -1].view(np.float32)
    got = np.frombuffer(ran.stdout, np.float32)
    finite = np.isfinite(expected)
    assert (expected == 0).any() and (expected != 0).any()
    assert finite.all() == (make is small_records)
    assert np.array_equal(np.isfinite(got), finite)
    assert np.array_equal(got[finite], expected[finite])


@pytest.mark.parametrize("shape", [(64, 512, 16), (1, 256, 1), (300, 768, 3)])
def test_floats_of_a_device_are_those_of_plain_c(llama, backend, products, shape):
    """Of TQ1_0 and TQ2_0, whose blocks have one scale of activations; Q2_0 has another order."""
    # The weight 2 of Q2_0 makes its tensor two layers side by side.
    config = replace(FLOATS, max_in_features=1680)
    with connect("golden", config=config) as device, serving(device) as server:
        ran = run_on(server, backend, [products, llama.cpu, backend, *map(str, shape)])
    assert ran.returncode == 0, ran.stderr
    size = 4 * shape[0] * shape[2]
    first, second, third = ran.stdout.splitlines()
    assert first == f"tq1_0 0 {size}"
    # The last of four products is one of Q2_0 here, and so are the first three of Q2_0.
    differing = re.fullmatch(rf"tq2_0 (\d+) {size}", second)
    assert int(differing[1]) <= size // 4
    assert re.fullmatch(rf"q2_0 \d+ {size}", third)
    assert "12 products on golden, 0 on this computer" in ran.stderr


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0", "groups"])
def test_texts_of_a_device_that_scales(llama, backend, models, name):
    """Greedy texts of all prompts are the CPU's."""
    with connect("golden", config=FLOATS) as device, serving(device) as server:
        for prompt in PROMPTS:
            command = completion(llama, models[name], prompt)
            ran = run_on(server, backend, command)
            assert ran.returncode == 0, ran.stderr
            alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert len(ran.stdout) > len(prompt) + TOKENS
            assert is_same_text(ran.stdout, alone)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *(("groups", GROUPS), ("tinygroup", GROUPS)),
        *((name, FLOATS) for name in ("TQ1_0", "TQ2_0", "groups", "tinygroup")),
    ],
)
def test_on_the_simulated_fpga(llama, backend, models, name, config):
    """One RUN gives the sums of all groups, or their floats; every product is compared."""
    model = models.get(name, ROOT / "models" / f"{name}.gguf")
    command = completion(llama, model, "Emma was", 8)
    with connect("sim", config=config) as device, serving(device) as server:
        ran = run_on(server, backend, command)
    assert ran.returncode == 0, ran.stderr
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert is_same_text(ran.stdout, alone)
    assert re.search(r"tritloom: [1-9]\d+ products on sim, 0 on this computer", ran.stderr)


@pytest.mark.parametrize("name", ["TQ1_0", "Q2_0", "tinygroup"])
@pytest.mark.parametrize("codes", ["block", "token"])
def test_the_preset_has_room_for_the_small_models(llama, backend, models, name, codes):
    """The device of `tritloom llama run` computes every product; each is compared."""
    model = models.get(name, ROOT / "models" / f"{name}.gguf")
    command = completion(llama, model, "Emma was", 8)
    out, err = run_with(backend, *command, device=DEVICE, codes=codes, verify="always")
    if codes == "token":
        alone = run_with(backend, *command, codes=codes)[0]
    else:
        alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert is_same_text(out, alone)
    assert re.search(rf"tritloom: [1-9]\d+ products on {re.escape(DEVICE)}, 0 on this comp", err)
