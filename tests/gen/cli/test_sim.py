import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.processes import interruptible
from tritloom.gen.cli import sim
from tritloom.host import connect
from tritloom.rtl.spec.config import TINY

COMMAND = [sys.executable, "-m", "tritloom", "sim", "--pty"]


@pytest.mark.sim
@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_person_can_try_it(tmp_path, sign, status):
    """The URL works at once; Ctrl-C ends it cleanly and leaves no terminal behind."""
    (tmp_path / "tiny.json").write_text(TINY.to_json())
    command = [*COMMAND, "--config", str(tmp_path / "tiny.json"), "--json"]
    with subprocess.Popen(
        *(command,),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    ) as served:
        output = json.loads(served.stdout.readline())
        with connect(output["url"]) as device:
            assert device.info.config.lanes == TINY.lanes == output["config"]["lanes"]
            assert device.selftest().ok
        served.send_signal(sign)
        _, err = served.communicate(timeout=30)
        assert served.returncode == status
        assert "Traceback" not in err
    assert not os.path.lexists(output["url"].removeprefix("serial://").partition("?")[0])


@pytest.mark.sim
def test_noise(run, monkeypatch, tmp_path):
    """The rate goes to both directions."""
    (tmp_path / "tiny.json").write_text(TINY.to_json())
    rates = []

    def serve(bridge, watched):
        rates.extend(noise.flip for noise in bridge.noise.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(sim, "_serve", serve)
    status, out, _ = run("sim", "--config", tmp_path / "tiny.json", "--pty", "--noise", "0.25")
    assert (status, rates) == (0, [0.25, 0.25])
    assert out.startswith("serial://") and out.count("\n") == 1


def test_a_board_that_stops(run, monkeypatch, capsys):
    class Stopped:
        bytes_in, bytes_out = 5, 6000

        def __init__(self):
            self.looks = iter((True, False))

        @property
        def is_running(self):
            return next(self.looks)

    monkeypatch.setattr(sim, "LOOK_S", 0.0)
    with pytest.raises(sim.DeviceError, match="has stopped by itself"):
        sim._serve(Stopped(), True)
    assert capsys.readouterr().err == "\r\x1b[K5 bytes to the board, 6,000 bytes from it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--board", "x"], "one of the arguments --pty --tap is required"),
        (["--pty"], "one of the arguments --board --config is required"),
        (
            ["--board", "x", "--pty", "--noise", "1"],
            "argument --noise: must be a number from 0 to below 1, not '1'",
        ),
        (
            ["--board", "x", "--pty", "--noise", "nan"],
            "argument --noise: must be a number from 0 to below 1, not 'nan'",
        ),
        (
            ["--board", "x", "--pty", "--tap", "tap0"],
            "argument --tap: not allowed with argument --pty",
        ),
    ],
)
def test_usage(run, arguments, message):
    status, out, err = run("sim", *arguments)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == f"tritloom sim: error: {message}"


def test_a_network_has_no_noise_of_bytes(run):
    status, out, err = run("sim", "--board", "icebreaker", "--tap", "tap0", "--noise", "0.1")
    assert (status, out) == (1, "")
    assert err == (
        "tritloom: error: --noise is that of a serial cable; leave it out, or give --pty\n"
    )


def test_unknown_board(run):
    status, out, err = run("sim", "--board", "nix", "--pty")
    assert (status, out) == (1, "")
    assert err.startswith("tritloom: error: unknown board 'nix'; known are ")
