"""Platforms: boards, and files that describe others."""

import pytest

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.gen.plan.platform import PlannedMemory, platform_of, read_platform
from tritloom.gen.plan.timing import HOST
from tritloom.rtl.spec.errors import ConfigError

LEAST = """
name = "mine"
clock_hz = 100_000_000
[memory]
bytes = 1_000_000
width_bits = 64
[engine]
lanes = 40
rows = 1
"""


def read(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return read_platform(file)


def test_board():
    board = load_board("ulx3s-85f")
    platform = platform_of(board)
    assert platform.config == board.build_config and platform.linked
    assert platform.memory_bits == board.config.word_bits
    assert platform.memory_bytes == 4608 * 416 // 8
    assert platform.host == HOST and not platform.measured_s


def test_least_file(tmp_path):
    platform = read(tmp_path, LEAST)
    config = platform.config
    assert (platform.name, config.clock_hz, config.word_bits) == ("mine", 100_000_000, 64)
    assert config.memory == PlannedMemory(words=125_000, width_bits=64)
    assert config.memory.expected(config) == (60, 1.0)
    assert not platform.linked and platform.host == HOST and not platform.device_head
    assert platform.memory_bytes == 1_000_000
    assert (config.max_in_features, config.max_out_features) == (16384, 262144)


def test_narrow_memory(tmp_path):
    """A word of 64 bits from 16 bits a cycle comes in every fourth cycle, and refresh."""
    text = LEAST.replace("width_bits = 64", "width_bits = 16\nefficiency = 0.98")
    config = read(tmp_path, text + '[link]\nkind = "uart"\nbaud = 3000000\n').config
    latency, share = config.memory.expected(config)
    assert latency == 60 and share == pytest.approx(0.245)
    assert config.link.name == "uart"


def test_wide_memory(tmp_path):
    """No more than a word a cycle."""
    config = read(tmp_path, LEAST.replace("width_bits = 64", "width_bits = 512")).config
    assert config.memory.expected(config) == (60, 1.0)


def test_example():
    platform = read_platform(ROOT / "examples/platforms/kv260.toml")
    assert platform.config.word_bits == platform.memory_bits == 512
    assert platform.measured_s == {"attention": 0.0, "other": 0.0201} and platform.device_head


REFUSED = [
    ("clock_hz = 100_000_000", "", "clock_hz is missing"),
    ("bytes = 1_000_000", "", "bytes of memory is missing"),
    ("bytes = 1_000_000", "bytes = 1.5", "bytes must be an integer"),
    ("bytes = 1_000_000", "bytes = -1", "bytes must be a number from 0, not -1"),
    ("bytes = 1_000_000", "bytes = true", "bytes must be a number from 0, not True"),
    ("bytes = 1_000_000", "bytes = 7", "bytes of memory must hold a weight word"),
    ("bytes = 1_000_000", "bytes = 0", "the memory must not be empty"),
    ("width_bits = 64", "width = 64", "unknown key 'width' of memory; known are bytes, width_bits"),
    ("width_bits = 64", "width_bits = 64\nefficiency = 1.5", "efficiency must be above 0 and"),
    ("lanes = 40", "lanes = 41", "lanes must be a multiple of 5, not 41"),
    ('name = "mine"', 'name = "mine"\nhead = "arm"', "head must be host or device, not 'arm'"),
    ('name = "mine"', 'name = "mine"\nhost = 3', "host must be a table, not 3"),
    ('name = "mine"', 'name = "mine"\nclok = 3', "unknown key 'clok'; known are name, clock_hz"),
    ('name = "mine"', "name = mine", "it is not TOML: "),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_refused(tmp_path, old, new, message):
    assert LEAST.count(old) == 1
    with pytest.raises(ConfigError) as error:
        read(tmp_path, LEAST.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'mine.toml'}: {message}")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_platform(tmp_path / "none.toml")
