# amaranth: UnusedElaboratable=no
"""Boards as the tools get them: the pins and hard blocks that no simulation sees."""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import pytest
from amaranth.build import Pins, Resource

from tests.support import quick_first
from tritloom.boards.board import load_board
from tritloom.boards.clock import choose_pll
from tritloom.boards.families.gowin import GOWIN
from tritloom.boards.families.ice40 import ICE40
from tritloom.boards.top import BoardTop
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Link

PINS = {
    "icebreaker": {
        "clk12_0": "35",
        "uart_0__rx": "6",
        "uart_0__tx": "9",
        "led_0": "11",
        "led_1": "37",
    },
    "ulx3s": {
        "clk25_0": "G2",
        "uart_0__rx": "M1",
        "uart_0__tx": "L4",
        "esp32_0__gpio0": "L2",
        "led_0": "B2",
        "led_1": "C2",
        "led_2": "C1",
        "led_3": "D2",
    },
}
"""By board: every pin of the bitstream, from the boards' schematics."""


def small(board):
    """A small accelerator in the place of the board's."""
    built = board.build_config
    return replace(TINY, link=built.link, clock_hz=built.clock_hz)


def files(board):
    prepared = board.create_platform().prepare(BoardTop(board, small(board)), "top").files
    return {
        name: text if isinstance(text, str) else text.decode() for name, text in prepared.items()
    }


@cache
def shipped_files(name):
    return files(load_board(name))


def located(texts):
    locate = r'LOCATE COMP "(\w+)__io" SITE "(\w+)"|set_io (\w+)__io (\w+)'
    text = texts.get("top.lpf") or texts["top.pcf"]
    return {one or two: site or pin for one, site, two, pin in re.findall(locate, text)}


def constant(text, name):
    """The value that the bitstream puts on a constant pin, before the pin's own inversion."""
    module = text.split(f"module \\top.constant_{name}\n")[1].split("\nmodule ")[0]
    return re.search(r"connect \\A (.*)", module)[1]


@quick_first("name", ["ulx3s-12f", "icebreaker"])
def test_pins(name):
    assert located(shipped_files(name)) == PINS[name.partition("-")[0]]


def test_constant_pins_are_driven():
    """On a low GPIO0 the first firmware of a ULX3S's ESP32 loads another bitstream."""
    text = shipped_files("ulx3s-12f")["top.il"]
    assert constant(text, "esp32_gpio0") == "1'1"


@pytest.mark.sim
@pytest.mark.parametrize("value", [0, 1])
def test_constant_of_a_whole_resource(value):
    board = replace(load_board("icebreaker"), constants={"led": value}, leds=0)
    text = files(board)["top.il"]
    assert constant(text, "led") == f"1'{value}"


def test_loop_filter_of_the_pll():
    text = shipped_files("ulx3s-12f")["top.il"]
    assert "ICP_CURRENT" in text and "LPF_RESISTOR" in text


def test_pll_of_the_icebreaker():
    """The values of `icepll -i 12 -o 24`."""
    text = shipped_files("icebreaker")["top.il"]
    for name, value in (("DIVR", 0), ("DIVF", 63), ("DIVQ", 5), ("FILTER_RANGE", 1)):
        assert f"parameter \\{name} {value}\n" in text


def test_named_resource():
    """A board says which of its resources a link's pins are."""
    board = replace(load_board("icebreaker"), resources={"uart": "uart:1"})
    platform = board.create_platform()
    platform.add_resources([Resource("uart", 1, Pins("4", dir="i"))])
    assert pins_of(board.request(platform, "uart")) == ["4"]
    assert pins_of(board.request(platform, "led")) == ["11"]


def pins_of(port):
    return [each.name for each in port.io.metadata]


def test_clock_that_no_pll_makes():
    platform = load_board("icebreaker").create_platform()
    with pytest.raises(ConfigError, match="no PLL setting makes 23456789 Hz from 12000000 Hz"):
        choose_pll(platform, ICE40, 23_456_789)


def test_family_without_a_pll():
    platform = load_board("icebreaker").create_platform()
    with pytest.raises(ConfigError, match="no PLL of family gowin is supported; choose another"):
        choose_pll(platform, GOWIN, 24_000_000)


def test_pads_that_nothing_ties():
    @dataclass(frozen=True, kw_only=True)
    class Loose(Link):
        name: ClassVar[str] = "test-loose"
        component: ClassVar[str] = "tritloom.rtl.links.stream:StreamLink"
        pins: ClassVar = {"i": "commands", "o": "responses"}

    config = replace(TINY, link=Loose(), clock_hz=24_000_000)
    with pytest.raises(ConfigError, match=r"^'test-loose' brings pins that it cannot tie"):
        BoardTop(load_board("icebreaker"), config)


def test_missing_resource():
    board = replace(load_board("icebreaker"), resources={"uart": "uart:7"})
    with pytest.raises(ConfigError) as caught:
        board.request(board.create_platform(), "uart")
    assert str(caught.value) == (
        "icebreaker has no resource uart:7 for the pins of uart; name another one in the board's "
        "`resources`"
    )
