import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.boards.board import Board, board_names, load_board
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.host import connect, load_checkpoint, load_npz
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.blocks import decoder_program
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

MODELS = ROOT / "models"
BOARDS = [load_board(name) for name in board_names()]


def tinylm(fuse):
    return BitNetModel(load_checkpoint(MODELS / "tinylm"), fuse=fuse).layers


def digits():
    return load_npz(MODELS / "digits_ternary.npz")[0]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
class TestBoard:
    def test_entry_point(self, board):
        (entry,) = entry_points(group="tritloom.boards", name=board.name)
        assert entry.load() is board
        assert isinstance(board, Board)

    def test_build_config(self, board):
        built = board.build_config
        assert built.link == board.link
        assert built.layout_digest == board.config.layout_digest
        assert built.clock_hz == board.config.clock_hz

    def test_not_run_yet(self, board):
        """Nobody has told of a run: whoever changes this says so in the README too."""
        assert not board.run_on_hardware


def test_names():
    assert {"icebreaker", "ulx3s-85f"} <= set(board_names())
    assert board_names() == [board.name for board in BOARDS] == sorted(board_names())


def test_banks():
    """Two, but for the iCE40, which has no room for them."""
    sizes = ("12f", "25f", "45f", "85f")
    assert {load_board(f"ulx3s-{size}").config.banks for size in sizes} == {2}
    assert ICEBREAKER.config.banks == 1


def test_unknown():
    with pytest.raises(ConfigError) as error:
        load_board("ulx4s")
    assert str(error.value) == f"unknown board 'ulx4s'; known are {', '.join(board_names())}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_presets(board):
    """Each is another accelerator behind the same link; without a name the board is as it is."""
    assert board.with_preset(None) is board
    for name, config in board.presets.items():
        other = board.with_preset(name)
        assert other.config == config != board.config
        assert other.build_config.link == board.link
    with pytest.raises(ConfigError) as error:
        board.with_preset("bitlinaer")
    known = f"it has {', '.join(board.presets)}" if board.presets else "it has none"
    assert str(error.value) == f"{board.name} has no preset 'bitlinaer'; {known}"


def test_bitlinear():
    """The blocks of tinylm fit, with the hidden vector on the device."""
    config = ULX3S_85F.presets["bitlinear"]
    slots = ULX3S_85F.config.slots
    assert replace(config, vector=None, slots=slots) == ULX3S_85F.config
    decoder = BitNetModel(load_checkpoint(MODELS / "tinylm")).decoder()
    program = decoder_program(config.vector, decoder)
    assert program.words <= config.vector.words


@pytest.mark.parametrize(
    ("board", "macs", "clock_hz"), [(ULX3S_85F, 160, 80_000_000), (ICEBREAKER, 20, 24_000_000)]
)
def test_floors(board, macs, clock_hz):
    assert board.config.macs_per_cycle >= macs
    assert board.config.clock_hz >= clock_hz


@pytest.mark.parametrize(
    ("board", "layers"),
    [(ULX3S_85F, tinylm(True)), (ULX3S_85F, tinylm(False)), (ICEBREAKER, digits())],
    ids=["tinylm", "tinylm-unfused", "digits"],
)
def test_model_fits(board, layers):
    """All layers are resident at once, each in one piece, and give exact sums."""
    config = board.config
    random = np.random.default_rng(0)
    with connect(f"golden?board={board.name}") as device:
        handles = [device.load(layer) for layer in layers.values()]
        for handle in handles:
            shape = LayerShape.of(config, handle.out_features, handle.in_features)
            assert handle.in_features <= config.max_in_features
            assert handle.out_features <= config.max_out_features
            assert handle.words == shape.words
            codes = random.integers(-128, 128, (1, handle.in_features)).astype(np.int8)
            expected = numerics.matmul(handle.layer.trits, codes)
            assert np.array_equal(device.matmul(handle, codes), expected)
        assert device.info.layers_used == len(handles) <= config.max_layers
        used = sum(handle.words for handle in handles)
        assert device.info.free_words == config.memory_words - used >= 0


def test_no_amaranth():
    """A driver reads a board where there is no Amaranth."""
    program = """
import sys
sys.modules["amaranth"] = sys.modules["amaranth_boards"] = None
from tritloom.boards.board import board_names, load_board
print([name for name in board_names() if load_board(name).config])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == (f"{board_names()}\n", "")


def _pulled(board):
    """The pins of the board's UART with a pull-up; the empty name is the resource itself."""
    uart = board.create_platform().resources["uart", 0]
    parts = {"": uart} | {each.name: each for each in uart.ios}
    return {name for name, part in parts.items() if part.attrs.get("PULLMODE") == "UP"}


def test_pin_attributes():
    """They are added to a pin of one platform, or to a whole resource; the class stays as it is."""
    pulled = {"PULLMODE": "UP"}
    for pin, where in (("uart.rx", {"rx"}), ("uart", {""})):
        board = replace(ULX3S_85F, pin_attributes={pin: pulled})
        before = _pulled(ULX3S_85F)
        assert _pulled(board) == before | where
        assert _pulled(ULX3S_85F) == before


@pytest.mark.parametrize("pin", ["none", "none.rx", "uart.none"])
def test_pin_attributes_of_no_pin(pin):
    board = replace(ULX3S_85F, pin_attributes={pin: {"PULLMODE": "UP"}})
    with pytest.raises(ConfigError) as error:
        board.create_platform()
    assert str(error.value) == (
        f"ulx3s-85f has no pin {pin}; name another one in the board's `pin_attributes`"
    )
