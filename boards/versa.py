"""Lattice Versa ECP5: ECP5UM 45F with two gigabit PHYs; the first one is used."""

from tritloom.boards.board import Board
from tritloom.boards.ethernet import config_of
from tritloom.rtl.links.udp_facts import Udp

__all__ = ["VERSA_ECP5"]

VERSA_ECP5 = Board(
    name="versa-ecp5",
    title="Lattice Versa ECP5",
    family="ecp5",
    part="LFE5UM-45F-8BG381C",
    platform="amaranth_boards.versa_ecp5:VersaECP5Platform",
    leds=8,
    # The PHY (Marvell 88E1512) delays both clocks.
    # Source: LiteX-Boards, targets/lattice_versa_ecp5.py: tx_delay 0, rx_delay 0.
    pin_options={"eth_rgmii": {"tx_delay_ps": 0, "rx_delay_ps": 0}},
    config=config_of("45F"),
    link=Udp(),
)
