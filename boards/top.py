"""A board's top: clock, reset, pins and lights around the accelerator."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import io

from tritloom.boards.board import Board
from tritloom.boards.clock import clock_domains
from tritloom.boards.families.family import load_family
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import load_component
from tritloom.rtl.top import Accelerator

__all__ = ["BoardTop"]

BLINK_HZ = 1
FLASH_BIT = 4
"""Counted from the top of the counter; this bit falls eight times a blink."""
FLASH_TICKS = 2
"""Falling edges of that bit for which an event lights: an eighth of a second and a little more."""


class BoardTop(Elaboratable):
    """The accelerator on a board's pins.

    The lights, as many as the board has, are in this order: alive (blinks about once a second),
    running, a packet came, a wrong packet came. An event lights for about an eighth of a second.

    Parameters
    ----------
    board : says the family, the pins and the number of lights
    config : the accelerator, with the link that the board has

    Raises
    ------
    ConfigError : its link or memory brings pins that nothing ties to a board's
    """

    def __init__(self, board: Board, config: AcceleratorConfig) -> None:
        for record in (config.link, config.memory):
            if record.pins and not record.tie:
                raise ConfigError(
                    f"{record.name!r} brings pins that it cannot tie to a board's; use it in a "
                    "design of your own (tritloom generate)"
                )
        self.board = board
        self.config = config

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        memory_hz = config.memory.own_clock_hz(config)
        clock_domains(m, platform, load_family(self.board.family), config.clock_hz, memory_hz)
        m.submodules.accelerator = accelerator = Accelerator(self.config)
        for record in (self.config.link, self.config.memory):
            if record.tie:
                ports = self.board.request(platform, record.resource)
                for name, clock_hz in record.clocks.items():
                    platform.add_clock_constraint(getattr(ports, name).io, clock_hz)
                options = self.board.pin_options.get(record.resource, {})
                load_component(record.tie)(m, accelerator, ports, **options)
        self._drive_constants(m, platform)
        self._show_state(m, platform, accelerator)
        return m

    def _drive_constants(self, m: Module, platform: Any) -> None:
        for pin, value in self.board.constants.items():
            resource, _, name = pin.partition(".")
            ports = platform.request(resource, 0, dir="-")
            buffer = io.Buffer("o", getattr(ports, name) if name else ports)
            m.submodules[f"constant_{pin.replace('.', '_')}"] = buffer
            m.d.comb += buffer.o.eq(value)

    def _show_state(self, m: Module, platform: Any, accelerator: Any) -> None:
        # One counter for all lights: its top bit blinks, and a lower bit paces the flashes.
        beat = Signal((self.config.clock_hz // BLINK_HZ - 1).bit_length())
        before = Signal()
        m.d.sync += [beat.eq(beat + 1), before.eq(beat[-FLASH_BIT])]
        tick = before & ~beat[-FLASH_BIT]
        lights: list[Value] = [beat[-1]]
        for event in (accelerator.running, accelerator.good, accelerator.bad):
            left = Signal(range(FLASH_TICKS + 1))
            with m.If(event):
                m.d.sync += left.eq(FLASH_TICKS)
            with m.Elif(tick & (left != 0)):
                m.d.sync += left.eq(left - 1)
            lights.append(left.any())
        for number, light in enumerate(lights[: self.board.leds]):
            led = io.Buffer("o", platform.request("led", number, dir="-"))
            m.submodules[f"led_{number}"] = led
            m.d.comb += led.o.eq(light)
