"""What a link carries, in simulated time, against what its wire and the device can."""

import json

import pytest

from tests.support.ethernet import CONFIG
from tritloom.gen.cli.main import main
from tritloom.gen.measure.link import link_config, measure_alone, measure_with_device

pytestmark = pytest.mark.sim


def test_ethernet_alone():
    """The goal: at least 115 MB/s of payload each way at once, at 1,024 bytes."""
    result = measure_alone(link_config("udp"))
    bound = result["bound_bytes_per_second"]
    assert bound == round(1024 / 1090 * 125e6)
    for way in ("in", "out"):
        assert 115e6 < result[f"payload_bytes_per_second_{way}"] < bound


def test_ethernet_with_the_device():
    """The goal: at least 90 MB/s in and out at once at 80 MHz, the wire 90 % busy."""
    result = measure_with_device(CONFIG, tokens=0)
    # Its LOADs are short: 320 bytes. Its RESULTS have all of 768.
    assert result["bottleneck"] == "wire out"
    assert result["busy_share_of_bottleneck"] > 0.9
    assert result["payload_bytes_per_second_out"] > 90e6


def test_a_layer():
    result = measure_with_device(CONFIG, (64, 320), 16)
    assert result["bottleneck"] == "engine"
    assert 0.5 < result["busy_share_of_bottleneck"] <= 1


@pytest.mark.parametrize("shape", [(256, 20), (128, 20)])
def test_a_layer_for_which_the_wire_binds(shape):
    """The goal: 90 % busy. The short responses of LOAD and RUN stand between the long ones."""
    result = measure_with_device(CONFIG, shape, 64)
    assert result["bottleneck"] == "wire out"
    assert result["busy_share_of_bottleneck"] > 0.9


def test_streams():
    alone = measure_alone(link_config("stream"))
    assert 0.95 * 160e6 < alone["payload_bytes_per_second_in"] <= 160e6


def test_uart_alone():
    """Eleven cycles of ten bits: 3 Mbaud at 80 MHz are 27 cycles a bit."""
    result = measure_alone(link_config("uart"))
    bound = result["bound_bytes_per_second"]
    assert bound == pytest.approx(1024 / 1035 * 80e6 / 270, rel=1e-2)
    assert 0.7 * bound < result["payload_bytes_per_second_in"] < bound


def test_command(capsys, tmp_path):
    file = tmp_path / "link.json"
    options = ["--kind", "stream", "--seeds", "0", "--json", "--output", str(file)]
    assert main(["measure", "link", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads(file.read_text()) == result
    assert result["kind"] == "stream" and result["clock_hz"] == 80_000_000
    assert result["command"] == "tritloom measure link --kind stream --seeds 0 --json"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "8x5"], "--shape goes with --config or --board"),
        (["--preset", "x"], "--preset goes with --board; name the board"),
        (["--board", "icebreaker"], "the configuration has the link uart, not udp"),
    ],
)
def test_wrong_options(options, message, capsys):
    assert main(["measure", "link", "--kind", "udp", *options]) == 1
    assert message in capsys.readouterr().err
