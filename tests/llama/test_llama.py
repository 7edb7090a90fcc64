"""llama.cpp with a device: the floats and texts of its own CPU, or a clear line and no number.

The CPU is ggml's plain C code, whose order of roundings the back end promises.
"""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from tests.llama.running import (
    FLOATS,
    GROUPS,
    PROMPTS,
    TOKENS,
    compiled,
    completion,
    environment,
    is_same_text,
    run_on,
    run_with,
    served,
)
from tests.support import ROOT
from tests.support.tinylm_gguf import write_tinylm
from tritloom.gen.flow.llama import build_backend
from tritloom.host import DeviceError, connect
from tritloom.host.device import Device
from tritloom.host.serve.thread import serving
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.sim.device.simulated import SimulatedDevice

pytestmark = pytest.mark.llama


@pytest.mark.parametrize("shape", [(64, 512, 16), (1, 256, 1), (300, 768, 3)])
def test_floats_are_those_of_plain_c(llama, backend, products, shape):
    out, err = run_with(backend, products, llama.cpu, backend, *map(str, shape), verify="always")
    for line, name in zip(out.splitlines(), ("tq1_0", "tq2_0", "q2_0"), strict=True):
        assert line == f"{name} 0 {4 * shape[0] * shape[2]}"
    assert "tritloom: 12 products on golden, 0 on this computer" in err


def test_codes_and_sums_are_those_of_ggml(llama, tmp_path):
    """1e8 of each: the codes of activations, and the sums of blocks of weights."""
    program = compiled(llama, "vectors", tmp_path)
    command = [program, llama.fast_cpu, "100000000", "100000000"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    names = ("tq1_0", "tq2_0", "q2_0")
    assert ran.stdout.splitlines() == [f"{name} 0 codes 0 sums" for name in names]


def test_backend_ops(llama, backend):
    """ggml's own test of a back end, on the simulated FPGA."""
    program = llama.programs / "test-backend-ops"
    out, _ = run_with(backend, program, "test", "-o", "MUL_MAT", "-b", "Tritloom", device="sim")
    assert "Backend Tritloom: " in out
    assert "OK" in out.split("Backend Tritloom: ")[1][:40]
    lines = [re.sub(r"\x1b\[\d+(;\d+)*m", "", line) for line in out.splitlines()]
    assert sum(line.endswith(": OK") for line in lines if "type_a=tq" in line) >= 20


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0", "Q2_0", "groups"])
def test_texts_are_those_of_the_cpu(llama, backend, models, name):
    for prompt in PROMPTS:
        command = completion(llama, models[name], prompt)
        alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        out, err = run_with(backend, *command)
        assert len(out) > len(prompt) + TOKENS
        assert is_same_text(out, alone)
        assert re.search(r"tritloom: \d+ products on golden, \d+ on this computer", err)


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0", "Q2_0"])
@pytest.mark.parametrize("codes", ["block", "token"])
def test_on_the_simulated_fpga(llama, backend, models, name, codes):
    """Every product is compared; the text is that of the golden device."""
    command = completion(llama, models[name], "Emma was", 8)
    out, err = run_with(backend, *command, device="sim", codes=codes, verify="always")
    assert is_same_text(out, run_with(backend, *command, codes=codes)[0])
    assert re.search(r"tritloom: [1-9]\d* products on sim", err)


def test_forty_tokens_on_the_simulated_fpga(llama, backend, models):
    """Says how long they take: the goal is 10 s."""
    command = completion(llama, models["TQ2_0"], "Emma was")
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    out, err = run_with(backend, *command, device="sim")
    after, whole_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{TOKENS} tokens on the simulated FPGA: {cpu_s:.1f} s of CPU, {whole_s:.1f} s in all")
    assert is_same_text(out, run_with(backend, *command)[0])
    assert "tritloom: 560 products on sim, 0 on this computer" in err


def one_more(right):
    """The results of a product, the last one of its first token wrong."""
    wrong = right.copy()
    wrong[0, -1] += 1
    return wrong


class Liar:
    """A device that changes the results of product `number`."""

    def __init__(self, device, number, change=one_more):
        self._device, self._number, self._change = device, number, change

    def __getattr__(self, name):
        return getattr(self._device, name)

    def submit_all(self, handles, codes, *scales):
        jobs = self._device.submit_all(handles, codes, *scales)
        if 0 <= self._number < len(jobs):
            right = jobs[self._number].result()
            wrong = self._change(right)
            self.last = right[0, -1], wrong[0, -1]
            jobs[self._number] = SimpleNamespace(result=lambda: wrong)
        self._number -= len(jobs)
        return jobs


def run_on_liar(backend, command, liar, **more):
    with serving(liar) as server:
        env = environment(backend, server.path, **more)
        return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("verify", "number", "caught"),
    [
        *(("first", 0, True), ("first", 13, True), ("first", 14 + 3, False)),
        *(("always", 4, True), ("always", 14 + 3, True), ("off", 4, False), (None, 13, True)),
    ],
)
@pytest.mark.parametrize("kind", ["sum", "float"])
def test_a_wrong_result(llama, backend, models, verify, number, caught, kind):
    """Each of the 14 layers computes the prompt first, then one token after the other."""
    command = completion(llama, models["TQ2_0"], "Emma was", 4)
    more = {} if verify is None else {"TRITLOOM_VERIFY": verify}
    if kind == "sum":
        more["TRITLOOM_CODES"] = "token"
    with connect("golden", config=None if kind == "sum" else FLOATS) as device:
        liar = Liar(device, number)
        ran = run_on_liar(backend, command, liar, **more)
    right, wrong = liar.last
    lines = [line for line in ran.stderr.splitlines() if "the device gave" in line]
    assert (len(lines), ran.returncode) == (caught, caught)
    if caught:
        found = re.fullmatch(
            r"tritloom: blk\.\d\.\w+\.weight: the device gave (\S+), not (\S+), "
            rf"for {kind} \d+; run tritloom info --selftest",
            lines[0],
        )
        said, expected = (np.float32(text) for text in found.groups())
        assert said == wrong
        assert abs(expected - right) <= abs(right) / 1e6  # a float's order of roundings is ggml's


@pytest.mark.parametrize("config", [None, FLOATS], ids=["sums", "floats"])
def test_an_answer_that_is_too_short(llama, backend, models, config):
    command = completion(llama, models["TQ2_0"], "Emma was", 4)
    with connect("golden", config=config) as device:
        ran = run_on_liar(backend, command, Liar(device, 16, lambda right: right[:, 1:]))
    assert ran.returncode == 1
    assert "weight: the server's answer is too short" in ran.stderr


class Recorder:
    """A device that keeps the codes of each call; `seen` gets the layers."""

    def __init__(self, device, seen=lambda handles: None):
        self._device, self._seen, self.codes = device, seen, []

    def __getattr__(self, name):
        return getattr(self._device, name)

    def submit_all(self, handles, codes):
        self._seen(handles)
        self.codes.append(codes.copy())
        return self._device.submit_all(handles, codes)


def test_products_that_share_a_message(llama, backend, models):
    """In each of two blocks q; v and k; o; gate and up; down. A rotation follows q."""
    calls = []
    with connect("golden") as device:
        recorder = Recorder(device, lambda handles: calls.append(len(handles)))
        with serving(recorder) as server:
            env = environment(backend, server.path, TRITLOOM_CODES="token")
            command = completion(llama, models["TQ2_0"], "Emma was", 1)
            subprocess.run(command, env=env, capture_output=True, check=True)
    assert calls == [1, 2, 1, 2, 1] * 2


def test_codes_of_a_token_need_one_scale(llama, backend, models, tmp_path):
    """Layers with several scales have codes of blocks, also beside one with one scale.

    Here k has several, and v, whose product follows it, has one. Both have 128 outputs.
    """
    command = completion(llama, models["groups"], "Emma was", 8)
    text, _ = run_with(backend, *command, codes="token", verify="always")
    assert is_same_text(text, run_with(backend, *command)[0])

    layers = count()

    def varied(trits, scale):
        each = np.full((len(trits), trits.shape[1] // 64), scale)
        is_k = len(trits) == 128 and next(layers) % 2 == 0
        return each * (1 + np.arange(each.shape[1]) % 2) if is_k else each

    model = write_tinylm(tmp_path / "mixed.gguf", "Q2_0", varied)
    with connect("golden") as device:
        recorder = Recorder(device)
        with serving(recorder) as server:
            env = environment(backend, server.path, TRITLOOM_CODES="token")
            command = completion(llama, model, "Emma was", 2)
            subprocess.run(command, env=env, capture_output=True, check=True)
    assert {codes.shape[1] for codes in recorder.codes} == {32, 256, 512}
    for codes in recorder.codes:
        largest = np.abs(codes.astype(int)).reshape(len(codes), -1, 32).max(axis=2)
        if codes.shape[1] == 32:
            assert set(largest.flat) <= {0, 127}
        else:  # one block of a token has the largest code, and the others seldom have
            assert (largest.max(axis=1) == 127).all()
            assert largest.min() < 127


@pytest.mark.parametrize(
    ("wrong", "computed", "message"),
    [
        ("code", ["tq1_0"], "a code 3, which has no meaning in its type; the tensor is not "),
        ("nan", [], "an activation is NaN or too large for its codes"),
        ("large", ["tq1_0", "tq2_0"], "an activation is NaN or too large for its codes"),
    ],
)
def test_what_has_no_product(llama, backend, products, wrong, computed, message):
    """A code 3 of TQ2_0, a NaN, and a number whose scale no half-precision number holds."""
    arguments = [llama.cpu, backend, "8", "512", "2", wrong]
    out, err = run_with(backend, products, *arguments, status=2)
    assert out.splitlines() == [f"{name} 0 64" for name in computed]
    assert message in err


class Cable:
    """A link that breaks when so many RUNs have gone through it."""

    def __init__(self, inner, runs):
        self._inner, self._runs = inner, runs
        self.timeout_s, self.receive, self.close = inner.timeout_s, inner.receive, inner.close

    def send(self, packet):
        self._runs -= Request.parse(packet).opcode == Opcode.RUN
        if self._runs < 0:
            raise OSError("no such device")
        self._inner.send(packet)


def test_a_pulled_cable(llama, backend, models):
    """The request ends with one line, after a part of the right text."""
    command = completion(llama, models["TQ2_0"], "Emma was", 12)
    expected, _ = run_with(backend, *command)
    # The prompt's tokens take 56 RUNs or more, each further token 14 or more.
    device = Device(Cable(SimulatedDevice(GROUPS), 150), url="cable", config=GROUPS)
    with device, pytest.raises(DeviceError, match="the link failed"), serving(device) as server:
        ran = run_on(server, backend, command)
    assert ran.returncode != -signal.SIGABRT
    lines = [line for line in ran.stderr.splitlines() if line.startswith("tritloom: blk.")]
    assert len(lines) == 1
    assert "cable: the link failed (no such device); check it and connect again" in lines[0]
    assert expected.startswith(ran.stdout.rstrip("\n"))


ATTACHED = """
import sys
import llama_cpp
from tritloom.host import connect
from tritloom.host.llama import attach

device, backend, cpu, model = sys.argv[1:]
assert llama_cpp.llama_cpp._lib.ggml_backend_load(cpu.encode())
with connect(device) as board, attach(board, backend=backend, verify="always") as server:
    llama = llama_cpp.Llama(model, n_ctx=256, n_threads=1, verbose=False)
    text = llama("Emma was", max_tokens=8, temperature=0)["choices"][0]["text"]
    llama.close()
    print(server.products)
print("Emma was" + text)
"""


@pytest.mark.parametrize("device", ["golden", "sim"])
def test_llama_cpp_python_in_one_process(llama, backend, models, device):
    """The docs' script: the text is that of the program, each product is compared."""
    model = models["TQ2_0"]
    environment = {
        **os.environ,
        "LLAMA_CPP_LIB_PATH": str(llama.programs),
        "PYTHONPATH": os.pathsep.join(map(str, llama.python)),
    }
    ran = subprocess.run(
        [sys.executable, "-c", ATTACHED, device, backend, llama.cpu, model],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=1200,
    )
    assert ran.returncode == 0, ran.stderr
    products, text = ran.stdout.split("\n", 1)
    assert int(products) > 14
    alone = subprocess.run(
        completion(llama, model, "Emma was", 8), capture_output=True, text=True, check=True
    )
    assert is_same_text(text, alone.stdout)


def test_two_clients_and_a_killed_one(llama, backend, models, tmp_path):
    command = completion(llama, models["TQ2_0"], "Emma was")
    with served(tmp_path / "s") as server:
        env = environment(backend, tmp_path / "s")
        expected = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        killed = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        second = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        killed.stderr.readline()
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        out, _ = second.communicate(timeout=600)
        assert second.returncode == 0
        assert is_same_text(out, expected.stdout)
        assert server.poll() is None


def test_a_killed_server(llama, backend, models, tmp_path):
    """The request ends with llama.cpp's own error; nothing hangs, nothing dumps a core."""
    command = completion(llama, models["TQ2_0"], "Emma was", 200)
    expected, _ = run_with(backend, *command)
    with served(tmp_path / "s", "sim") as server:
        env = environment(backend, tmp_path / "s")
        program = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(3)
        server.send_signal(signal.SIGKILL)
        out, err = program.communicate(timeout=600)
    assert expected.startswith(out.decode().rstrip("\n"))
    assert program.returncode != -signal.SIGABRT
    assert b"tritloom: " in err and b"the server has gone; start tritloom serve" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"TRITLOOM_SOCKET": "/nowhere/s"},
            "/nowhere/s: No such file or directory; start",
        ),
        ({"TRITLOOM_CODES": "word"}, "TRITLOOM_CODES must be one of block, token, not word"),
        ({"TRITLOOM_VERIFY": "no"}, "TRITLOOM_VERIFY must be one of first, always, off, not no"),
    ],
)
def test_without_a_device_the_cpu_computes(llama, backend, models, tmp_path, more, message):
    """One line says why; llama.cpp goes on as if there were no such back end."""
    command = completion(llama, models["TQ2_0"], "Emma was", 8)
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    env = environment(backend, tmp_path / "s") | more
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert is_same_text(ran.stdout, alone.stdout)
    assert [line for line in ran.stderr.splitlines() if line.startswith("tritloom: ")] == [
        line for line in ran.stderr.splitlines() if message in line
    ]


def test_another_ggml_is_refused(llama, backend, models, tmp_path, monkeypatch):
    """The version is that of the headers; here they claim another one."""
    monkeypatch.setattr("tritloom.gen.flow.llama.ggml_version", lambda folder: "0.0.1")
    library = tmp_path / "other.so"
    build_backend(llama.sources, library)
    command = completion(llama, models["TQ2_0"], "Emma was", 4)
    _, err = run_with(library, *command, status=1)
    assert "tritloom: this ggml is 0.25.3, the back end was built for 0.0.1; build it with" in err
    assert "ended without one product on the device" in err


def test_a_device_too_small(llama, backend, models):
    """What does not fit is computed here, and it is said; the text is the same."""
    command = completion(llama, models["TQ2_0"], "Emma was", 12)
    expected, _ = run_with(backend, *command)
    out, err = run_with(backend, *command, device="golden?board=ulx3s-12f")
    assert is_same_text(out, expected)
    assert re.search(r"tritloom: blk\.\d\.\w+\.weight: on this computer, not on the device: ", err)
