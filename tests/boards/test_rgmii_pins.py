"""The pins of a PHY: which cells they become, in which direction, and how late."""

import re

import pytest

from tests.support.ethernet import CONFIG
from tritloom.boards.board import board_names, load_board
from tritloom.boards.pins import rgmii
from tritloom.boards.top import BoardTop
from tritloom.rtl.links.udp_facts import Udp
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.device.ethernet import EthernetBoard

QUICK = ("colorlight-5a75b-v7", "ecpix5-45")
"""The others differ from one of these in their delays only."""
BOARDS = [name for name in board_names() if isinstance(load_board(name).link, Udp)]


def test_boards():
    assert {"colorlight-5a75b-v7", "ecpix5-45", "ecpix5-85", "versa-ecp5", "butterstick"} <= set(
        BOARDS
    )
    assert {"logicbone-45", "logicbone-85"} <= set(BOARDS)


@pytest.mark.sim
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in BOARDS],
)
def test_cells(name):
    """Five lines in and six out, each of double rate; as many delays as the board says."""
    board = load_board(name)
    platform = board.create_platform()
    plan = platform.prepare(BoardTop(board, board.build_config), "top", emit_src=False)
    text = plan.files["top.il"]
    text = text if isinstance(text, str) else text.decode()
    cells = re.findall(r"^ *cell \\(IDDRX1F|ODDRX1F|DELAYG) ", text, re.MULTILINE)
    options = board.pin_options["eth_rgmii"]
    delays = 5 * (options["rx_delay_ps"] > 0) + (options["tx_delay_ps"] > 0)
    assert (cells.count("IDDRX1F"), cells.count("ODDRX1F")) == (5, 6)
    assert cells.count("DELAYG") == delays
    values = set(re.findall(r'parameter (?:signed )?\\DEL_VALUE (?:32\'\d+|\d+|"\d+")', text))
    assert len(values) == (1 if delays else 0)
    constraints = plan.files["top.lpf"]
    constraints = constraints if isinstance(constraints, str) else constraints.decode()
    assert re.search(r'FREQUENCY PORT "eth_rgmii_0__rx_clk__io" 125000000\.0 HZ', constraints)
    pulled = re.findall(r'IOBUF PORT "(\w+)\[\d\]" .*PULLMODE=UP', constraints)
    assert pulled == (["eth_rgmii_0__rx_data__io"] * 4 if name.startswith("ecpix5") else [])


@pytest.mark.parametrize(("name", "delay"), [("tx_delay_ps", 2010), ("rx_delay_ps", 3200)])
def test_wrong_delays(name, delay):
    with pytest.raises(ConfigError) as error:
        rgmii.tie(None, None, None, **{name: delay})
    assert str(error.value) == f"{name} must be a multiple of 25 up to 3175, not {delay}"


@pytest.mark.sim
def test_packets_fill_frames():
    for name in BOARDS:
        config = load_board(name).build_config
        assert config.max_payload == 1472 - 20
    assert EthernetBoard(CONFIG).config.link.beat_bytes == 2
