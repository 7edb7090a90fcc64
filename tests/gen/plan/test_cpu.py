"""The yardstick: what is computed, not how long it takes."""

import numpy as np
import pytest

from tritloom.gen.plan import cpu
from tritloom.gen.plan.cpu import Cpu, cpu_name, measure_cpu
from tritloom.gen.workloads import Layer


class Clock:
    """Each reading is a second later than the one before."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cpu, "time", clock)
    return clock


def test_every_layer_counts(clock):
    """A second a round, by this clock: for each shape, whatever its count."""
    layers = [Layer("a", 20, 30, 3), Layer("b", 10, 5)]
    measured = measure_cpu(layers)
    assert measured == Cpu(name=cpu_name(), tokens=1, macs=3 * 600 + 50, total_s=2.0)
    assert measured.tokens_per_s == 0.5


def test_in_proportion(clock, monkeypatch):
    """Of 30 rows 10 fit at a time, so one of the three layers; of 40 tokens 16 are computed."""
    monkeypatch.setattr(cpu, "MOST_BYTES", 10 * 20 * 4)
    assert measure_cpu([Layer("a", 20, 30, 3)], 40).total_s == 1.0 * 3 * 3 * 2.5
    # Two of the layers, 24 rows in all.
    monkeypatch.setattr(cpu, "MOST_BYTES", 2 * 30 * 20 * 4)
    assert measure_cpu([Layer("a", 20, 30, 3)]).total_s == 1.5


def test_rounds(monkeypatch):
    """The first round does not count, and the median of the others does."""
    readings = [0.0]
    for duration in (9.0, 1.0, 5.0, 2.0, 4.0, 3.0):
        readings += [readings[-1], readings[-1] + duration]
    following = iter(readings)
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: next(following))
    assert cpu._layer_s(cpu._NumPy(), Layer("a", 4, 4), 1, 1000.0) == 3.0
    assert next(following, None) is None


def test_budget(monkeypatch):
    """At least one round; no more when the time is over."""
    readings = iter(range(100))
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: float(next(readings)))
    assert cpu._layer_s(cpu._NumPy(), Layer("a", 4, 4), 1, 1e-9) == 1.0
    assert next(readings) == 5  # one before, two in each of two rounds


def test_layers_share_the_budget(clock, monkeypatch):
    """4.5 seconds for each of two: the first round, and two that count."""
    monkeypatch.setattr(cpu, "BUDGET_S", 9.0)
    measure_cpu([Layer("a", 4, 4), Layer("b", 4, 4)])
    assert clock.now == 2 * (1 + 3 * 2)


def test_products_are_exact():
    """float32 holds each sum of 8-bit codes and trits."""
    codes = np.full((1, 16384), -128, np.float32)
    assert (codes @ np.ones((1, 16384), np.float32).T).astype(np.int64).item() == -128 * 16384


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: A  CPU @ 2 GHz\nmodel name : B\n", "A CPU @ 2 GHz"),
        ("processor : 0\nmodel name :\n", "kind"),
        (None, "kind"),
    ],
)
def test_name(tmp_path, monkeypatch, text, name):
    monkeypatch.setattr(cpu.platform, "processor", lambda: "")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "kind")
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert cpu_name(file) == name


def test_dictionary():
    values = Cpu(name="A", tokens=2, macs=4_000_000, total_s=0.002).to_dict()
    assert values == {
        "name": "A",
        "method": "NumPy, float32",
        "tokens_per_s": 1000.0,
        "gmac_per_s": 2.0,
        "total_s": 0.002,
        "tokens": 2,
        "macs": 4_000_000,
    }
