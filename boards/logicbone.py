"""Logicbone: Lattice ECP5-5G 45F or 85F with a gigabit PHY."""

from tritloom.boards.board import Board
from tritloom.boards.ethernet import LARGE_CELLS, config_of
from tritloom.rtl.links.udp_facts import Udp

__all__ = ["LOGICBONE_45", "LOGICBONE_85"]


def _logicbone(size: str, platform: str) -> Board:
    return Board(
        name=f"logicbone-{size.lower().removesuffix('f')}",
        title=f"Logicbone {size}",
        family="ecp5",
        part=f"LFE5UM5G-{size}-8BG381C",
        platform=f"amaranth_boards.logicbone:{platform}",
        leds=4,
        # The FPGA delays the clock that it sends, and the lines that it receives.
        # Source: LiteX-Boards, targets/logicbone.py, which takes LiteEth's 2 ns for both.
        pin_options={"eth_rgmii": {"tx_delay_ps": 2000, "rx_delay_ps": 2000}},
        large_cells=LARGE_CELLS,
        config=config_of(size),
        link=Udp(),
    )


LOGICBONE_45 = _logicbone("45F", "LogicbonePlatform")
LOGICBONE_85 = _logicbone("85F", "Logicbone85FPlatform")
