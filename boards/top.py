"""A board's top: clock, reset, pins and lights around the accelerator."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import io

from tritloom.boards.board import Board
from tritloom.boards.clock import clock_domain
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.top import Accelerator

BLINK_HZ = 1
FLASH_BIT = 4
"""From the top of the counter: it falls eight times a blink."""


class BoardTop(Elaboratable):
    """The accelerator on a board's pins.

    Lights, as many as the board has, in this order: alive (blinks about once a second), running, a
    packet came, a wrong packet came. An event lights for about an eighth of a second.
    """

    def __init__(self, board: Board, config: AcceleratorConfig) -> None:
        self.board = board
        self.config = config

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clock_hz = self.config.clock_hz
        clock_domain(m, platform, self.board.family, clock_hz)
        m.submodules.accelerator = accelerator = Accelerator(self.config)
        uart = platform.request("uart", dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [accelerator.rx.eq(rx.i), tx.o.eq(accelerator.tx)]

        # One counter for all: its top bit blinks, a bit below paces the flashes.
        beat = Signal((clock_hz // BLINK_HZ - 1).bit_length())
        before = Signal()
        m.d.sync += [beat.eq(beat + 1), before.eq(beat[-FLASH_BIT])]
        tick = before & ~beat[-FLASH_BIT]
        lights: list[Value] = [beat[-1]]
        for event in (accelerator.running, accelerator.good, accelerator.bad):
            left = Signal(2)
            with m.If(event):
                m.d.sync += left.eq(2)
            with m.Elif(tick & (left != 0)):
                m.d.sync += left.eq(left - 1)
            lights.append(left.any())
        for number, light in enumerate(lights[: self.board.leds]):
            led = io.Buffer("o", platform.request("led", number, dir="-"))
            m.submodules[f"led_{number}"] = led
            m.d.comb += led.o.eq(light)
        return m
