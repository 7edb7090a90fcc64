"""Colorlight 5A-75B, a card for LED walls: Lattice ECP5 25F and two gigabit PHYs."""

from tritloom.boards.board import Board
from tritloom.rtl.links.udp_facts import Udp
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["COLORLIGHT_5A75B_V7"]

COLORLIGHT_5A75B_V7 = Board(
    name="colorlight-5a75b-v7",
    title="Colorlight 5A-75B v7",
    family="ecp5",
    part="LFE5U-25F-6BG256C",
    platform="amaranth_boards.colorlight_5a75b_r7_0:Colorlight_5A75B_R70Platform",
    leds=1,
    # The PHY (Broadcom B50612D) delays the clock that it gets, the FPGA the lines that it sends.
    # Source: LiteX-Boards, targets/colorlight_5a_75x.py: tx_delay 0, rx_delay 2 ns.
    pin_options={"eth_rgmii": {"tx_delay_ps": 0, "rx_delay_ps": 2000}},
    loader="colorlight",
    config=AcceleratorConfig(
        lanes=60,
        rows=1,
        fill=5,
        memory=BlockRam(words=2048),
        max_in_features=1920,
        max_out_features=1024,
        max_layers=16,
        packet_bytes=2048,
        slots=4,
        clock_hz=80_000_000,
    ),
    link=Udp(),
)
