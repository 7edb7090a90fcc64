"""A device for several programs: exact sums, or a clear error; who goes leaves nothing behind."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest

from tests.support.processes import interruptible
from tritloom.gen.cli.serve import BLAS_THREADS
from tritloom.host import DeviceError, connect
from tritloom.host.serve.client import Client
from tritloom.host.serve.server import LONGEST_PATH, Server
from tritloom.host.serve.wire import HEADER, MAGIC, MOST_BYTES, READ_BYTES, Kind, Receiver, send
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.groups import matmul_groups
from tritloom.rtl.spec.scale_facts import ScaleConfig

CONFIG = replace(TINY.with_words(512), max_layers=8)
WAIT_S = 10.0


def made(seed, out_features=7, in_features=19, tokens=3):
    random = np.random.default_rng(seed)
    trits = random.integers(-1, 2, (out_features, in_features)).astype(np.int8)
    codes = random.integers(-128, 128, (tokens, in_features)).astype(np.int8)
    return trits, codes


def is_exact(sums, trits, codes):
    """Of one layer without groups."""
    return np.array_equal(sums[0][..., 0], numerics.matmul(trits, codes))


@pytest.fixture
def device():
    with connect("golden", config=CONFIG) as device:
        yield device


@contextmanager
def serving(device, path):
    with Server(device, path) as server:
        errors = []

        def serve():
            try:
                server.serve()
            except DeviceError as error:
                errors.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        server.errors, server.thread = errors, thread
        try:
            yield server
        finally:
            server.stop()
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.fixture
def server(device, tmp_path):
    with serving(device, tmp_path / "s") as server:
        yield server


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_products(server, device):
    """Layers of one input in one message; extreme codes and weights among them."""
    trits, codes = made(1)
    ones = np.ones((4, 19), np.int8)
    codes[0], codes[1] = -128, 127
    with Client(server.path) as client:
        assert client.info() == {
            "url": "golden",
            "free_words": device.info.free_words,
            "max_out_features": CONFIG.max_out_features,
            "max_in_features": CONFIG.max_in_features,
            "act_bits": 8,
        }
        layers = [client.load(trits), client.load(ones), client.load(-ones)]
        sums = client.products([*layers, layers[0]], codes)
        for got, weights in zip(sums, (trits, ones, -ones, trits), strict=True):
            assert got.dtype == np.int32
            assert got.shape == (*got.shape[:2], 1)
            assert np.array_equal(got[..., 0], numerics.matmul(weights, codes))
        assert client.products([], codes) == []
        client.unload(layers[1])
        assert np.array_equal(client.products([layers[2]], codes)[0], sums[2])
        assert device.info.layers_used == 2
        assert server.products == 5


def test_numbers_of_layers(server, device):
    """A number is of one layer at a time; after UNLOAD it is of none."""
    trits, codes = made(9)
    with Client(server.path) as client:
        layers = [client.load(np.roll(trits, n, axis=0)) for n in range(3)]
        client.unload(layers[0])
        with pytest.raises(DeviceError, match="layer must be a number that LOAD gave"):
            client._ask(Kind.UNLOAD, struct.pack("<I", layers[0]))
        layers[0] = client.load(np.roll(trits, 5, axis=0))
        for layer, turn in zip(layers, (5, 1, 2), strict=True):
            assert is_exact(client.products([layer], codes), np.roll(trits, turn, axis=0), codes)
        assert device.info.layers_used == 3


def test_groups(server, device):
    """Each group of inputs is summed for itself, beside a layer without groups."""
    trits, codes = made(8, 5, 24)
    codes[0], codes[1] = -128, 127
    with Client(server.path) as client:
        assert client.fits(5, 24, 8)
        layers = [client.load(trits, 8), client.load(trits)]
        groups, whole = client.products(layers, codes)
        for group in range(3):
            columns = slice(8 * group, 8 * group + 8)
            expected = numerics.matmul(trits[:, columns], codes[:, columns])
            assert np.array_equal(groups[..., group], expected)
        assert np.array_equal(groups.sum(axis=-1), whole[..., 0])
        assert device.info.layers_used == 3 + 2  # 24 inputs are two pieces
        for wrong in (codes[:, 1:], np.pad(codes, ((0, 0), (0, 1)))):
            with pytest.raises(DeviceError, match=f"24 features, not {wrong.shape[1]}"):
                client.products(layers[:1], wrong)
        client.unload(layers[0])
        assert device.info.layers_used == 2


def test_groups_of_the_device(tmp_path):
    """A device with groups has one layer; groups that it cannot have are layers of their own."""
    trits, codes = made(8, 5, 24)
    codes[0], codes[1] = -128, 127
    config = replace(CONFIG, max_in_features=30, max_group_sums=32)
    with (
        connect("golden", config=config) as device,
        serving(device, tmp_path / "s") as server,
        Client(server.path) as client,
    ):
        for group, used in ((8, 1), (24, 1), (2, 12), (0, 1)):
            assert client.fits(5, 24, group) == (used <= config.max_layers)
            if used > config.max_layers:
                continue
            layer = client.load(trits, group)
            assert device.info.layers_used == used
            (sums,) = client.products([layer], codes)
            assert np.array_equal(sums, matmul_groups(trits, codes, group))
            client.unload(layer)
            assert device.info.layers_used == 0
        twos = np.where(trits > 0, np.int8(2), trits)
        (sums,) = client.products([client.load(twos, 8)], codes)
        assert np.array_equal(sums, matmul_groups(twos, codes, 8))


def test_a_device_with_scales(tmp_path):
    """A client applies the scales itself, so it gets the sums of layers of their own."""
    trits, codes = made(8, 5, 24)
    config = replace(CONFIG, max_in_features=30, scale=ScaleConfig(group=10), max_layers=8)
    with (
        connect("golden", config=config) as device,
        serving(device, tmp_path / "s") as server,
        Client(server.path) as client,
    ):
        for group in (8, 0):
            (sums,) = client.products([client.load(trits, group)], codes)
            assert np.array_equal(sums, matmul_groups(trits, codes, group))


def test_what_fits(server, device):
    """It is the empty device that is asked about; a layer of which a part fits leaves nothing."""
    rows, columns, free = CONFIG.max_out_features, CONFIG.max_in_features, device.info.free_words
    with Client(server.path) as client:
        client.load(np.ones((rows, columns), np.int8))
        used = device.info.layers_used
        left = device.info.free_words
        assert client.fits(rows, columns)
        assert not client.fits(rows, columns * CONFIG.memory_words)
        slots = CONFIG.max_layers
        assert client.fits(1, slots, 1)
        assert not client.fits(1, slots + 1, 1)
        with pytest.raises(DeviceError, match="layer"):
            client.load(np.ones((1, slots + 1), np.int8), 1)
        assert (device.info.layers_used, device.info.free_words) == (used, left)
        for ask in (client.fits, lambda *shape: client.load(np.ones(shape[:2], np.int8), shape[2])):
            with pytest.raises(DeviceError, match="group must divide the 19 inputs, not be 4"):
                ask(7, 19, 4)
    wait_until(lambda: device.info.free_words == free)


def test_refusals_leave_the_client_connected(server):
    trits, codes = made(2)
    with Client(server.path) as client:
        layer = client.load(trits)
        client._shapes[9] = 7, 1
        for ask, message in (
            (lambda: client.products([9], codes), "layer must be a number that LOAD gave .* not 9"),
            (lambda: client.products([layer], codes[:, 1:]), "codes must have 19 features, not 18"),
            (lambda: client.load(trits + 2), "trits must be -1, 0 or 1"),
            (lambda: client.load(np.zeros((1, 0), np.int8)), "must not be empty"),
            (lambda: client.products([layer], np.pad(codes, (0, 1))), "19 features, not 20"),
            (lambda: client.products([layer], codes[:0]), "codes must not be empty"),
            (lambda: client.load(np.zeros((4096, 4096), np.int8)), "word"),
            (lambda: client.unload(9), "layer must be a number"),
            (lambda: client._ask(Kind.LOAD, b"1234"), "LOAD must have at least 12 bytes, not 4"),
            (
                lambda: client._ask(Kind.LOAD, struct.pack("<3I", 3, 3, 0), b"1" * 8),
                "must have 9 byt",
            ),
            (lambda: client._ask(Kind.PRODUCTS, struct.pack("<3I", 1, 1, 1)), "must have 17 bytes"),
            (lambda: client._ask(Kind.UNLOAD), "UNLOAD must have at least 4 bytes, not 0"),
            (lambda: client._ask(77), "kind must be .*, not 77"),
        ):
            with pytest.raises(DeviceError, match=message):
                ask()
            expected = numerics.matmul(trits, codes)
            assert np.array_equal(client.products([layer], codes)[0][..., 0], expected)


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", HEADER.pack(MAGIC, Kind.LOAD, MOST_BYTES + 1)]
)
def test_a_stranger_is_told_and_dropped(server, junk):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(server.path))
        link.sendall(junk)
        kind, body = Receiver(link).receive()
        assert kind == Kind.ERROR
        assert b"is no message of tritloom serve" in bytes(body)
        with suppress(ConnectionResetError):  # a part of the junk was not read
            assert link.recv(1) == b""
    with Client(server.path) as client:
        assert client.info()["url"] == "golden"


@pytest.mark.parametrize("cut", [0, 1, HEADER.size, HEADER.size + 5])
def test_a_client_that_dies_leaves_nothing(server, device, cut):
    """In the middle of a message or between two; the layers of others stay."""
    trits, codes = made(3)
    with Client(server.path) as other:
        kept = other.load(trits)
        client = Client(server.path)
        client.load(trits)
        message = HEADER.pack(MAGIC, Kind.LOAD, 100) + b"abcdefgh"
        client._link.sendall(message[:cut])
        assert device.info.layers_used == 2
        client.close()
        wait_until(lambda: device.info.layers_used == 1)
        wait_until(lambda: server.clients == 1)
        assert is_exact(other.products([kept], codes), trits, codes)


def test_a_layer_belongs_to_its_client(server):
    trits, codes = made(4)
    with Client(server.path) as first, Client(server.path) as second:
        layer = first.load(trits)
        second._shapes[layer] = 7, 1
        with pytest.raises(DeviceError, match="layer must be a number that LOAD gave this client"):
            second.products([layer], codes)
        with pytest.raises(DeviceError, match="layer must be a number"):
            second.unload(layer)


def test_clients_at_once(server):
    wrong = []

    def work(seed):
        trits, codes = made(seed)
        with Client(server.path) as client:
            layer = client.load(trits)
            for token in range(20):
                sums = client.products([layer], codes + np.int8(token))[0][..., 0]
                if not np.array_equal(sums, numerics.matmul(trits, codes + np.int8(token))):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_lost_device_ends_the_server(device, tmp_path, monkeypatch):
    """Each client gets the reason; the server ends with it, and its socket is gone."""
    trits, codes = made(5)
    with serving(device, tmp_path / "s") as server:
        with Client(server.path) as client, Client(server.path) as idle:
            layer = client.load(trits)
            device.close()
            with pytest.raises(DeviceError, match="closed"):
                client.products([layer], codes)
            server.thread.join(WAIT_S)
            assert [str(error) for error in server.errors]
            server.close()
            with pytest.raises(DeviceError, match="start tritloom serve again"):
                idle.info()
        with pytest.raises(DeviceError, match="start tritloom serve there"):
            Client(server.path)


def test_a_device_error_that_passes_does_not_end_the_server(server, device, monkeypatch):
    trits, codes = made(6)
    with Client(server.path) as client:
        layer = client.load(trits)
        with monkeypatch.context() as patch:

            def fail(handles, codes):
                raise DeviceError("the weight memory failed")

            patch.setattr(device, "submit_all", fail)
            with pytest.raises(DeviceError, match="the weight memory failed"):
                client.products([layer], codes)
        assert np.array_equal(
            client.products([layer], codes)[0][..., 0], numerics.matmul(trits, codes)
        )
    assert server.errors == []


def test_a_defect_reaches_the_client_and_ends_nothing(server, device, monkeypatch, capfd):
    """One line for the client that met it, its traceback on standard error; all go on."""
    trits, codes = made(6)
    with Client(server.path) as client, Client(server.path) as other:
        layer, others = client.load(trits), other.load(-trits)
        for method, ask in (
            ("submit_all", lambda: client.products([layer], codes)),
            ("unload", lambda: client.unload(layer)),
            ("load", lambda: client.load(trits)),
        ):
            with monkeypatch.context() as patch:

                def fail(*arguments):
                    raise RuntimeError("two\nlines")

                patch.setattr(device, method, fail)
                with pytest.raises(DeviceError) as failed:
                    ask()
            assert str(failed.value) == (
                "the server failed with RuntimeError: two lines; its own output says where"
            )
            _, err = capfd.readouterr()
            assert err.startswith("Traceback") and err.endswith("RuntimeError: two\nlines\n")
            assert is_exact(client.products([layer], codes), trits, codes)
            assert is_exact(other.products([others], codes), -trits, codes)
    wait_until(lambda: device.info.layers_used == 0)
    assert server.errors == []


def test_a_defect_that_cannot_be_printed(server, device, monkeypatch):
    """Nobody reads what the server prints; the client has its line all the same."""
    trits, codes = made(6)

    def fail(*arguments):
        raise RuntimeError

    def print_to_nobody():
        raise BrokenPipeError

    with Client(server.path) as client:
        layer = client.load(trits)
        with monkeypatch.context() as patch:
            patch.setattr(device, "submit_all", fail)
            patch.setattr(traceback, "print_exc", print_to_nobody)
            with pytest.raises(DeviceError, match="failed with RuntimeError; its own output"):
                client.products([layer], codes)
        assert is_exact(client.products([layer], codes), trits, codes)


def test_a_defect_while_a_client_goes(server, device, monkeypatch, capfd):
    """The layers that the device can unload are unloaded."""
    trits, _ = made(6)
    unload, calls = device.unload, []

    def fail_once(handle):
        calls.append(handle)
        if len(calls) == 1:
            raise RuntimeError("no unload")
        unload(handle)

    monkeypatch.setattr(device, "unload", fail_once)
    with Client(server.path) as client:
        for _ in range(3):
            client.load(trits)
    wait_until(lambda: device.info.layers_used == 1 and len(calls) == 3)
    assert capfd.readouterr().err.endswith("RuntimeError: no unload\n")
    with Client(server.path) as client:
        assert client.info()["url"] == "golden"


def test_a_defect_while_an_error_is_judged(server, device, monkeypatch, capfd):
    """The device is asked whether it is lost, and that fails in a way that nobody expects."""
    trits, codes = made(6)

    def fail(*arguments):
        raise DeviceError("the weight memory failed")

    def fail_otherwise():
        raise RuntimeError("no counters")

    with Client(server.path) as client:
        layer = client.load(trits)
        with monkeypatch.context() as patch:
            patch.setattr(device, "submit_all", fail)
            patch.setattr(device, "counters", fail_otherwise)
            with pytest.raises(DeviceError, match="the weight memory failed"):
                client.products([layer], codes)
            wait_until(lambda: "no counters" in capfd.readouterr().err)
        assert is_exact(client.products([layer], codes), trits, codes)


def test_where_the_socket_may_be(device, tmp_path):
    path = tmp_path / "s"
    with Server(device, path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ToolError, match="another server uses this socket"):
            Server(device, path)
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Server(device, path):
        pass
    path.write_text("text")
    with pytest.raises(ToolError, match="exists and is no socket"):
        Server(device, path)
    assert path.read_text() == "text"
    with pytest.raises(ToolError, match=f"at most {LONGEST_PATH} bytes"):
        Server(device, tmp_path / ("x" * LONGEST_PATH))
    with pytest.raises(ToolError, match="No such file"):
        Server(device, tmp_path / "none" / "s")


def test_send_and_receive():
    near, far = socket.socketpair()
    with near, far:
        receiver = Receiver(far)
        send(near, Kind.LOAD, b"ab", memoryview(b"cd"))
        send(near, Kind.INFO)
        assert receiver.receive() == (Kind.LOAD, b"abcd")
        assert receiver.receive() == (Kind.INFO, b"")
        near.close()
        assert receiver.receive() is None


@pytest.mark.parametrize("piece", [1, 7, HEADER.size, READ_BYTES - 3, 1 << 20])
def test_messages_in_pieces(piece):
    """Short and long messages, in the pieces in which the system happens to hand them over."""
    random = np.random.default_rng(piece)
    sizes = [0, 5, READ_BYTES - HEADER.size, READ_BYTES, 3, 3 * READ_BYTES, 0, 77, READ_BYTES - 1]
    if piece < HEADER.size:
        sizes = [0, 5, 300, 1, 0]
    bodies = [random.bytes(size) for size in sizes]
    stream = b"".join(HEADER.pack(MAGIC, Kind.LOAD, len(body)) + body for body in bodies)

    class Link:
        def recv_into(self, room):
            nonlocal stream
            count = min(piece, len(stream), len(room))
            room[:count], stream = stream[:count], stream[count:]
            return count

    receiver = Receiver(Link())
    for body in bodies:
        assert receiver.receive() == (Kind.LOAD, body)
    assert receiver.receive() is None


@pytest.mark.parametrize("ready_s", [0.0, 2e-3, 4e-3, 9.0])
def test_it_is_awake_for_a_while(monkeypatch, ready_s):
    """Bytes that come soon are taken without sleep, others after it. Each look takes 1 ms."""
    now, asked = [0.0], []

    def clock():
        now[0] += 1e-3
        return now[0]

    class Link:
        def recv_into(self, room, size=0, flags=0):
            asked.append(flags)
            if flags and now[0] < ready_s:
                raise BlockingIOError
            message = HEADER.pack(MAGIC, Kind.INFO, 0)
            room[: len(message)] = message
            return len(message)

    monkeypatch.setattr(time, "perf_counter", clock)
    assert Receiver(Link(), 5e-3).receive() == (Kind.INFO, b"")
    wait, sleep = socket.MSG_DONTWAIT, 0
    assert (
        asked == {0.0: [wait], 2e-3: [wait], 4e-3: [wait] * 3, 9.0: [wait] * 4 + [sleep]}[ready_s]
    )


@contextmanager
def command(path, **environment):
    """`tritloom serve` as a process, and what it printed."""
    words = [sys.executable, "-m", "tritloom", "serve", "--device", "golden", "--json"]
    env = {name: text for name, text in os.environ.items() if name not in BLAS_THREADS}
    with subprocess.Popen(
        [*words, "--socket", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
        env=env | environment,
    ) as served:
        try:
            yield served, json.loads(served.stdout.readline())
        finally:
            served.terminate()


@pytest.mark.sim
@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command(tmp_path, sign, status):
    path = tmp_path / "s"
    with command(path) as (served, printed):
        assert (printed["socket"], printed["device"]) == (str(path), "golden")
        trits, codes = made(7, 40, 60)
        with Client(path) as client:
            layer = client.load(trits)
            assert np.array_equal(
                client.products([layer], codes)[0][..., 0], numerics.matmul(trits, codes)
            )
            served.send_signal(sign)
            _, err = served.communicate(timeout=30)
            with pytest.raises(DeviceError, match="start tritloom serve again"):
                client.info()
        assert served.returncode == status
        assert "Traceback" not in err
    assert not os.path.lexists(path)


@pytest.mark.sim
@pytest.mark.skipif(
    not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) < 2,
    reason="the threads of a process, of which BLAS has one for each processor",
)
@pytest.mark.parametrize(
    ("environment", "threads"),
    [({}, 1), *(({name: "2"}, 2) for name in BLAS_THREADS)],
)
def test_the_command_has_one_thread_for_products(tmp_path, environment, threads):
    """Without a client its threads are the main one and those of BLAS."""
    with command(tmp_path / "s", **environment) as (served, _):
        assert len(os.listdir(f"/proc/{served.pid}/task")) == threads


def test_the_command_says_what_is_wrong(run, tmp_path, monkeypatch):
    monkeypatch.setenv(BLAS_THREADS[0], "1")  # so that the command changes no variable
    (tmp_path / "file").write_text("")
    status, out, err = run("serve", "--device", "golden", "--socket", tmp_path / "file")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1 and "exists and is no socket" in err
