"""The cycles of a device against the simulated FPGA, and by hand."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.plugins import Stalling
from tritloom.gen.plan import schedule
from tritloom.gen.plan.schedule import (
    Exchange,
    exchange_of,
    front_end_cycles,
    loading_cycles,
    product_cycles,
    schedule_cycles,
)
from tritloom.host import TernaryLayer, connect
from tritloom.host.allocator import cut_layer
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

SPEED = sorted((ROOT / "docs/reference/speed").glob("stream-*.json"))
ADDERS = AcceleratorConfig(
    lanes=20,
    rows=4,
    fill=5,
    memory=BlockRam(words=256),
    max_in_features=64,
    max_out_features=64,
    packet_bytes=128,
    slots=4,
)
"""Long rows of adders, so that the engine's sums are later than the partial ones."""
TABLES = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=2,
    engine="table",
    memory=BlockRam(words=512),
    max_in_features=60,
    max_out_features=64,
    packet_bytes=128,
    slots=2,
)
"""Sums sooner than the partial ones, two tokens at once, a window of one command."""
SMALL = AcceleratorConfig(
    lanes=10,
    rows=2,
    fill=5,
    memory=BlockRam(words=64),
    max_in_features=20,
    max_out_features=8,
    packet_bytes=128,
    slots=4,
    clock_hz=50_000_000,
)


@pytest.mark.sim
@pytest.mark.parametrize("config", [ADDERS, TABLES], ids=["adders", "tables"])
def test_simulated_fpga(config):
    """Every cycle of its counter, from a command's first byte to the last response's last."""
    rng = np.random.default_rng(7)
    probe = schedule_cycles(config, [exchange_of(config, requests.read_counters())])
    with connect("sim", config=config) as device:
        # Several packets; one result; pieces in rows and columns; few and many row groups.
        for out_features, in_features, tokens in (
            *((33, 50, 1), (64, 64, 3), (1, 1, 1), (100, 90, 5), (7, 3, 2), (64, 20, 4)),
            (50, 60, 9),
        ):
            trits = rng.integers(-1, 2, (out_features, in_features)).astype(np.int8)
            codes = rng.integers(-128, 128, (tokens, in_features)).astype(np.int8)
            counters = [device.counters()]
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            counters.append(device.counters())
            job = device.submit(handle, codes)
            job.result()
            counters.append(device.counters())
            device.unload(handle)
            loaded, computed = (
                after.cycles - before.cycles - probe for before, after in pairwise(counters)
            )
            pieces = tuple(cut_layer(config, out_features, in_features))
            shapes = [LayerShape.of(config, rows, columns) for _, rows, _, columns in pieces]
            assert loaded == sum(loading_cycles(config, shape).cycles for shape in shapes)
            product = product_cycles(config, pieces, tokens)
            assert computed == product.cycles
            assert product.engine == counters[2].run_cycles - counters[1].run_cycles
            assert product.bytes_in == job.stats.bytes_tx
            assert product.bytes_out == job.stats.bytes_rx


@pytest.mark.parametrize("file", SPEED, ids=lambda file: file.stem)
def test_published_streams(file):
    """What `tritloom measure stream` measured, token by token, on larger cores."""
    measured = json.loads(file.read_text(encoding="utf-8"))
    config = AcceleratorConfig.from_dict(measured["config"])
    assert config.tokens == 1  # then a product of tokens has the commands of as many products
    pieces = tuple(cut_layer(config, measured["out_features"], measured["in_features"]))
    product = product_cycles(config, pieces, measured["tokens"])
    assert product.cycles == measured["cycles"]
    assert product.engine == measured["run_cycles"]
    assert (product.bytes_in, product.bytes_out) == (measured["bytes_in"], measured["bytes_out"])


class TestFrontEnd:
    """By hand, from the states of the command processor."""

    def test_every_command(self):
        codes = np.zeros(15, np.int8)
        (load,) = requests.load_activations(SMALL, 0, codes, 108)
        (results,) = requests.read_results(SMALL, 0, 3, 108)
        (write,) = requests.write_words(SMALL, 0, bytes(4 * SMALL.word_bytes), 108)
        define = requests.define_layer(0, 0, LayerShape(2, 2))
        assert (SMALL.engine_latency, SMALL.word_bytes, SMALL.acc_bytes) == (8, 4, 2)
        # The header and four states; at the end two states around the response's header.
        always = 16 + 4 + 2 + 16
        assert front_end_cycles(SMALL, load) == always + 4 * (5 + 2) + 1
        assert front_end_cycles(SMALL, requests.run_layer(0, 1)) == always + 2
        # Two row groups: each a state out, five to its totals, three as the engine is late.
        assert front_end_cycles(SMALL, results) == always + 2 * (1 + 5 + 3) + 3 * 2 + 1
        assert front_end_cycles(SMALL, write) == always + 4 * (4 + 2) + 1
        assert front_end_cycles(SMALL, define) == always + 8 + 2 + 2 + 1
        # The memory's four cycles, one of which is the first word's own.
        commit = requests.commit_layer(0, b"")
        assert front_end_cycles(SMALL, commit, 4) == always + 1 + 3 + 4 * (1 + 4) + 1
        assert front_end_cycles(SMALL, requests.read_counters()) == always + 6 + 48 + 1

    def test_others(self):
        with pytest.raises(ConfigError, match="no formula gives the cycles of opcode 2"):
            front_end_cycles(SMALL, requests.read_identity(0, 4))


class TestSchedule:
    def test_one(self):
        """In, three cycles to the processor, two out of it."""
        assert schedule_cycles(SMALL, [Exchange(20, 30, 40, 100)]) == 20 + 3 + 140 + 2 + 30

    def test_processor_binds(self):
        exchanges = [Exchange(20, 20, 50)] * 6
        assert schedule_cycles(SMALL, exchanges) == 20 + 3 + 6 * 50 + 2 + 20

    def test_link_in_binds(self):
        """A packet is checked for a cycle, and nothing is lost beside that."""
        exchanges = [Exchange(100, 20, 40)] * 5
        assert schedule_cycles(SMALL, exchanges) == 5 * 100 + 4 * 1 + 3 + 40 + 2 + 20

    def test_link_out_binds(self):
        """A response waits until the one before has left: a cycle to hand it over, two to leave."""
        exchanges = [Exchange(20, 100, 40)] * 3
        assert schedule_cycles(SMALL, exchanges) == 20 + 3 + 40 + 2 + 100 + 2 * (1 + 2 + 100)

    def test_window(self):
        """With a window of one nothing overlaps; with three the fourth waits for the first."""
        exchanges = [Exchange(20, 20, 40)] * 4
        one = 20 + 3 + 40 + 2 + 20
        assert schedule_cycles(replace(SMALL, slots=2), exchanges) == 4 * one
        slow = [Exchange(20, 100, 40), *[Exchange(20, 20, 1)] * 2, Exchange(200, 20, 1)]
        # The fourth leaves the host at 165, when the first response is there.
        assert schedule_cycles(SMALL, slow) == 165 + 200 + 3 + 1 + 2 + 20

    def test_frames(self):
        """On a UART: 500 cycles a byte, and eight bytes of a frame around a short packet."""
        config = replace(SMALL, link=Uart(baud=1_000_000))
        assert schedule_cycles(config, [Exchange(20, 30, 40)]) == 500 * 28 + 3 + 40 + 2 + 500 * 38


def test_product_on_a_uart():
    """By hand: LOAD of 20 bytes, RUN, RESULTS of 3 × 2 bytes; the link takes all of the time."""
    config = replace(SMALL, link=Uart(baud=1_000_000))
    run = config.run_cycles(LayerShape(2, 2))
    product = product_cycles(config, ((0, 3, 0, 15),), 1)
    assert (product.bytes_in, product.bytes_out) == (40 + 20 + 20, 20 + 20 + 26)
    assert product.link_in == 500 * (48 + 28 + 28)
    assert product.link_out == 500 * (28 + 28 + 34)
    assert (product.front_end, product.engine) == (67 + 40 + 63, run)
    assert product.commands == 3
    # RESULTS is there after 104 bytes and two checks, RUN's response has left after 104 bytes too.
    results = 52_002 + 3 + 63
    run_left = 38_001 + 3 + 40 + run + 2 + 14_000
    assert product.cycles == max(results, run_left + 1) + 2 + 500 * 34


def test_tokens_and_pieces():
    """A batch of two has one RUN; pieces of the same columns share the activations."""
    exchanges = list(schedule._product(TABLES, ((0, 64, 0, 60), (64, 6, 0, 60), (0, 64, 60, 5)), 3))
    engine = [bool(exchange.engine) for exchange in exchanges]
    # 108 bytes hold 54 results of 2 bytes.
    batch = lambda n: [*[False] * n, True, *[False] * 2 * n]  # noqa: E731
    short = lambda n: [True, *[False] * n]  # noqa: E731
    assert engine == [
        *(*batch(2), *short(2), *batch(2)),
        *(*batch(1), *short(1), *batch(1)),
    ]


def test_no_figures():
    """A memory that may stall without bound has no figures, and the error names it."""
    config = replace(SMALL, memory=Stalling(words=64))
    with pytest.raises(ConfigError, match=r"no formula gives the cycles with .* memory"):
        product_cycles(config, ((0, 3, 0, 15),), 1)
