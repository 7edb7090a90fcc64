"""The README's table of links is what the time model says."""

import json
import re
from dataclasses import replace

import pytest

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.gen.plan.models import known_layers
from tritloom.gen.plan.timing import HOST, Host, Times, token_times
from tritloom.gen.workloads import Layer
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.links.udp_facts import Udp
from tritloom.rtl.memories.bram_facts import BlockRam

BOARDS = {"ULX3S 85F": "ulx3s-85f", "Colorlight 5A-75B": "colorlight-5a75b-v7"}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([\w -]+?)(, in more memory)? \| ([^|]+) \| ([\d.,]+) ms \| ([a-z ]+) "
    r"\| ([\d.,]+) ms \| ([a-z ]+) \|$",
    README,
    re.MULTILINE,
)


def udp_host() -> Host:
    """A command over UDP, with the packets of 32 slots: 1,024 bytes each way."""
    file = ROOT / "docs/reference/speed/host_udp.json"
    packets = json.loads(file.read_text(encoding="utf-8"))["host_cpu_us_per_packet"]
    return Host(call_s=HOST.call_s, command_s=packets["32"]["1024 out, 1024 in"] * 1e-6)


def times_of(board: str, work: str, *, udp: bool) -> Times:
    config = load_board(BOARDS[board]).build_config
    config = replace(config, link=Uart(baud=3_000_000))
    if udp:
        config = replace(config, link=Udp(), packet_bytes=2048)
    host = udp_host() if udp else HOST
    if work == "a token of tinylm":
        return token_times(config, known_layers("tinylm"), tokens=1, host=host)
    assert work == "64 tokens of 2560 × 2560"
    large = replace(
        config, memory=BlockRam(words=1 << 20), max_in_features=2560, max_out_features=2560
    )
    return token_times(large, [Layer("layer", 2560, 2560, 1)], tokens=64, host=host)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[2]}")
def test_the_table(row):
    board, more, work, uart_ms, uart_bound, udp_ms, udp_bound = row
    assert bool(more) == work.startswith("64")
    for udp, milliseconds, bound in ((False, uart_ms, uart_bound), (True, udp_ms, udp_bound)):
        times = times_of(board, work, udp=udp)
        text = milliseconds.replace(",", "")
        digits = len(text.partition(".")[2])
        assert (f"{times.total_s * 1e3:.{digits}f}", times.bound) == (text, bound)


def test_no_row_is_left_out():
    assert [(row[0], row[2]) for row in ROWS] == [
        (board, work)
        for board in BOARDS
        for work in ("a token of tinylm", "64 tokens of 2560 × 2560")
    ]
