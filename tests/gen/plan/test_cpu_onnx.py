"""The yardstick of ONNX Runtime: the model file, and what is done without it."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from tritloom.gen.plan import cpu, cpu_onnx
from tritloom.gen.plan.cpu_onnx import measure_onnx, onnx_model
from tritloom.gen.workloads import Layer


def parse(data):
    """The fields of a message: number, and an integer or bytes."""
    fields, place = [], 0

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        field, wire = divmod(varint(), 8)
        value = varint()
        if wire == 2:
            size, value = value, data[place : place + value]
            place += size
            assert len(value) == size
        fields.append((field, value))
    return fields


def named(message, number):
    return [value for field, value in parse(message) if field == number]


@pytest.mark.parametrize(("bits", "block", "byte"), [(2, 64, 0xFF), (4, 32, 0x99)])
def test_the_model_file(bits, block, byte):
    """One node, its attributes, weights of the right sizes whose codes all stand for 1."""
    model = onnx_model(6, 130, 3, bits)
    (graph,) = named(model, 7)
    (node,) = named(graph, 1)
    assert named(node, 1) == [b"a", b"w", b"s"] and named(node, 2) == [b"y"]
    assert named(node, 4) == [b"MatMulNBits"] and named(node, 7) == [b"com.microsoft"]
    attributes = {named(each, 1)[0].decode(): named(each, 3)[0] for each in named(node, 5)}
    assert attributes == {
        "K": 130,
        "N": 6,
        "bits": bits,
        "block_size": block,
        "accuracy_level": 4,
    }
    assert all(named(each, 20) == [2] for each in named(node, 5))
    blocks = -(-130 // block)
    weights, scales = named(graph, 5)
    assert named(weights, 1) == [6, blocks, block * bits // 8] and named(weights, 2) == [2]
    assert named(weights, 9) == [bytes([byte]) * (6 * blocks * block * bits // 8)]
    codes = [byte >> place & (1 << bits) - 1 for place in range(0, 8, bits)]
    assert all(code - (1 << bits - 1) == 1 for code in codes)
    assert named(scales, 1) == [6, blocks] and named(scales, 2) == [1]
    assert named(scales, 9) == [np.ones(6 * blocks, np.float32).tobytes()]

    def dims(value):
        (kind,) = named(named(value, 2)[0], 1)
        return [named(dim, 1)[0] for dim in named(named(kind, 2)[0], 1)]

    assert dims(named(graph, 11)[0]) == [3, 130] and dims(named(graph, 12)[0]) == [3, 6]
    assert [named(each, 2) for each in named(model, 8)] == [[17], [1]]


def test_a_long_number():
    assert parse(onnx_model(1, 300, 1, 4))[0] == (1, 8)
    assert cpu_onnx._varint(300) == b"\xac\x02"


def test_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert measure_onnx([Layer("a", 4, 4)]) is None


class Fail(Exception):
    pass


def runtime(monkeypatch, knows, seconds):
    """A stand-in for ONNX Runtime that knows weights of some bits, and a clock."""
    now = [0.0]
    made = []

    class Session:
        def __init__(self, model, options, providers):
            attributes = named(named(model, 7)[0], 1)[0]
            values = {named(each, 1)[0]: named(each, 3)[0] for each in named(attributes, 5)}
            self.bits = values[b"bits"]
            made.append((values[b"N"], values[b"K"], self.bits))
            if self.bits not in knows:
                raise Fail
            assert providers == ["CPUExecutionProvider"]

        def run(self, outputs, inputs):
            assert outputs is None and set(inputs) == {"a"}
            now[0] += seconds[self.bits]

    module = types.SimpleNamespace(
        __version__="9.8",
        SessionOptions=types.SimpleNamespace,
        InferenceSession=Session,
        capi=types.SimpleNamespace(onnxruntime_pybind11_state=types.SimpleNamespace(Fail=Fail)),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: now[0])
    return made


def test_the_faster_one_counts(monkeypatch):
    made = runtime(monkeypatch, (2, 4), {2: 3.0, 4: 1.0})
    measured = measure_onnx([Layer("a", 64, 30, 2), Layer("b", 32, 7)], 2)
    assert measured.method == "ONNX Runtime 9.8, MatMulNBits of 4 bits"
    assert measured.total_s == 3.0  # of three layers
    assert measured.macs == 2 * (2 * 64 * 30 + 32 * 7) and measured.tokens == 2
    assert made == [(30, 64, 2)] * 2 + [(7, 32, 2)] + [(30, 64, 4)] * 2 + [(7, 32, 4)]


def test_one_that_knows_no_two_bits(monkeypatch):
    runtime(monkeypatch, (4,), {4: 5.0})
    assert measure_onnx([Layer("a", 64, 30)]).total_s == 5.0
    runtime(monkeypatch, (), {})
    assert measure_onnx([Layer("a", 64, 30)]) is None


def test_large_layers_in_proportion(monkeypatch):
    """Weights of 2 bits with a scale for 64 take 5 / 16 of a byte each."""
    runtime(monkeypatch, (2,), {2: 1.0})
    monkeypatch.setattr(cpu, "MOST_BYTES", 10 * 64 * 5 // 16)
    assert measure_onnx([Layer("a", 64, 30, 3)]).total_s == 1.0 * 3 * 3
