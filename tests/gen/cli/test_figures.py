import pytest

from tritloom.gen.cli.figures import rate, seconds, times_lines, verdict
from tritloom.gen.plan.cpu import Cpu
from tritloom.gen.plan.timing import Times

TIMES = Times(
    tokens=2,
    macs=8_000_000,
    calls=3,
    commands=9,
    bytes_in=1000,
    bytes_out=2000,
    run_cycles=16_000,
    total_s=0.5,
    link_in_s=0.1,
    link_out_s=0.3,
    front_end_s=0.01,
    engine_s=0.0002,
    host_s=0.05,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0000123, "12.3 µs"),
        (0.0009994, "999 µs"),
        (0.0009996, "1 ms"),
        (0.0564, "56.4 ms"),
        (0.9996, "1 s"),
        (28.36, "28.4 s"),
        (119.6, "120 s"),
        (6480, "108 minutes"),
    ],
)
def test_seconds(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000154, "0.000154"), (17.73, "17.7"), (99.96, "100"), (5389.4, "5,389")],
)
def test_rate(value, text):
    assert rate(value) == text


def test_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert times_lines(TIMES, "UART at 3 Mbaud") == [
        "limit        busy         of",
        "loading         0         all weights fit",
        "link in    100 ms         1,000 bytes, UART at 3 Mbaud",
        "link out   300 ms  binds  2,000 bytes, UART at 3 Mbaud",
        "front end   10 ms         moving bytes in and out",
        "engine     200 µs         RUN alone, 16,000 cycles, 40 GMAC/s",
        "host        50 ms         3 calls, 9 commands",
    ]


@pytest.mark.parametrize(
    ("times", "total_s", "end"),
    [
        (TIMES, 0.05, "40 tokens/s, 25 ms a token: the CPU is 10 times faster than the device."),
        (TIMES, 1.0, "2 tokens/s, 500 ms a token: the device is 2 times faster."),
        (None, 1.0, "2 tokens/s, 500 ms a token."),
    ],
)
def test_verdict(times, total_s, end):
    """Also where the CPU wins."""
    cpu = Cpu(name="A CPU", tokens=2, macs=8_000_000, total_s=total_s)
    assert verdict(times, cpu) == (
        f"This computer's CPU (A CPU, NumPy, float32, measured now): {end}"
    )
