"""The AXI ports lose no beat, and neither repeat nor reorder one."""

import random
from dataclasses import replace

import pytest

from tests.rtl.memories.test_axi import NoCredits, OneLess, OneMore
from tests.support.broken import broken
from tritloom.rtl.memories import axi_writer
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import AxiWriter
from tritloom.sim.proof.axi import axi_reader_contract, axi_writer_contract
from tritloom.sim.proof.formal import PropertyError, verify

MOST_BEATS = 31
LONGEST = 6
"""Beats of a range in the simulations."""
BEAT_BITS = 10
"""Of the number of a beat."""
DEPTH = 12
"""Cycles after reset that are proved: a range, its beats, and a time-out with its void beats."""


def record(timeout_cycles=2):
    return Axi(
        words=64,
        width=64,
        burst=2,
        latency_cycles=2,
        timeout_cycles=timeout_cycles,
        address_bits=13,
    )


def inputs(seed, gives, ready):
    """Random ranges, pauses and silence; no errors."""
    rng = random.Random(seed)
    index, silent = rng.randrange(30), 0
    while True:
        silent = max(0, silent - 1) if rng.random() < 0.99 else rng.choice((0, 4, 12))
        values = {
            "index": index,
            "takes": rng.random() < 0.7,
            "gives": rng.random() < gives and not silent,
            "fails": rng.random() < 0.02,
            "i_read__valid": rng.random() < 0.6,
            "i_read__payload": rng.randrange(1 << 9) | rng.randint(1, LONGEST) << BEAT_BITS,
            "o__ready": rng.random() < ready,
        }
        yield {name: int(value) for name, value in values.items()}


def simulate(reader, seed, cycles=80, gives=0.7, ready=0.6):
    """The covers that are reached, and all that there are."""
    bench = axi_reader_contract(reader, LONGEST)
    return bench.simulate(cycles, inputs(seed, gives, ready)), bench.covers


@pytest.mark.sim
def test_properties_in_simulation():
    """All covers are reached, with a memory that is slow, and one that is silent at times."""
    reached = set()
    for seed in range(16):
        reader = AxiReader(record(2 + 3 * (seed % 2)), MOST_BEATS)
        more, covers = simulate(reader, seed, ready=0.6 if seed % 4 else 0.15)
        reached |= more
    assert reached == covers


def simulate_often(make_reader, times):
    for seed in range(times):
        simulate(make_reader(), seed, gives=0.2 + 0.6 * (seed % 2), ready=0.15)


@pytest.mark.sim
@pytest.mark.parametrize("reader", [NoCredits, OneMore, OneLess])
def test_broken_readers_are_noticed(reader):
    with pytest.raises(PropertyError):
        simulate_often(lambda: reader(record(40), MOST_BEATS), 40)


@pytest.mark.formal
def test_proof():
    bench = axi_reader_contract(AxiReader(record(), MOST_BEATS))
    verify(bench, depth=DEPTH, cover=None, induction=False)


@pytest.mark.formal
def test_a_broken_reader_is_refuted():
    bench = axi_reader_contract(OneMore(record(), MOST_BEATS))
    with pytest.raises(PropertyError):
        verify(bench, depth=DEPTH, cover=None, induction=False)


@pytest.mark.formal
@pytest.mark.parametrize("version", [3, 4])
def test_writer(version):
    """For all time, by induction: one step of it."""
    ports = replace(record(), version=version)
    proof = verify(axi_writer_contract(AxiWriter(ports)), depth=4, cover=20)
    assert proof.inductive


@pytest.mark.formal
@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("(~pads.wvalid | pads.wready)", "1", "each_word_once"),
        ("with m.If(pads.awready):", "with m.If(pads.wready):", "each_address_once"),
        ("with m.If(stuck | (answered", "with m.If((answered", "failure_is_told"),
        ("unanswered + takes - answered", "unanswered + takes", "unanswered"),
    ],
)
def test_broken_writers_are_refuted(old, new, name):
    bench = axi_writer_contract(broken(axi_writer, old, new).AxiWriter(record()))
    with pytest.raises(PropertyError) as raised:
        verify(bench, depth=12, cover=None, induction=False)
    assert f"check_{name}" in raised.value.names
