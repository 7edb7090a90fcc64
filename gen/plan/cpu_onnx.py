"""How long this computer's CPU takes for a model's layers with ONNX Runtime's MatMulNBits.

MatMulNBits keeps weights in 2 or 4 bits and quantizes the activations to 8, so it reads far fewer
bytes than a product of floats. It is what a CPU can do for ternary layers with a program that
everybody can install. Its results are near the exact ones, and not equal to them.

The model file that ONNX Runtime reads is written here: one node and its weights take a few lines of
the format of protocol buffers, and the package `onnx` is not needed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.gen.plan.cpu import Cpu, cpu_name, measure_with
from tritloom.gen.workloads import Layer

__all__ = ["MISSING", "measure_onnx", "onnx_model"]

PACKAGE = "onnxruntime"
MISSING = f"ONNX Runtime is not installed; pip install {PACKAGE} to measure it too"
BLOCKS = {2: 64, 4: 32}
"""Weights that share a scale, by the bits of a weight: the least that its fast kernels take."""
INT8_ACCURACY = 4
"""Value of `accuracy_level` with which the activations become 8-bit integers."""
ONE = {2: 0xFF, 4: 0x99}
"""A byte of weights that are all 1, by the bits of a weight: codes are 2 or 8 above the weight."""
SCALE_BYTES = 4
UINT8, FLOAT = 2, 1
"""Types of tensors in the format."""
IR_VERSION, OPSET = 8, 17
DOMAIN = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Makes products of a layer's size for `measure_with`, with weights of some bits."""

    runtime: Any
    bits: int

    @property
    def weight_bytes(self) -> float:
        return self.bits / 8 + SCALE_BYTES / BLOCKS[self.bits]

    def products(
        self, rows: int, in_features: int, copies: int, tokens: int
    ) -> list[Callable[[], object]]:
        """Functions that each compute a product with weights of their own."""
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        codes = np.ones((tokens, in_features), np.float32)
        model = onnx_model(rows, in_features, tokens, self.bits)
        several: list[Callable[[], object]] = []
        for _ in range(copies):
            session = self.runtime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            several.append(partial(session.run, None, {"a": codes}))
        return several


def measure_onnx(layers: Sequence[Layer], tokens: int = 1) -> Cpu | None:
    """Time the layers as `measure_cpu` does; None if ONNX Runtime is not installed.

    With weights of 2 and of 4 bits, and the faster one counts. An ONNX Runtime that knows no
    weights of 2 bits is measured with 4.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    runtime = importlib.import_module(PACKAGE)
    measured: list[Cpu] = []
    for bits in BLOCKS:
        try:
            total_s = measure_with(_Nodes(runtime, bits), layers, tokens)
        except runtime.capi.onnxruntime_pybind11_state.Fail:
            continue
        method = f"ONNX Runtime {runtime.__version__}, MatMulNBits of {bits} bits"
        macs = tokens * sum(layer.weights for layer in layers)
        measured.append(
            Cpu(name=cpu_name(), tokens=tokens, macs=macs, total_s=total_s, method=method)
        )
    return min(measured, key=lambda cpu: cpu.total_s) if measured else None


def onnx_model(rows: int, in_features: int, tokens: int, bits: int) -> bytes:
    """A model of one MatMulNBits whose weights and scales are all 1.

    Its input `a` is float32 `[tokens, in_features]`, its output `y` float32 `[tokens, rows]`.

    Source
    ------
    onnx.proto of ONNX, and MatMulNBits in ContribOperators.md of ONNX Runtime
    """
    size = BLOCKS[bits]
    blocks = -(-in_features // size)
    weights = np.full((rows, blocks, size * bits // 8), ONE[bits], np.uint8)
    scales = np.ones((rows, blocks), np.float32)
    attributes = {"K": in_features, "N": rows, "bits": bits, "block_size": size}
    node = b"".join(
        [
            *(_bytes(1, name.encode()) for name in ("a", "w", "s")),
            _bytes(2, b"y"),
            _bytes(4, b"MatMulNBits"),
            *(_attribute(*each) for each in attributes.items()),
            _attribute("accuracy_level", INT8_ACCURACY),
            _bytes(7, DOMAIN.encode()),
        ]
    )
    graph = b"".join(
        [
            _bytes(1, node),
            _bytes(2, b"product"),
            _bytes(5, _tensor("w", weights, UINT8)),
            _bytes(5, _tensor("s", scales, FLOAT)),
            _bytes(11, _value("a", (tokens, in_features))),
            _bytes(12, _value("y", (tokens, rows))),
        ]
    )
    opsets = [(b"", OPSET), (DOMAIN.encode(), 1)]
    return b"".join(
        [
            _number(1, IR_VERSION),
            _bytes(7, graph),
            *(_bytes(8, _bytes(1, domain) + _number(2, version)) for domain, version in opsets),
        ]
    )


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first; all but the last have the top bit."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _attribute(name: str, value: int) -> bytes:
    """An attribute of a node: name, integer, and 2 for the type of integers."""
    return _bytes(5, _bytes(1, name.encode()) + _number(3, value) + _number(20, 2))


def _tensor(name: str, values: npt.NDArray[Any], kind: int) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    return dims + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, values.tobytes())


def _value(name: str, dims: Sequence[int]) -> bytes:
    """An input or output of floats."""
    shape = b"".join(_bytes(1, _number(1, size)) for size in dims)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, shape)))
