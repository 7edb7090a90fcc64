"""LambdaConcept ECPIX-5: Lattice ECP5-5G 45F or 85F with a gigabit PHY."""

from tritloom.boards.board import Board
from tritloom.boards.ethernet import LARGE_CELLS, config_of
from tritloom.rtl.links.udp_facts import Udp

__all__ = ["ECPIX5_45", "ECPIX5_85"]


def _ecpix5(size: str, loader: str = "ecpix5") -> Board:
    return Board(
        name=f"ecpix5-{size.lower().removesuffix('f')}",
        title=f"LambdaConcept ECPIX-5 {size.removesuffix('F')}",
        family="ecp5",
        part=f"LFE5UM5G-{size}-8BG554C",
        platform=f"amaranth_boards.ecpix5:ECPIX5{size.removesuffix('F')}Platform",
        leds=0,  # its lights are of three colours each
        # The PHY delays the clock that it sends, and the FPGA the one that it sends.
        # Source: LiteX-Boards, targets/lambdaconcept_ecpix5.py: rx_delay 0, and LiteEth's 2 ns.
        pin_options={"eth_rgmii": {"tx_delay_ps": 2000, "rx_delay_ps": 0}},
        # When its reset ends, the PHY reads its mode from these lines: all high is RGMII at every
        # speed. Source: LiteX-Boards, platforms/lambdaconcept_ecpix5.py.
        pin_attributes={"eth_rgmii.rx_data": {"PULLMODE": "UP"}},
        loader=loader,
        large_cells=LARGE_CELLS,
        config=config_of(size),
        link=Udp(),
    )


ECPIX5_45 = _ecpix5("45F")
ECPIX5_85 = _ecpix5("85F")
