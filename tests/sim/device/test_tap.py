"""A simulated board on a network: Linux's own behind a TAP device, and a host in user space."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.support import ROOT, network
from tests.support.ethernet import CONFIG
from tests.support.network import PING_BYTES, UNAVAILABLE
from tritloom.rtl.links.udp_facts import Udp
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError
from tritloom.sim.device import tap
from tritloom.sim.device.tap import EthernetBridge, host_address, network_config, open_tap

MAC = "02:54:52:49:54:02"
EXPECTED = {
    "pings": [True] * len(PING_BYTES),
    "ping of fragments": False,
    "neighbours": {"10.77.0.2": MAC},
    "plain socket": [
        *("1 0 0 True", "2 0 40 True", "2 2 0 True"),
        *("silence", "silence", "silence"),
        "2 0 5 True",
    ],
    "found": [[MAC, "10.77.0.2", CONFIG.build_digest.hex()]],
    "products": {"self-test": True, "exact": True, "config": True, "longest packet": 1472},
    "moved": ["10.77.0.77", "ok", "10.77.0.2", "ok"],
}
SILENCE = (
    r" does not respond to COUNTERS, tried \d+ times; check its power, bitstream and cable; "
    r"`tritloom devices` shows the boards of this network, then connect again"
)


def in_own_process(*command: str) -> subprocess.CompletedProcess:
    """Run Python with the project's folder to import from."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def was_tried(ran: subprocess.CompletedProcess, capsys: pytest.CaptureFixture) -> bool:
    """Whether Linux's stack was there; if not, the test's output says so."""
    if ran.returncode != UNAVAILABLE:
        return True
    with capsys.disabled():
        print(f"\nLinux's stack was not tried, a host in user space was: {ran.stderr.strip()}")
    return False


@pytest.mark.sim
@pytest.mark.parametrize("kind", ["linux", "user"])
def test_what_a_host_sees(kind, capsys):
    """Pings, neighbours, a plain socket, discovery, the driver, another address, a bad cable."""
    ran = in_own_process("-m", "tests.support.network", kind)
    if not was_tried(ran, capsys):
        ran = in_own_process("-m", "tests.support.network", "user")
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout)
    first, *others = seen.pop("cable")
    assert seen == EXPECTED
    assert re.fullmatch(SILENCE, first)
    assert others == ["ok", " was reset; connect again", "ok"]


def test_a_system_without_such_a_network_is_told_from_a_failure(monkeypatch, capsys):
    def refuse(config):
        raise ToolError("no TAP devices")

    monkeypatch.setitem(network.NETWORKS, "linux", refuse)
    assert network.main("linux") == UNAVAILABLE
    ran = subprocess.CompletedProcess([], UNAVAILABLE, stderr=capsys.readouterr().err)
    assert not was_tried(ran, capsys)
    assert was_tried(subprocess.CompletedProcess([], 1), capsys)


COMMAND = """
import json, os, signal, socket, subprocess, sys
from tests.support.network import UNAVAILABLE, enter_own_network
from tests.support.processes import interruptible
try:
    enter_own_network()
    os.close(os.open("/dev/net/tun", os.O_RDWR))
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(UNAVAILABLE)
from tritloom.gen.cli.main import main
from tritloom.host import connect
sim = [sys.executable, "-m", "tritloom", "sim", "--config", sys.argv[1], "--tap", "tap7"]
with subprocess.Popen(
    [*sim, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    preexec_fn=interruptible,
) as served:
    said = json.loads(served.stdout.readline())
    with connect(said["url"]) as device:
        said["ok"] = device.selftest().ok
    said["interfaces"] = [name for _, name in socket.if_nameindex()]
    said["devices"] = main(["devices"])
    said["another"] = main(sim[3:])
    served.send_signal(signal.SIGINT)
    _, said["errors"] = served.communicate(timeout=60)
    said["status"] = served.returncode
said["left"] = [name for _, name in socket.if_nameindex()]
print(json.dumps(said))
"""


@pytest.mark.sim
def test_the_command(tmp_path, capsys):
    """The board is reached at once; Ctrl-C ends it and leaves no network card behind."""
    (tmp_path / "board.json").write_text(CONFIG.to_json())
    ran = in_own_process("-c", COMMAND, str(tmp_path / "board.json"))
    if not was_tried(ran, capsys):
        refused = ("sim", "--config", str(tmp_path / "board.json"), "--tap", "tap7")
        ran = in_own_process("-m", "tritloom", *refused)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("tritloom: error: ") and ran.stderr.count("\n") == 1
        return
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    assert (said["url"], said["interface"], said["host_address"]) == (
        *("udp://10.77.0.2", "tap7", "10.77.0.1"),
    )
    assert said["config"]["link"]["kind"] == "udp"
    assert said["ok"]
    assert "tap7" in said["interfaces"] and "tap7" not in said["left"]
    assert "\nudp://10.77.0.2 " in ran.stdout, "devices has found it"
    assert (said["status"], said["another"], said["devices"]) == (0, 1, 0)
    assert "Traceback" not in said["errors"]
    assert "tritloom: error: another program has the TAP device tap7; give another" in ran.stderr


@pytest.mark.parametrize("name", ["", "a" * 16, "tap 0", "tap/0", "täp"])
def test_names_that_no_network_card_has(name):
    with pytest.raises(InputError, match="the name of a network card has 1 to 15 letters, digits"):
        open_tap(name, "10.77.0.1")


def test_only_linux_has_them(monkeypatch):
    monkeypatch.setattr(tap.sys, "platform", "darwin")
    with pytest.raises(ToolError, match=r"^only Linux has TAP devices; connect to --device sim"):
        open_tap("tap0", "10.77.0.1")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOENT, "this system has no /dev/net/tun; load its module with `sudo modprobe tun`"),
        (errno.EACCES, "you may not open /dev/net/tun; run the command as root"),
        (errno.EIO, "cannot open /dev/net/tun: Input/output error"),
    ],
)
def test_the_system_has_no_tap_devices(number, message, monkeypatch):
    def refuse(path, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tap.os, "open", refuse)
    with pytest.raises(ToolError, match=f"^{re.escape(message)}"):
        open_tap("tap0", "10.77.0.1")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's calls")
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.EPERM,
            (
                "you may not make a network card here; run the command as root, or in a network "
                "of your own: `unshare -rn` starts a shell there"
            ),
        ),
        (errno.EBUSY, "another program has the TAP device tap0; give another name"),
        (errno.EINVAL, "tap0 is a network card, but no TAP device; give another name"),
        (errno.ENOMEM, "cannot make the TAP device tap0: Cannot allocate memory"),
    ],
)
def test_the_user_may_make_none(number, message, monkeypatch):
    """The file is closed again."""
    import fcntl

    file = os.open(os.devnull, os.O_RDWR)
    monkeypatch.setattr(tap.os, "open", lambda path, flags: file)

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(ToolError) as caught:
        open_tap("tap0", "10.77.0.1")
    assert str(caught.value) == message
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_a_board_gets_an_ethernet_port():
    """One that has none; its clock may be too slow for the port."""
    config = network_config(TINY)
    assert config.link == Udp()
    assert config.clock_hz == max(TINY.clock_hz, 62_500_000)
    assert network_config(CONFIG) is CONFIG


@pytest.mark.parametrize(
    ("board", "host"),
    [("10.77.0.2", "10.77.0.1"), ("10.77.0.1", "10.77.0.2"), ("192.168.9.200", "192.168.9.1")],
)
def test_the_host_s_address_is_beside_the_board_s(board, host):
    assert host_address(replace(CONFIG, link=Udp(address=board))) == host


class Silent:
    """A board that sends what was put in `out`, and keeps what came."""

    config = CONFIG

    def __init__(self) -> None:
        self.simulation = self
        self.cycles = 0
        self.frames: list[bytes] = []
        self.out: list[bytes] = []
        self.closed = False

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.out.append(frame[::-1])

    def run(self, limit_cycles: int, idle_cycles: int) -> list[bytes]:
        self.cycles += limit_cycles
        frames, self.out = self.out, []
        return frames

    def close(self) -> None:
        self.closed = True


def test_the_bridge():
    """Frames go both ways; none while the cable is out; its clock stops when nothing moves."""
    host, port = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    host.settimeout(10)
    board = Silent()
    with host, EthernetBridge(board, port.detach()) as bridge:
        assert (bridge.url, bridge.config) == ("udp://10.77.0.2", CONFIG)
        for frame in (b"one", b"two", bytes(1514)):
            host.send(frame)
            assert host.recv(2000) == frame[::-1]
        assert (bridge.bytes_in, bridge.bytes_out) == (1520, 1520)
        bridge.pull()
        host.send(b"lost")
        for _ in range(2):  # between two orders, the bridge looks at its file
            bridge._do(lambda: None)
        host.send(b"lost too")
        bridge.plug()
        host.send(b"back")
        assert host.recv(2000) == b"kcab"
        assert bridge.is_running
    assert not bridge.is_running and board.closed
    assert board.frames == [b"one", b"two", bytes(1514), b"back"]
    with pytest.raises(DeviceError, match="the bridge is closed; make a new one"):
        bridge.pull()
    bridge.close()


def test_the_clock_of_a_quiet_board_stops(monkeypatch):
    monkeypatch.setattr(tap, "QUIET_CYCLES", 10 * tap.STEP_CYCLES)
    host, port = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    host.settimeout(10)
    board = Silent()
    with host, EthernetBridge(board, port.detach()) as bridge:
        host.send(b"go")
        host.recv(10)
        bridge._thread.join(0.2)
        stopped = board.cycles
        bridge._thread.join(0.1)
        assert board.cycles == stopped
        host.send(b"on")
        assert host.recv(10) == b"no"
