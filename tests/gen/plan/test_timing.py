"""What a layer and a token take, by hand."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from tests.support import ROOT
from tests.support.plan import SMALL
from tritloom.boards.board import load_board
from tritloom.gen.plan import timing
from tritloom.gen.plan.schedule import loading_cycles, product_cycles
from tritloom.gen.plan.timing import (
    HOST,
    PARTS,
    Host,
    Times,
    layer_times,
    resident_counts,
    token_times,
)
from tritloom.gen.workloads import Layer, model_layers
from tritloom.host.allocator import cut_layer
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.layer_shape import LayerShape

UART = replace(SMALL, link=Uart(baud=1_000_000))
NO_HOST = Host(call_s=0, command_s=0)
SLOW_HOST = Host(call_s=1.0, command_s=0.5)


class TestLayer:
    def test_parts(self):
        """Each part is its cycles at the clock; the link takes most of the time on a UART."""
        product = product_cycles(UART, ((0, 3, 0, 15),), 1)
        times = layer_times(UART, 3, 15, host=NO_HOST)
        assert times == Times(
            tokens=1,
            macs=45,
            calls=1,
            commands=3,
            bytes_in=80,
            bytes_out=66,
            run_cycles=product.engine,
            total_s=product.cycles / 50e6,
            link_in_s=104 * 500 / 50e6,
            link_out_s=90 * 500 / 50e6,
            front_end_s=138 / 50e6,
            engine_s=product.engine / 50e6,
        )
        assert times.bound == "link in"
        assert times.tokens_per_s == 1 / times.total_s
        assert times.gmac_per_s == 45 / times.total_s / 1e9
        assert times.gmac_per_s_run == 45 / times.engine_s / 1e9
        assert times.total_s >= max(times.parts_s.values())

    def test_host(self):
        """It makes packets while the device works: the longer of the two, and the call."""
        times = layer_times(UART, 3, 15, host=SLOW_HOST)
        assert times.total_s == times.host_s == 1.0 + 3 * 0.5
        assert times.bound == "host"
        device_s = layer_times(UART, 3, 15, host=NO_HOST).total_s
        fast = Host(call_s=1.0, command_s=1e-9)
        assert layer_times(UART, 3, 15, host=fast).total_s == 1.0 + device_s

    def test_tokens(self):
        """Of one call; the front end binds where the link is wide and the layer small."""
        one, four = (layer_times(SMALL, 3, 15, tokens=n, host=NO_HOST) for n in (1, 4))
        assert four.tokens_per_s == 4 / four.total_s
        assert four.tokens == 4 and four.macs == 4 * 45 and four.calls == 1
        assert four.run_cycles == 4 * one.run_cycles
        assert 2 * one.total_s < four.total_s < 3 * one.total_s
        assert four.bound == "front end"

    def test_engine_binds(self):
        """Many inputs and few outputs."""
        config = replace(SMALL, max_in_features=2000, max_out_features=2000)
        config = replace(config.with_words(200_000), lanes=5, packet_bytes=4096)
        assert layer_times(config, 2000, 2000, host=NO_HOST).bound == "engine"

    def test_loading(self):
        """Two tiles × two row groups: four words of 4 bytes in one WRITE, and a COMMIT."""
        product = product_cycles(UART, ((0, 3, 0, 15),), 1)
        loading = loading_cycles(UART, LayerShape(2, 2))
        times = layer_times(UART, 3, 15, host=NO_HOST, loading_words=4)
        assert loading.bytes_in == (20 + 10) + (20 + 16) + 20
        assert loading.bytes_out == 3 * 20
        assert times.loading_bytes == 86 + 60
        assert times.loading_s == loading.cycles / 50e6
        assert times.total_s == (product.cycles + loading.cycles) / 50e6
        assert times.bound == "loading"
        slow = layer_times(UART, 3, 15, host=SLOW_HOST, loading_words=4)
        assert slow.loading_s == 1.0 + 3 * 0.5
        assert slow.total_s == 2 * (1.0 + 3 * 0.5)

    def test_larger_than_the_memory(self):
        """Three words hold one row group of two tiles: two pieces, a call and a loading each."""
        pieces = [layer_times(UART, rows, 15, loading_words=2) for rows in (2, 1)]
        times = layer_times(UART, 3, 15, loading_words=3)
        assert times == replace(pieces[0] + pieces[1], tokens=1)
        assert times.calls == 2 and times.macs == 45

    @pytest.mark.parametrize("shape", [(1, 1), (8, 20), (9, 20), (8, 21), (33, 64), (16, 45)])
    def test_pieces(self, shape):
        """As the list of them, in rows and columns."""
        expected = Counter((rows, columns) for _, rows, _, columns in cut_layer(SMALL, *shape))
        assert timing._pieces(SMALL, *shape) == expected

    def test_larger_than_a_row_group(self):
        """One word holds one tile of one row group: the columns are parted too."""
        times = layer_times(UART, 3, 15, loading_words=1)
        assert times.calls == 4 and times.macs == 45 and times.tokens == 1

    def test_too_few_slots(self):
        """A layer in more pieces than there are slots is loaded piece by piece."""
        config = replace(UART, max_layers=1)
        assert layer_times(UART, 16, 15, loading_words=64).calls == 1
        assert layer_times(config, 16, 15, loading_words=64).calls == 2


class TestResident:
    LAYERS = (Layer("a", 20, 8, 3), Layer("b", 10, 2, 2))  # 8 words, and 1 word

    @pytest.mark.parametrize(
        ("words", "slots", "expected"),
        [
            (26, 5, ([3, 2], 0)),  # all of them
            (30, 5, ([3, 2], 4)),
            (25, 5, ([3, 0], 1)),  # room for a small one
            (18, 5, ([1, 2], 8)),  # room for a large one
            (24, 5, ([2, 0], 8)),
            (16, 5, ([1, 0], 8)),
            (15, 5, ([0, 2], 13)),  # no large one stays beside another
            (8, 5, ([0, 0], 8)),
            (3, 5, ([0, 0], 3)),  # a large one goes in pieces
            (64, 4, ([3, 0], 40)),  # slots: one for those that do not stay
            (64, 1, ([0, 0], 64)),
        ],
    )
    def test_counts(self, words, slots, expected):
        config = replace(SMALL.with_words(words), max_layers=slots)
        assert resident_counts(config, self.LAYERS) == expected
        assert resident_counts(config, self.LAYERS[::-1])[0] == expected[0][::-1]

    def test_token(self):
        """Those that stay are not loaded; the others are, each time."""
        config = replace(UART.with_words(18), max_layers=5)
        large, small = ((layer.out_features, layer.in_features) for layer in self.LAYERS)
        expected = Times()
        for shape, stay, swapped in ((large, 1, 2), (small, 2, 0)):
            expected += layer_times(config, *shape) * stay
            expected += layer_times(config, *shape, loading_words=8) * swapped
        times = token_times(config, self.LAYERS)
        assert times.to_dict() == replace(expected, tokens=1).to_dict()
        assert times.loading_s > 0

    def test_outside(self):
        """A memory that holds the model needs no loading."""
        config = UART.with_words(3)
        times = token_times(config, self.LAYERS, tokens=2, holds_all=True)
        assert times.loading_s == 0 and times.tokens == 2
        assert times.macs == 2 * (3 * 160 + 2 * 20)
        assert times == token_times(UART.with_words(26), self.LAYERS, tokens=2)


def test_dictionary():
    times = layer_times(UART, 3, 15)
    values = times.to_dict()
    assert list(values)[:4] == ["tokens_per_s", "gmac_per_s", "total_s", "bound"]
    assert values["total_s"] == round(times.total_s, 9)
    assert values["bound"] == "link in"
    assert {f"{part.replace(' ', '_')}_s" for part in PARTS} <= set(values)
    assert values["tokens"] == 1 and values["run_cycles"] == times.run_cycles
    assert values["tokens_per_s"] == float(f"{times.tokens_per_s:.6g}")


def test_a_model_far_too_large():
    """Its weights go through the serial line for every token: minutes, and never an error."""
    layers = model_layers("bitnet-2b-4t")
    for name in ("icebreaker", "ulx3s-85f"):
        times = token_times(load_board(name).build_config, layers)
        assert times.bound == "loading"
        # Two bits a weight at the least, at 300,000 bytes a second.
        assert times.loading_s > times.macs * 1.6 / 8 / 300_000
        assert times.macs == sum(layer.weights for layer in layers)


def test_host():
    """The driver's figures are those that were measured and published."""
    measured = json.loads((ROOT / "docs/reference/speed/host.json").read_text(encoding="utf-8"))
    command_us = measured["cpu_us_per_command"]["8"]
    assert round(HOST.command_s * 1e6, 2) == command_us
    assert round(HOST.call_s * 1e6, 2) == round(measured["cpu_us_per_call"] - 3 * command_us, 2)


def test_preset():
    """tinylm on the largest board: a token takes as long as its bytes on the serial line."""
    config = load_board("ulx3s-85f").build_config
    times = token_times(
        config,
        [
            *(Layer("qkv_proj", 256, 512, 2), Layer("o_proj", 256, 256, 2)),
            *(Layer("gate_up_proj", 256, 1024, 2), Layer("down_proj", 512, 256, 2)),
        ],
    )
    assert times.calls == 8 and times.loading_s == 0
    assert times.bound == "link out"
    assert round(times.host_s, 9) == round(8 * HOST.call_s + times.commands * HOST.command_s, 9)
    assert times.link_out_s < times.total_s < times.link_in_s + times.link_out_s + times.host_s
