"""The serial link: the transport at a bare pseudo-terminal, and whole devices behind one."""

import errno
import gc
import grp
import os
import pty
import random
import re
import resource
import select
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import serial

from tritloom.host import Device, DeviceError, DeviceTimeout, InputError, TernaryLayer, connect
from tritloom.host.links.serial import (
    COPIES_BYTES,
    FRAME_LIMIT_BYTES,
    MOST_COPIES,
    PATIENCE_S,
    SerialTransport,
)
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.frames import check_bytes, decode_frame, encode_frame
from tritloom.sim.device.pty import Noise, PtyBridge
from tritloom.sim.device.reference import ReferenceDevice

CONFIG = replace(TINY, slots=8)
GIVE_UP_S = 10 * 2 * PATIENCE_S


class Port:
    """A pseudo-terminal: a transport at one end, the test at the other."""

    def __init__(self) -> None:
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)
        self.transport = SerialTransport(self.path, 1_000_000)

    def read(self) -> bytes:
        """What has come by now."""
        read = b""
        while select.select([self.master], [], [], 0.02)[0]:
            read += os.read(self.master, 4096)
        return read

    def write(self, data: bytes) -> None:
        """Write it all, while the transport reads what there is no room for."""
        while data:
            if select.select([], [self.master], [], 0)[1]:
                data = data[os.write(self.master, data) :]
            elif self.transport.receive(0) is not None:
                raise AssertionError("a packet where none was expected")

    def pull(self) -> None:
        for end in (self.master, self._slave):
            if end >= 0:
                os.close(end)
        self.master = self._slave = -1


@pytest.fixture
def port() -> Iterator[Port]:
    opened = Port()
    yield opened
    opened.transport.close()
    opened.pull()


def test_packets_go_out_and_come_in_as_frames(port: Port) -> None:
    port.transport.send(b"one\0two")
    assert port.read() == encode_frame(b"one\0two")
    port.write(encode_frame(b"three") + encode_frame(b"four"))
    assert port.transport.receive(1) == b"three"
    assert port.transport.receive(0) == b"four"
    assert port.transport.receive(0) is None


def test_a_frame_may_come_in_pieces(port: Port) -> None:
    for byte in encode_frame(b"abc\0def"):
        assert port.transport.receive(0) is None
        port.write(bytes([byte]))
    assert port.transport.receive(1) == b"abc\0def"


def test_every_byte_value_passes(port: Port) -> None:
    """The terminal changes, echoes and interprets nothing."""
    packet = bytes(range(256)) * 3
    port.transport.send(packet)
    assert port.read() == encode_frame(packet)
    port.write(encode_frame(packet))
    assert port.transport.receive(1) == packet


@pytest.mark.parametrize("zeros", [False, True])
def test_long_garbage_is_passed_over_and_not_kept(port: Port, zeros: bool) -> None:
    rng = random.Random(1)
    garbage = bytes(rng.randrange(0 if zeros else 1, 256) for _ in range(100_000))
    port.write(garbage)
    assert port.transport.receive(0.05) is None
    assert len(port.transport._received) <= FRAME_LIMIT_BYTES
    port.write(encode_frame(b"packet"))
    assert port.transport.receive(1) == b"packet"


def test_a_port_that_takes_nothing_blocks_nobody_and_loses_nothing(port: Port) -> None:
    packets = [random.Random(n).randbytes(1000) for n in range(60)]
    started = time.monotonic()
    for packet in packets:
        port.transport.send(packet)
        port.transport.send(packet)
        assert port.transport.receive(0.001) is None
    assert time.monotonic() - started < 5
    came = b""
    while piece := port.read():
        came += piece
        assert port.transport.receive(0.001) is None
    frames = b"".join(map(encode_frame, packets))
    # Those before the port was full were sent twice, the others were stored once.
    assert [frame for frame in came.split(b"\0") if frame][-50:] == [
        frame for frame in frames.split(b"\0") if frame
    ][-50:]


def test_after_waits_in_vain_the_first_is_sent_several_times(port: Port) -> None:
    frame, other = encode_frame(b"first"), encode_frame(b"second")
    for vain in range(1, MOST_COPIES + 3):
        assert port.transport.receive(0) is None
        port.transport.send(b"first")
        port.transport.send(b"second")
        assert port.read() == frame * min(1 + 2 * vain, MOST_COPIES) + other
    assert port.transport.receive(0) is None
    port.transport.send(bytes(COPIES_BYTES // 3))
    assert len(port.read()) <= COPIES_BYTES, "but not if it is long"
    port.write(frame)
    assert port.transport.receive(1) == b"first"
    port.transport.send(b"first")
    assert port.read() == frame


def test_a_damaged_frame_ends_the_wait_early(port: Port) -> None:
    damaged = bytearray(encode_frame(b"packet"))
    damaged[3] ^= 1
    port.write(bytes(damaged))
    started = time.monotonic()
    assert port.transport.receive(20) is None
    assert time.monotonic() - started < 10


def test_a_packet_that_is_sent_again_and_again_gets_more_time(port: Port) -> None:
    """Responses to earlier copies come, whole ones and damaged ones: the device is slow."""
    damaged = encode_frame(b"stale")[:-2] + b"\1\0"
    times_s = []
    for _ in range(20):
        port.transport.send(b"packet")
        port.write(encode_frame(b"stale") + damaged)
        assert port.transport.receive(1) == b"stale"
        assert port.transport.receive(1) is None
        times_s.append(port.transport._patience.haste_s)
    assert times_s[-1] > 4 * times_s[0]
    port.read()
    port.transport.send(b"next")
    assert port.transport._patience.haste_s < times_s[0]


@pytest.mark.parametrize("call", ["send", "receive"])
def test_a_pulled_cable_is_a_clear_error(port: Port, call: str) -> None:
    port.pull()
    with pytest.raises(DeviceError) as caught:
        port.transport.send(b"x") if call == "send" else port.transport.receive(5)
    assert re.fullmatch(
        rf"the link at {port.path} broke \(.+\); plug it in and connect again", str(caught.value)
    )


def test_closing_twice(port: Port) -> None:
    port.transport.close()
    port.transport.close()


def test_a_port_in_use(port: Port) -> None:
    with pytest.raises(DeviceError) as caught:
        SerialTransport(port.path, 1_000_000)
    assert str(caught.value) == (
        f"cannot open {port.path}: another program has it open; close that program"
    )


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EBUSY, "another program has it open; close that program"),
        (
            errno.EACCES,
            (
                "you may not use it; join the group dialout with "
                "`sudo usermod -aG dialout $USER`, then log in again"
            ),
        ),
        (
            errno.EMFILE,
            "too many files are open; close some, or raise the limit with `ulimit -n`",
        ),
        (errno.EIO, "Input/output error; `tritloom devices` lists the ports"),
    ],
)
def test_why_a_port_does_not_open(
    monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(number, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(DeviceError) as caught:
        connect("serial:///dev/ttyUSB7")
    assert str(caught.value) == f"cannot open /dev/ttyUSB7: {message}"


def test_a_file_is_no_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DeviceError) as caught:
        connect(f"serial://{file}")
    assert str(caught.value) == (
        f"cannot open {file}: it is no serial port, or nothing is behind it; "
        "`tritloom devices` lists the ports"
    )


@pytest.mark.parametrize(("group", "named"), [("uucp", "uucp"), ("root", "dialout")])
def test_the_group_of_a_port(monkeypatch: pytest.MonkeyPatch, group: str, named: str) -> None:
    """A port that belongs to root alone is one that no rule has given to the usual group."""
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group, "x", gid, [])))

    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(DeviceError, match=f"join the group {named} with"):
        connect("serial:///dev/null")


def test_a_port_in_use_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(
            "could not open port 'COM3': PermissionError(13, 'Access is denied.', None, 5)"
        )

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(DeviceError, match=r"^cannot open COM3: another program has it open; clo"):
        connect("serial://COM3")


def test_more_than_1024_open_files(port: Port) -> None:
    """The port's file number is then above those that `select` takes."""
    port.transport.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.fail(f"this test needs 1,100 open files, the limit is {hard}; raise it")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        transport = SerialTransport(port.path, 1_000_000)
        transport.send(b"packet")
        assert port.read() == encode_frame(b"packet")
        port.write(encode_frame(b"response"))
        assert transport.receive(1) == b"response"
        assert transport.receive(0) is None
        transport.close()
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class SlowLink:
    """A golden device behind a pseudo-terminal; every byte from it is late."""

    def __init__(self, port: Port, latency_s: float) -> None:
        self._port = port
        self._latency_s = latency_s
        self._device = ReferenceDevice(CONFIG)
        self._ended = threading.Event()
        self.frames = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _serve(self) -> None:
        received = b""
        late: list[tuple[float, bytes]] = []
        while not self._ended.is_set():
            if select.select([self._port.master], [], [], 0.002)[0]:
                received += os.read(self._port.master, 4096)
            *frames, received = received.split(b"\0")
            for frame in filter(None, frames):
                packet = decode_frame(frame)
                assert packet is not None
                self.frames += 1
                response = self._device.process(packet)
                assert response is not None
                late.append((time.monotonic() + self._latency_s, encode_frame(response)))
            while late and late[0][0] <= time.monotonic():
                os.write(self._port.master, late.pop(0)[1])


@pytest.mark.slow
def test_half_a_second_of_latency(port: Port) -> None:
    """The session learns it from RESET; after that no packet is sent in vain."""
    port.transport.close()
    link = SlowLink(port, 0.5)
    try:
        with connect(f"serial://{port.path}?baud=1000000") as device:
            handle = device.load(layer_of())
            frames, again = link.frames, device._session.retransmissions
            codes = codes_of(20)
            job = device.submit(handle, codes)
            started_s = time.monotonic()
            assert np.array_equal(job.result(), numerics.matmul(handle.layer.trits, codes))
            assert device._session.retransmissions == again
            assert link.frames == frames + 60
            assert time.monotonic() - started_s < 1.5 * 0.5 * 60 / CONFIG.window
    finally:
        link.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("serial", 'serial needs a port, as in "serial:///dev/ttyUSB0?baud=3000000"'),
        ("serial:///dev/x?speed=9600", "unknown key 'speed' for device 'serial'; known are baud"),
        ("serial:///dev/x?baud=fast", "baud must be 1200 to 3000000, not 'fast'"),
        ("serial:///dev/x?baud=300", "baud must be 1200 to 3000000, not '300'"),
        ("serial:///dev/x?baud=²", "baud must be 1200 to 3000000, not '²'"),
    ],
)
def test_urls_that_are_wrong(url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        connect(url)
    assert str(caught.value) == message


def test_a_port_that_is_missing() -> None:
    with pytest.raises(DeviceError) as caught:
        connect("serial:///dev/no-such-port")
    assert str(caught.value) == (
        "cannot open /dev/no-such-port: No such file or directory; "
        "`tritloom devices` lists the ports"
    )


def responding(port: Port, reply: bytes | None) -> threading.Thread:
    """A thing at the port that is no device: it echoes, or sends the reply to whatever comes."""

    def serve() -> None:
        while select.select([port.master], [], [], 0.5)[0]:
            heard = os.read(port.master, 4096)
            with suppress(BlockingIOError):
                os.write(port.master, reply or heard)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("reply", [b"login: ", b"\0\0\0", b"\xff" * 40])
def test_what_is_no_device_is_a_clear_error(port: Port, reply: bytes | None) -> None:
    """Also a device at another baud rate: it hears garbage and sends nothing, or sends it."""
    port.transport.close()
    url = f"serial://{port.path}?baud=9600"
    thread = responding(port, reply)
    started = time.monotonic()
    with pytest.raises(DeviceTimeout) as caught:
        connect(url)
    assert time.monotonic() - started < 2 * GIVE_UP_S
    thread.join()
    message = str(caught.value)
    assert message.startswith(f"{url} does not respond to RESET, tried ")
    assert message.endswith("check its power, bitstream, cable and baud, then connect again")
    assert "\n" not in message


def test_an_echo_is_no_device(port: Port) -> None:
    """Receive and transmit wired together, say."""
    port.transport.close()
    thread = responding(port, None)
    url = f"serial://{port.path}?baud=9600"
    with pytest.raises(DeviceError) as caught:
        connect(url)
    thread.join()
    assert str(caught.value) == (
        f"{url} returns what is sent to it and is no device; separate transmit from receive, or "
        "choose the port of the board"
    )


def test_a_silent_port_is_a_clear_error_in_time(port: Port) -> None:
    port.transport.close()
    started = time.monotonic()
    with pytest.raises(DeviceTimeout, match="does not respond to RESET"):
        connect(f"serial://{port.path}?baud=1000000")
    assert time.monotonic() - started < GIVE_UP_S


def url_of(bridge: PtyBridge) -> str:
    return f"serial://{bridge.path}?baud={bridge.baud}"


def layer_of(out_features: int = 6, in_features: int = 10, seed: int = 0) -> TernaryLayer:
    random = np.random.default_rng(seed)
    trits = random.integers(-1, 2, (out_features, in_features), np.int8)
    return TernaryLayer.from_trits(trits, 1.0)


def codes_of(tokens: int, in_features: int = 10, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(-128, 128, (tokens, in_features))
    return codes.astype(np.int8)


def is_exact(device: Device, tokens: int = 4, seed: int = 0) -> bool:
    layer, codes = layer_of(seed=seed), codes_of(tokens, seed=seed)
    handle = device.load(layer)
    sums = device.matmul(handle, codes)
    device.unload(handle)
    return np.array_equal(sums, numerics.matmul(layer.trits, codes))


@pytest.fixture
def bridge() -> Iterator[PtyBridge]:
    with PtyBridge(CONFIG) as opened:
        yield opened


@pytest.mark.sim
class TestDevice:
    def test_everything_works_on_a_good_link(self, bridge: PtyBridge) -> None:
        with connect(url_of(bridge)) as device:
            assert device.info.config == bridge.config
            assert device.info.layout_digest == CONFIG.layout_digest.hex()
            for seed in range(5):
                assert is_exact(device, seed=seed)
            result = device.selftest()
            assert result.ok, str(result)
            counters = device.counters()
            assert counters.bad_packets == counters.dropped_packets == 0
            assert counters.packets > 50
            assert device._session.retransmissions == 0

    def test_the_layout_is_checked(self, bridge: PtyBridge) -> None:
        with connect(url_of(bridge), config=CONFIG):
            pass
        with pytest.raises(DeviceError, match="lanes 5 instead of 10"):
            connect(url_of(bridge), config=replace(CONFIG, lanes=10))

    def test_garbage_before_and_between_frames(self, bridge: PtyBridge) -> None:
        rng = random.Random(5)
        bridge.inject_in(rng.randbytes(500))
        bridge.inject(rng.randbytes(500))
        with connect(url_of(bridge)) as device:
            for seed in range(20):
                bridge.inject_in(rng.randbytes(rng.randrange(60)))
                bridge.inject(rng.randbytes(rng.randrange(60)))
                assert is_exact(device, seed=seed)

    @pytest.mark.parametrize("seconds", [0.1, 1.0])
    def test_a_stalled_reader(self, bridge: PtyBridge, seconds: float) -> None:
        """More than the terminal holds waits meanwhile."""
        with connect(url_of(bridge)) as device:
            handle = device.load(layer_of())
            codes = codes_of(100)
            job = device.submit(handle, codes)
            bridge.stall(seconds)
            assert np.array_equal(job.result(), numerics.matmul(handle.layer.trits, codes))

    @pytest.mark.parametrize("power_up", [False, True])
    def test_a_cable_pulled_in_mid_command(self, bridge: PtyBridge, power_up: bool) -> None:
        device = connect(url_of(bridge))
        job = device.submit(device.load(layer_of()), codes_of(400))
        timer = threading.Timer(0.05, bridge.unplug)
        timer.start()
        started = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            job.result()
        assert time.monotonic() - started < GIVE_UP_S
        timer.join()
        assert "broke" in str(caught.value) and "connect again" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(DeviceError, match="connect again"):
            device.counters()
        with pytest.raises(DeviceError, match="cannot open"):
            connect(url_of(bridge))
        bridge.plug(power_up=power_up)
        with connect(url_of(bridge)) as again:
            assert is_exact(again)

    def test_a_device_that_lost_its_power(self, bridge: PtyBridge) -> None:
        with connect(url_of(bridge)) as device:
            handle = device.load(layer_of())
            bridge.plug(power_up=True)
            with pytest.raises(DeviceError, match="was reset; connect again"):
                device.matmul(handle, codes_of(1))
        with connect(url_of(bridge)) as device:
            assert is_exact(device)

    def test_a_new_connection_ends_the_one_before(self, bridge: PtyBridge) -> None:
        with connect(url_of(bridge)) as device:
            device.submit(device.load(layer_of()), codes_of(20))
        with connect(url_of(bridge)) as device:
            assert is_exact(device)


def run_on_a_bad_link(commands: int, rate: float, seed: int) -> None:
    """Each command of a product is one of three: LOAD, RUN, RESULTS; no more than that are sent."""
    noise = Noise.each(rate)
    with PtyBridge(CONFIG, seed) as bridge:
        bridge.noise = {"in": noise, "out": noise}
        with connect(url_of(bridge)) as device:
            done = 0
            while done < commands:
                layer, codes = layer_of(seed=done), codes_of(100, seed=done)
                handle = device.load(layer)
                job = device.submit(handle, codes)
                done += len(job._commands)
                assert np.array_equal(job.result(), numerics.matmul(layer.trits, codes))
                device.unload(handle)
            assert device._session.retransmissions > commands * rate
        assert len(bridge.faults) == 6
        assert min(bridge.faults.values()) > commands * rate


@pytest.mark.sim
def test_a_thousand_commands_on_a_bad_link() -> None:
    """A byte in a hundred wrong, one lost, one twice: both ways, every third frame is whole."""
    run_on_a_bad_link(1_000, 0.01, 1)


@pytest.mark.sim
@pytest.mark.slow
def test_ten_thousand_commands_on_a_bad_link() -> None:
    run_on_a_bad_link(10_000, 0.01, 2)


@pytest.mark.sim
def test_commands_on_a_link_that_is_bad_at_times() -> None:
    run_on_a_bad_link(1_000, 0.001, 3)


@pytest.mark.sim
class TestBridge:
    def test_closing_frees_everything(self) -> None:
        with PtyBridge(CONFIG):
            pass
        gc.collect()
        before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
        threads = threading.active_count()
        bridge = PtyBridge(CONFIG)
        folder = os.path.dirname(bridge.path)
        bridge.close()
        bridge.close()
        after = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
        assert len(after) == len(before)
        assert threading.active_count() == threads
        assert not os.path.exists(folder)
        with pytest.raises(DeviceError, match="the bridge is closed; make a new one"):
            bridge.unplug()

    def test_it_does_not_keep_the_interpreter(self) -> None:
        program = (
            "from dataclasses import replace; from tritloom.rtl.spec.config import TINY; "
            "from tritloom.sim.device.pty import PtyBridge; b = PtyBridge(replace(TINY, slots=8)); "
            "print(b.path)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
        )
        assert not os.path.lexists(ran.stdout.strip())

    def test_noise_is_what_it_says(self) -> None:
        with PtyBridge(CONFIG, seed=4) as bridge:
            bridge.noise["in"] = Noise(drop=0.5)
            assert 400 < len(bridge._through("in", bytes(1000))) < 600
            bridge.noise["in"] = Noise(repeat=0.5)
            assert 1400 < len(bridge._through("in", bytes(1000))) < 1600
            bridge.noise["in"] = Noise(flip=1.0)
            flipped = bridge._through("in", bytes(1000))
            assert {byte.bit_count() for byte in flipped} == {1}
            assert bridge._through("out", b"clean") == b"clean"
            assert bridge.faults["in flip"] == 1000


class TestBursts:
    """That every burst of at most 32 bits is found: for certain, not by trial.

    On the line, bits of a byte go low first. Without the bits that mark the check's bytes, a frame
    is its body followed by 32 bits of CRC (and three zeros). The check is affine in the body, so
    an error passes only if the error itself, as a body and a check, has no remainder; that depends
    on the error's place in the frame and not on the frame. Leaving the marks out makes no burst
    longer, so it is enough that the remainders of any 32 neighbouring bits are independent.
    """

    BODY_BYTES = 64

    def remainders(self) -> list[int]:
        """The remainder of each single wrong bit of body and CRC, in the line's order."""

        def crc_of(body: bytes) -> int:
            digits = check_bytes(body)
            assert all(digit & 0x80 for digit in digits) and digits[-1] >> 4 == 8
            return sum((digit & 0x7F) << (7 * n) for n, digit in enumerate(digits))

        zero = crc_of(bytes(self.BODY_BYTES))
        remainders = []
        for bit in range(8 * self.BODY_BYTES):
            wrong = (1 << bit).to_bytes(self.BODY_BYTES, "little")
            remainders.append(crc_of(wrong) ^ zero)
        return remainders + [1 << bit for bit in range(32)]

    def test_the_check_is_affine(self) -> None:
        rng = random.Random(1)
        for _ in range(100):
            a, b, c = (rng.randbytes(self.BODY_BYTES) for _ in range(3))
            together = bytes(x ^ y ^ z for x, y, z in zip(a, b, c, strict=True))
            bits = [int.from_bytes(check_bytes(body), "little") for body in (a, b, c, together)]
            assert bits[0] ^ bits[1] ^ bits[2] == bits[3]

    def test_any_32_neighbours_are_independent(self) -> None:
        remainders = self.remainders()
        for start in range(len(remainders) - 31):
            basis: dict[int, int] = {}
            for remainder in remainders[start : start + 32]:
                while remainder and remainder.bit_length() in basis:
                    remainder ^= basis[remainder.bit_length()]
                assert remainder, f"a burst from bit {start} has no remainder"
                basis[remainder.bit_length()] = remainder

    def test_a_place_farther_from_the_end_is_no_different(self) -> None:
        """One bit earlier multiplies every remainder by the same invertible matrix."""
        remainders = self.remainders()
        body = remainders[: 8 * self.BODY_BYTES]
        step = dict(zip(body[1:], body, strict=False))
        polynomial = 0xEDB88320
        for later, earlier in step.items():
            assert earlier == (later >> 1) ^ (polynomial if later & 1 else 0)
        assert polynomial >> 31 == 1, "so it can be undone: the lost bit shows in the top one"

    def test_a_burst_of_33_bits_can_pass(self) -> None:
        """The polynomial itself: the bound cannot be better."""
        body = bytes(random.Random(2).randbytes(self.BODY_BYTES))
        remainders = self.remainders()
        error, left = 0, 0
        for bit in range(33):
            if bit == 0 or (0x1DB710641 >> bit) & 1:
                error |= 1 << (8 + bit)
                left ^= remainders[8 + bit]
        assert left == 0
        wrong = (int.from_bytes(body, "little") ^ error).to_bytes(self.BODY_BYTES, "little")
        assert wrong != body and check_bytes(wrong) == check_bytes(body)
