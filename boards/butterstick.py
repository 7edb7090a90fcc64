"""Good Stuff Department ButterStick: Lattice ECP5-5G 85F with a gigabit PHY."""

from tritloom.boards.board import Board
from tritloom.boards.ethernet import config_of
from tritloom.rtl.links.udp_facts import Udp

__all__ = ["BUTTERSTICK"]

BUTTERSTICK = Board(
    name="butterstick",
    title="ButterStick",
    family="ecp5",
    part="LFE5UM5G-85F-8BG381C",
    platform="amaranth_boards.butterstick:ButterStickPlatform",
    leds=0,  # its lights share their pins
    # The FPGA delays the clock that it sends, and the lines that it receives.
    # Source: LiteX-Boards, targets/gsd_butterstick.py, which takes LiteEth's 2 ns for both.
    # LiteEth's bench/butterstick.py has tx_delay 0: if the device answers nothing, try that.
    pin_options={"eth_rgmii": {"tx_delay_ps": 2000, "rx_delay_ps": 2000}},
    config=config_of("85F"),
    link=Udp(),
)
