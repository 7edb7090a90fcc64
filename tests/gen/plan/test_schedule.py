"""The cycles of a device against the simulated FPGA, and by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.plan import SMALL
from tests.support.plugins import Stalling
from tritloom.gen.plan import schedule
from tritloom.gen.plan.schedule import exchange_of, loading_cycles, product_cycles
from tritloom.gen.plan.stages import Copy, schedule_cycles
from tritloom.host import GroupLayer, connect
from tritloom.host.allocator import cut_layer
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.device.simulated import SimulatedDevice

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


DEVICES = {
    "adders": ADDERS,
    "tables, 8 bytes": replace(TABLES, link=PacketStream(width=8)),
    "adders, one bank": replace(ADDERS, banks=1),
    "tables, one bank, 2 bytes": replace(TABLES, banks=1, link=PacketStream(width=2)),
}
DEVICES["scales"] = replace(ADDERS, scale=ScaleConfig(group=40))
DEVICES["scales of activations"] = replace(ADDERS, scale=ScaleConfig(kind="float", group=40))
DEVICES["scales of activations, tables, 8 bytes"] = replace(
    TABLES, link=PacketStream(width=8), scale=ScaleConfig(kind="float", group=10)
)
DEVICES["scales of activations, one bank"] = replace(
    DEVICES["scales of activations"], banks=1, link=PacketStream(width=2)
)
SLOW = (
    "scales",
    *(name for name in DEVICES if "of activations" in name),
    "adders, one bank",
    "tables, one bank, 2 bytes",
)
"""One bank is for the smallest boards."""


@pytest.mark.sim
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in DEVICES],
)
def test_simulated_fpga(name):
    """Every cycle, from a command's first byte to the last response's last."""
    config = DEVICES[name]
    rng = np.random.default_rng(7)
    transport = SimulatedDevice(config)
    with Device(transport, url="sim", config=config) as device:
        # Several packets; one result; pieces in rows and columns; few and many row groups.
        for out_features, in_features, tokens in (
            *((33, 50, 1), (64, 64, 3), (1, 1, 1), (100, 90, 5), (7, 3, 2), (64, 20, 4)),
            (50, 60, 9),
        ):
            trits = rng.integers(-1, 2, (out_features, in_features)).astype(np.int8)
            codes = rng.integers(-128, 128, (tokens, in_features)).astype(np.int8)
            start = transport.cycles
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            loaded = transport.cycles - start
            job = device.submit(handle, codes)
            job.result()
            computed = transport.cycles - start - loaded
            start = transport.cycles
            device.counters()
            counters = [exchange_of(config, requests.read_counters())]
            assert transport.cycles - start == schedule_cycles(config, counters)
            device.unload(handle)
            pieces = tuple(cut_layer(config, out_features, in_features))
            shapes = [LayerShape.of(config, rows, columns) for _, rows, _, columns in pieces]
            assert loaded == sum(loading_cycles(config, shape).cycles for shape in shapes)
            product = product_cycles(config, pieces, tokens)
            assert computed == product.cycles
            assert product.engine == job.stats.cycles
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
    # What needs most is busy at least nine tenths of the time.
    needs = max(product.engine, max(product.bytes_in, product.bytes_out) / config.link.beat_bytes)
    assert measured["busy_share_of_bottleneck"] == round(needs / product.cycles, 4) >= 0.9


class TestExchange:
    """What each command needs, by hand."""

    def test_every_command(self):
        codes = np.zeros(15, np.int8)
        (load,) = requests.load_activations(SMALL, 0, codes, 108, 1)
        (results,) = requests.read_results(SMALL, 0, 3, 108, 1)
        (scales,) = requests.load_scales(0, np.zeros(7, np.float32), 108, 1)
        (write,) = requests.write_words(SMALL, 0, bytes(4 * SMALL.word_bytes), 108)
        define = requests.define_layer(0, 0, LayerShape(2, 2))
        assert (SMALL.engine_latency, SMALL.word_bytes, SMALL.acc_bytes) == (8, 4, 2)
        each = exchange_of(SMALL, load)
        assert (each.bytes_in, each.bytes_out, each.store) == (40, 20, 20 + 2)
        assert (each.opcode, each.activation_bank, each.copy) == (Opcode.LOAD, 1, None)
        each = exchange_of(SMALL, scales)
        assert (each.bytes_in, each.bytes_out, each.store) == (48, 20, 28 + 2)
        assert (each.opcode, each.activation_bank, each.copy) == (Opcode.SCALES, 1, None)
        each = exchange_of(SMALL, requests.run_layer(0, 1, 0, 1), engine=77)
        assert (each.bytes_in, each.bytes_out, each.store, each.engine) == (20, 20, 2, 77)
        assert (each.activation_bank, each.result_bank) == (0, 1)
        # Two row groups, of two results and of one.
        each = exchange_of(SMALL, results)
        assert (each.bytes_in, each.bytes_out, each.result_bank) == (20, 26, 1)
        assert each.copy == Copy(2, 4, 2, 4, 1)
        each = exchange_of(SMALL, write)
        assert (each.bytes_in, each.store) == (36, 16 + 2)
        each = exchange_of(SMALL, define)
        assert (each.bytes_in, each.store) == (30, 10 + 2 + 2)
        each = exchange_of(SMALL, requests.commit_layer(0, b""), words=4)
        assert (each.bytes_in, each.bytes_out, each.copy) == (20, 20, Copy(4, 4, 4))
        each = exchange_of(SMALL, requests.read_counters())
        assert (each.bytes_out, each.copy) == (20 + 48, Copy(6, 8, 8))

    def test_one_bank(self):
        """Five cycles to a row group's totals, three more as the engine is late; then the next."""
        (results,) = requests.read_results(SMALL, 0, 3, 108)
        assert exchange_of(replace(SMALL, banks=1), results).copy == Copy(2, 4, 2, 8, 9)

    def test_words_of_one_byte(self):
        """The address of a word needs a cycle after the one before."""
        config = replace(SMALL, lanes=5, rows=1)
        (write,) = requests.write_words(config, 0, bytes(6), 108)
        assert config.word_bytes == 1
        assert exchange_of(config, write).store == 6 + 5 + 2

    def test_others(self):
        with pytest.raises(ConfigError, match="no formula gives the cycles of opcode 2"):
            exchange_of(SMALL, requests.read_identity(0, 4))


def test_product_on_a_uart():
    """By hand: LOAD of 20 bytes, RUN, RESULTS of 3 × 2 bytes; the link takes all of the time."""
    config = replace(SMALL, link=Uart(baud=1_000_000))
    run = config.run_cycles(LayerShape(2, 2))
    product = product_cycles(config, ((0, 3, 0, 15),), 1)
    assert (product.bytes_in, product.bytes_out) == (40 + 20 + 20, 20 + 20 + 26)
    assert product.link_in == 500 * (48 + 28 + 28)
    assert product.link_out == 500 * (28 + 28 + 34)
    # The acceptor: header, checks, choice, response's header and task; then what it stores.
    accept = 16 + 3 + 1 + 1 + 16 + 1
    assert (product.front_end, product.engine) == (3 * accept + 20 + 2 + 2, run)
    assert product.commands == 3
    # Three cycles to the acceptor, one to the responder; then a task, and one to hand it over.
    load_left = 24_000 + 3 + accept + 20 + 2 + 1 + 1 + 1 + 2 + 14_000
    # RUN is answered at once, and RESULTS has been copied: the link is not free before.
    run_left = load_left + 1 + 2 + 14_000
    assert 52_000 + 3 + accept + 1 + 2 + (4 + 1 + 6 + 1 + 7) < run_left
    assert product.cycles == run_left + 1 + 2 + 500 * 34


def test_responder_works_longer():
    """Many results of few inputs: then its work is that of the front end."""
    config = replace(SMALL, max_out_features=512, packet_bytes=2048)
    product = product_cycles(config, ((0, 512, 0, 5),), 1)
    assert product.front_end == 1 + 1 + 2 + (4 + 1 + 1024 + 1 + 7)


def test_order():
    """Two tokens at once in three pieces; pieces of the same columns share the activations."""
    pieces = ((0, 64, 0, 60), (64, 6, 0, 60), (0, 64, 60, 5))
    letters = {Opcode.LOAD: "L", Opcode.RUN: "r", Opcode.RESULTS: "s"}

    def order(config: AcceleratorConfig) -> str:
        exchanges = schedule._product(config, pieces, 3)
        return "".join(letters[exchange.opcode] for exchange in exchanges)

    # 108 bytes hold 54 results of 2 bytes, so 64 are two packets.
    assert order(TABLES) == "LLr" + "srsss" + "LLsrs" + "Lsrsss" + "srs" + "Lsr" + "ss"
    one_bank = replace(TABLES, banks=1)
    assert order(one_bank) == "LLrssss" + "rss" + "LLrssss" + "Lrss" + "rs" + "Lrss"


@pytest.mark.parametrize("banks", [1, 2])
@pytest.mark.parametrize("shape", [(64, 60), (70, 65), (3, 130)])
def test_the_driver_sends_the_same(banks, shape):
    """Commands, their banks and their bytes."""
    config = replace(TABLES, banks=banks)
    rng = np.random.default_rng(3)
    trits = rng.integers(-1, 2, shape).astype(np.int8)
    with connect("golden", config=config) as device:
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        job = device.submit(handle, np.zeros((5, shape[1]), np.int8))
        sent = [
            (each.opcode, len(each.pack()), each.activation_bank, each.result_bank)
            for each in job._commands
        ]
    exchanges = schedule._product(config, cut_layer(config, *shape), 5)
    assert sent == [
        (each.opcode, each.bytes_in, each.activation_bank, each.result_bank) for each in exchanges
    ]


@pytest.mark.parametrize("banks", [1, 2])
@pytest.mark.parametrize("kind", ["fixed", "float", None])
def test_the_driver_sends_the_same_for_groups(banks, kind):
    """With scales a row has one result, and `float` has scales of each token's groups."""
    config = replace(TABLES, banks=banks, max_in_features=100, max_group_sums=500)
    if kind is not None:
        config = replace(config, max_group_sums=0, scale=ScaleConfig(kind=kind, group=30))
    rng = np.random.default_rng(4)
    weights = rng.integers(-1, 2, (70, 60)).astype(np.int8)
    layer = GroupLayer.from_weights(weights, 12, np.ones((70, 5), np.float16))
    plain = TernaryLayer.from_trits(weights, 1.0)
    codes = np.zeros((5, 60), np.int8)
    scales = np.ones((5, 5), np.float32) if kind == "float" else None
    for group, of_scales in ((12, 5), (0, 2)):
        with connect("golden", config=config) as device:
            if group:
                job = device.submit(device.load(layer), codes, scales)._jobs[0]
            else:
                job = device.submit(device.load(plain), codes)
            sent = [
                (each.opcode, len(each.pack()), each.activation_bank, each.result_bank)
                for each in job._commands
            ]
            pieces = tuple(cut_layer(config, 70, 60, group))
            assert sent == [
                (each.opcode, each.bytes_in, each.activation_bank, each.result_bank)
                for each in schedule._product(config, pieces, 5, group)
            ]
            sizes = {size for opcode, size, *_ in sent if opcode == Opcode.SCALES}
            assert sizes == ({20 + 4 * of_scales} if kind == "float" else set())
            product = product_cycles(config, pieces, 5, group)
            job.result()
            assert (product.bytes_in, product.bytes_out) == (job.stats.bytes_tx, job.stats.bytes_rx)


def test_no_figures():
    """A memory that may stall without bound has no figures, and the error names it."""
    config = replace(SMALL, memory=Stalling(words=64))
    with pytest.raises(ConfigError, match=r"no formula gives the cycles with .* memory"):
        product_cycles(config, ((0, 3, 0, 15),), 1)
