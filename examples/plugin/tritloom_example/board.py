"""The board `example`: an LFE5UM-25F with an 8-bit bus to a host, a jumper and two lights."""

from typing import Any, ClassVar

from tritloom.boards.board import Board
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom_example.link import Bus8
from tritloom_example.memory import Guarded

__all__ = ["EXAMPLE", "create_platform"]


def create_platform() -> Any:
    """The board's pins, as amaranth-boards has them for other boards."""
    from amaranth.build import Attrs, Clock, Pins, Resource, Subsignal
    from amaranth.vendor import LatticePlatform

    class ExamplePlatform(LatticePlatform):
        device = "LFE5UM-25F"
        package = "BG381"
        speed = "6"
        default_clk = "clk25"
        connectors: ClassVar = []
        resources: ClassVar = [
            Resource("clk25", 0, Pins("P3", dir="i"), Clock(25e6), Attrs(IO_TYPE="LVCMOS33")),
            Resource("led", 0, Pins("B2", dir="o"), Attrs(IO_TYPE="LVCMOS33")),
            Resource("led", 1, Pins("C2", dir="o"), Attrs(IO_TYPE="LVCMOS33")),
            Resource(
                "guard",
                0,
                Subsignal("protect", Pins("R1", dir="i")),
                Subsignal("reading", Pins("C1", dir="o")),
                Attrs(IO_TYPE="LVCMOS33"),
            ),
            Resource(
                "bus",
                0,
                Subsignal("bus_clk", Pins("G2", dir="i")),
                Subsignal("rx_data", Pins("B11 C11 A10 A11 B10 A9 C10 B9", dir="i")),
                Subsignal("rx_last", Pins("E9", dir="i")),
                Subsignal("rx_valid", Pins("D9", dir="i")),
                Subsignal("rx_ready", Pins("A7", dir="o")),
                Subsignal("tx_data", Pins("A8 B8 C8 D8 C7 C6 D7 E8", dir="o")),
                Subsignal("tx_last", Pins("D6", dir="o")),
                Subsignal("tx_valid", Pins("E7", dir="o")),
                Subsignal("tx_ready", Pins("E6", dir="i")),
                Attrs(IO_TYPE="LVCMOS33"),
            ),
        ]

    return ExamplePlatform()


EXAMPLE = Board(
    name="example",
    title="Example board",
    family="ecp5",
    part="LFE5UM-25F-6BG381C",
    platform=f"{__name__}:create_platform",
    leds=2,
    link=Bus8(),
    config=AcceleratorConfig(
        lanes=20,
        rows=2,
        fill=5,
        engine="plain",
        memory=Guarded(words=512),
        max_in_features=160,
        max_out_features=128,
        packet_bytes=256,
        clock_hz=50_000_000,
    ),
)
