"""Vectors through a block on CXXRTL: pipelines, streams, wide inputs, and a block that stops."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.vectors import run_vectors

pytestmark = pytest.mark.sim


class Sum(wiring.Component):
    """Adds a wide and a narrow number, a cycle later."""

    latency = 1

    def __init__(self) -> None:
        super().__init__({"wide": In(40), "narrow": In(7), "o": Out(41)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(self.wide + self.narrow)
        return m


class Every(wiring.Component):
    """A stream that holds each word for three cycles; it takes no more than `most` words."""

    def __init__(self, most: int) -> None:
        self.most = most
        pair = data.StructLayout({"low": 4, "high": 12})
        super().__init__({"i": In(stream.Signature(pair)), "o": Out(stream.Signature(16))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken, wait = Signal(16), Signal(2)
        m.d.comb += [
            self.i.ready.eq((wait == 0) & ~self.o.valid & (taken != self.most)),
            self.o.valid.eq(wait == 1),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.o.payload.eq(self.i.payload), wait.eq(3), taken.eq(taken + 1)]
        with m.Elif((wait > 1) | self.o.ready):
            m.d.sync += wait.eq(wait - (wait != 0))
        return m


def test_pipeline():
    rng = np.random.default_rng(1)
    wide, narrow = rng.integers(0, 1 << 40, 500), rng.integers(0, 1 << 7, 500)
    results = run_vectors(Sum(), narrow=narrow, wide=wide)
    assert results.shape == (500, 2)
    assert (results.view(np.uint64)[:, 0] == (wide + narrow).astype(np.uint64)).all()


def test_stream():
    high, low = np.arange(300), np.arange(300) % 16
    results = run_vectors(Every(1000), cycles_each=4, high=high, low=low)
    assert results[:, 0].tolist() == (high << 4 | low).tolist()


def test_too_few_results():
    words = np.arange(50)
    with pytest.raises(DeviceError, match=r"^the block gave 7 of 50 results in 300 cycles$"):
        run_vectors(Every(7), cycles_each=4, high=words, low=words % 16)
