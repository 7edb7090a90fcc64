"""A simulated block alone: sends many vectors through it, fast enough for millions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.cxxrtl import build

__all__ = ["run_vectors"]

DRIVER = Path(__file__).with_name("vectors.cc")
WORD_BITS = 32


class _Top(wiring.Component):
    """A block behind one stream of vectors and one of results.

    `fields`: inputs of a pipeline, or fields of the payload of a block with streams `i` and `o`, in
    the order of the vector's bits, each in words of its own.
    """

    def __init__(self, block: Any, fields: list[str]) -> None:
        self.block = block
        self.is_stream = hasattr(block.o, "valid")
        source = block.i.payload if self.is_stream else block
        self.inputs = [
            Value.cast(source[name] if self.is_stream else getattr(source, name)) for name in fields
        ]
        self.output = Value.cast(block.o.payload if self.is_stream else block.o)
        self.words = [-(-len(value) // WORD_BITS) for value in self.inputs]
        super().__init__(
            {
                "i_data": In(WORD_BITS * sum(self.words)),
                "i_valid": In(1),
                "i_ready": Out(1),
                "o_data": Out(-(-len(self.output) // WORD_BITS) * WORD_BITS),
                "o_valid": Out(1),
                "o_ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.block = self.block
        start = 0
        for value, words in zip(self.inputs, self.words, strict=True):
            m.d.comb += value.eq(self.i_data[start : start + len(value)])
            start += words * WORD_BITS
        m.d.comb += self.o_data.eq(self.output.as_unsigned())
        if self.is_stream:
            m.d.comb += [
                self.block.i.valid.eq(self.i_valid),
                self.i_ready.eq(self.block.i.ready),
                self.o_valid.eq(self.block.o.valid),
                self.block.o.ready.eq(self.o_ready),
            ]
        else:
            m.d.comb += [
                self.i_ready.eq(1),
                self.o_valid.eq(delay(m, self.i_valid, self.block.latency)),
            ]
        return m


def run_vectors(
    block: Any,
    *,
    cycles_each: int = 1,
    design: Callable[[str], str] = str,
    **fields: npt.NDArray[Any],
) -> npt.NDArray[np.uint32]:
    """The results of a block for many vectors, on CXXRTL.

    Parameters
    ----------
    block : a pipeline with the attribute `latency` and the output `o`, or a component with streams
        `i` and `o`
    cycles_each : most cycles that a result may take after the one before it
    design : makes the RTLIL to run of the block's own, such as that of a netlist
        (`tritloom.sim.gates.gates`)
    fields : for each input of the pipeline, or field of the payload of `i`, its values in all
        vectors, not negative and of at most 64 bits

    Returns
    -------
    `[vectors, words]`: each result as 32-bit words, the lowest first.

    Raises
    ------
    DeviceError : the block gives fewer results in that time
    """
    top = _Top(block, list(fields))
    count = len(next(iter(fields.values())))
    inputs = np.empty((count, sum(top.words)), np.uint32)
    column = 0
    for values, words in zip(fields.values(), top.words, strict=True):
        pieces = np.ascontiguousarray(values, np.uint64)[:, None].view(np.uint32)
        inputs[:, column : column + words] = pieces[:, :words]
        column += words
    results = np.zeros((count, len(top.o_data) // WORD_BITS), np.uint32)
    library = ctypes.CDLL(
        str(build(lambda: design(rtlil.convert(top, name="top", emit_src=False)), driver=DRIVER))
    )
    function = library.tritloom_vectors
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    limit = count * cycles_each + 100
    received = function(inputs.ctypes.data, results.ctypes.data, count, limit)
    if received != count:
        raise DeviceError(f"the block gave {received} of {count} results in {limit} cycles")
    return results
