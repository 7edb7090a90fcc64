"""The C functions of the header against the Python that they copy, and the C example end to end."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import describe
from tritloom.gen.emit.pack import pack
from tritloom.rtl.spec.commands import Request, Response
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.frames import cobs_encode, decode_frame, encode_frame
from tritloom.rtl.spec.groups import matmul_groups
from tritloom.rtl.spec.packing import act_limits, pack_results
from tritloom.rtl.spec.requests import load_scales
from tritloom.rtl.spec.scale_facts import ScaleConfig

pytestmark = pytest.mark.sim
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
WIDE = replace(TINY, packet_bytes=1024, max_in_features=2000)
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "core.h"

static uint8_t data[4096], out[4096];

static size_t parse(const char *text)
{
    size_t n;
    unsigned byte;
    for (n = 0; sscanf(text + 2 * n, "%2x", &byte) == 1; n++)
        data[n] = (uint8_t)byte;
    return n;
}

/* A command with bits set in every field; the banks are bits of the first byte of its payload. */
static const struct core_command *command(const uint8_t *payload, size_t bytes)
{
    static struct core_command command;
    command.session = 0xABCDEFu;
    command.seq = 0x1234;
    command.acknowledged = 0x1289;
    command.opcode = 7;
    command.activation_bank = bytes ? payload[0] & 1 : 0;
    command.result_bank = bytes ? payload[0] >> 1 & 1 : 0;
    command.index = 2;
    command.count = 300;
    command.address = 0x01020304u;
    command.payload = payload;
    command.bytes = bytes;
    return &command;
}

static void print_response(const uint8_t *packet, size_t bytes)
{
    struct core_response r;
    size_t n;
    if (!core_parse(&r, packet, bytes))
        return;
    printf("%lx %lx %lx %lx %lx %lx %lx %lx %lx ", (unsigned long)r.opcode, (unsigned long)r.seq,
           (unsigned long)r.session, (unsigned long)r.status, (unsigned long)r.expected,
           (unsigned long)r.value, (unsigned long)r.activation_bank, (unsigned long)r.result_bank,
           (unsigned long)r.acknowledged);
    for (n = 0; n < r.bytes; n++)
        printf("%02x", r.payload[n]);
}

/* Lines of a letter and bytes in hexadecimal: what the function of that letter makes of them. */
int main(void)
{
    static char line[9000];
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t bytes = parse(line + 1), size = 0, n;
        if (line[0] == 'f')
            size = core_frame(out, data, bytes);
        else if (line[0] == 'u')
            size = core_unframe(out, data, bytes);
        else if (line[0] == 'r')
            size = core_request(out, command(data, bytes));
        else if (line[0] == 's')
            size = (size_t)core_sound(data, bytes);
        if (line[0] == 'p')
            print_response(data, bytes);
        else if (line[0] == 'n')
            for (n = 0; n * CORE_ACC_BYTES < bytes; n++)
                printf("%ld ", (long)core_result(data, n));
        else if (line[0] == 's')
            printf("%d", (int)size);
        else
            for (n = 0; n < size; n++)
                printf("%02x", out[n]);
        printf("\n");
    }
    return 0;
}
"""


def compiled(folder, source, name, language="c"):
    """The program of a C source, with the warnings of strict C as errors."""
    compiler = {"c": "cc", "c++": "c++"}[language]
    command = [compiler] if shutil.which(compiler) else [sys.executable, "-m", "ziglang", compiler]
    standard = {"c": "-std=c99", "c++": "-std=c++11"}[language]
    command += ["-x", language, standard, *STRICT, f"-I{folder}", str(source)]
    result = subprocess.run(
        [*command, "-o", str(folder / name)], capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, "")
    return folder / name


@pytest.fixture(scope="module", params=["c", "c++"])
def convert(request, tmp_path_factory):
    """Calls the functions of the header of `WIDE`: lines in, lines out."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "core.h").write_text(c_header(describe(WIDE, "core")))
    (folder / "main.c").write_text(PROGRAM)
    program = compiled(folder, folder / "main.c", "main", request.param)

    def call(letter, items):
        lines = "".join(f"{letter}{item.hex()}\n" for item in items)
        ran = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
        return ran.stdout.splitlines()

    return call


def packets():
    """With and without zeros, at the lengths of COBS blocks, up to the longest."""
    rng = random.Random(5)
    packets = [b"", b"\0", b"\0\0", b"\1", b"\1\0"]
    for size in (253, 254, 255, 508, 509, WIDE.packet_bytes):
        packets += [bytes([7] * size), bytes(size), bytes([7] * (size - 1) + [0])]
        packets.append(rng.randbytes(size))
        packets.append(bytes(rng.choices((0, 1), k=size)))
    return packets


def test_frame(convert):
    frames = convert("f", packets()[1:])
    assert frames == [encode_frame(packet).hex() for packet in packets()[1:]]


def test_unframe(convert):
    """Whole frames, frames with one wrong byte, and rests of frames."""
    insides = [encode_frame(packet)[1:-1] for packet in packets()[1:]]
    rng = random.Random(6)
    for inside in insides[:20]:
        at = rng.randrange(len(inside))
        insides.append(inside[:at] + bytes([inside[at] ^ 1 << rng.randrange(8)]) + inside[at + 1 :])
        insides.append(inside[:at])
    assert convert("u", insides) == [(decode_frame(inside) or b"").hex() for inside in insides]


def test_unframe_takes_no_more_than_a_packet(convert):
    longest = bytes([7] * WIDE.packet_bytes)
    assert convert("u", [encode_frame(longest + b"\7")[1:-1]]) == [""]
    assert convert("u", [encode_frame(longest + b"\0")[1:-1]]) == [""]
    assert len(cobs_encode(longest)) + 7 <= 2 + 1024 + 1024 // 254 + 1 + 5


def test_request(convert):
    """In each pair of banks, with payloads of any length."""
    payloads = [b"", b"a", b"b", b"c", bytes(range(200)), bytes(WIDE.max_payload)]
    header = (7, 0x1234, 0xABCDEF, 2, 300, 0x01020304)
    requests = [
        Request(*header, p, *((p[0] & 1, p[0] >> 1 & 1) if p else (0, 0)), 0x89) for p in payloads
    ]
    assert {(r.activation_bank, r.result_bank) for r in requests} == {
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
    }
    assert convert("r", payloads) == [request.pack().hex() for request in requests]
    assert convert("r", [bytes(WIDE.max_payload + 1)]) == [""]


def test_sound(convert):
    right = Response(9, 5, 6, 0, 7, 8, b"xyz").pack()
    wrong = [right[:-1], right + b"\0", right[:20] + b"!" + right[21:], b"", right[:19]]
    assert convert("s", [right, *wrong]) == ["1", "0", "0", "0", "0", "0"]


def test_parse(convert):
    """A field of zeros and one of ones beside each other, so that none reads another's bits."""
    right = [
        Response(0, 0xFFFF, 0, 0xFF, 0, 0xFFFFFFFF, b"xyz", 0, 1, 0),
        Response(0x3F, 0, 0xFFFFFF, 0, 0xFFFF, 0, b"", 0, 0, 0),
        Response(0, 0, 0, 8, 7, 6, bytes(WIDE.max_payload), 1, 0, 0xFF),
    ]
    lines = [
        f"{r.opcode:x} {r.seq:x} {r.session:x} {r.status:x} {r.expected:x} {r.value:x} "
        f"{r.activation_bank:x} {r.result_bank:x} {r.acknowledged:x} {r.payload.hex()}"
        for r in right
    ]
    packets = [response.pack() for response in right]
    assert convert("p", [*packets, packets[0][:-1]]) == [*lines, ""]


def test_results(convert):
    limit = 1 << (8 * WIDE.acc_bytes - 1)
    sums = np.array([0, 1, -1, limit - 1, -limit, 1234, -1234], np.int32)
    (line,) = convert("n", [pack_results(WIDE, sums)])
    assert [int(number) for number in line.split()] == sums.tolist()


FLOATS = r"""
#include <stdio.h>
#include "core.h"

int main(void)
{
    static const uint8_t payload[] = {0x00, 0x00, 0xc0, 0xbf, 0x01, 0x00, 0x00, 0x4b};
    printf("%.17g %.17g", (double)core_result(payload, 0), (double)core_result(payload, 1));
    return 0;
}
"""


def test_results_with_scales(tmp_path):
    """float32, as the device sends them."""
    config = replace(TINY, scale=ScaleConfig(group=10))
    (tmp_path / "core.h").write_text(c_header(describe(config, "core")))
    (tmp_path / "floats.c").write_text(FLOATS)
    program = compiled(tmp_path, tmp_path / "floats.c", "floats")
    ran = subprocess.run([program], capture_output=True, text=True, check=True)
    assert [float(number) for number in ran.stdout.split()] == [-1.5, 2.0**23 + 1]


SCALES = r"""
#include <stdio.h>
#include "core.h"

int main(void)
{
    static const float scales[] = {-1.5f, 0.0f, 8388609.0f, 1.17549435e-38f};
    static uint8_t payload[4 * CORE_SCALE_BYTES];
    size_t n;
    for (n = 0; n < 4; n++)
        core_put_scale(payload, n, scales[n]);
    for (n = 0; n < sizeof payload; n++)
        printf("%02x", payload[n]);
    return 0;
}
"""


@pytest.mark.parametrize("language", ["c", "c++"])
def test_scales_of_activations(tmp_path, language):
    """The payload of SCALES that the driver sends."""
    config = replace(TINY, scale=ScaleConfig(kind="float", group=10))
    (tmp_path / "core.h").write_text(c_header(describe(config, "core")))
    (tmp_path / "scales.c").write_text(SCALES)
    program = compiled(tmp_path, tmp_path / "scales.c", "scales", language)
    ran = subprocess.run([program], capture_output=True, text=True, check=True)
    scales = np.array([-1.5, 0, 2.0**23 + 1, 2.0**-126], np.float32)
    (request,) = load_scales(0, scales, 108)
    assert ran.stdout == request.payload.hex()


def run_example(folder, config, out_features, in_features, tokens=1, group=0):
    """`examples/c/matmul.c` on the simulated board: its sums, and those of the golden model."""
    from tritloom.sim.device.pty import PtyBridge

    rng = np.random.default_rng(8)
    trits = rng.integers(-1, 2, (out_features, in_features)).astype(np.int8)
    least, most = act_limits(config)
    activations = rng.integers(least, most + 1, (tokens, in_features)).astype(np.int8)
    activations[:, 0] = least
    (folder / "tritloom.h").write_text(c_header(describe(config)))
    pack(config, trits, folder, "layer", group)
    (folder / "activations.bin").write_bytes(activations.tobytes())
    program = compiled(folder, ROOT / "examples" / "c" / "matmul.c", "matmul")
    with PtyBridge(config) as bridge:
        ran = subprocess.run(
            [program, bridge.path, folder / "layer.bin", folder / "activations.bin"],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    right = matmul_groups(trits, activations, group).transpose(0, 2, 1)
    return [int(line) for line in ran.stdout.split()], right.ravel().tolist()


@pytest.mark.parametrize(("banks", "tokens"), [(1, 3), (2, 1), (2, 4)])
def test_example(tmp_path, banks, tokens):
    """With two banks, a token is loaded and computed before the last one's results are read."""
    sums, right = run_example(tmp_path, replace(TINY, banks=banks), 15, 18, tokens)
    assert sums == right


@pytest.mark.sim
def test_example_with_groups(tmp_path):
    """The sums of the first group of inputs, then those of the second one."""
    config = replace(TINY, max_in_features=30, max_group_sums=32)
    sums, right = run_example(tmp_path, config, 15, 18, 2, group=9)
    assert sums == right


@pytest.mark.parametrize(("kind", "group"), [("fixed", 9), ("float", 9), ("float", 0)])
def test_example_with_scales(tmp_path, kind, group):
    """The image has scales of 1, so the results are sums: with two banks and several groups."""
    config = replace(TINY, max_in_features=30, scale=ScaleConfig(kind=kind, group=10))
    sums, right = run_example(tmp_path, config, 15, 27, 3, group=group)
    rows = np.array(right).reshape(3, -1, 15).sum(axis=1)
    assert sums == rows.ravel().tolist()


@pytest.mark.slow
def test_example_on_a_board(tmp_path):
    config = ICEBREAKER.config
    sums, right = run_example(tmp_path, config, config.max_out_features, config.max_in_features - 7)
    assert sums == right


def test_example_refuses_another_configuration(tmp_path):
    other = replace(TINY, rows=1)
    (tmp_path / "tritloom.h").write_text(c_header(describe(TINY)))
    pack(other, np.ones((3, 4), np.int8), tmp_path, "layer")
    program = compiled(tmp_path, ROOT / "examples" / "c" / "matmul.c", "matmul")
    ran = subprocess.run([program, "a", "b", "c"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == ("matmul: layer.h was packed for another configuration than tritloom.h\n")
