"""The greatest magnitude of vectors, with pauses between their numbers."""

import numpy as np
from amaranth.hdl import Value

from tests.support.float_blocks import EDGES, SMALL, any_floats
from tritloom.rtl.lib.float_max import FloatAbsMax
from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.float_units import FLOAT32
from tritloom.sim.conformance.streams import simulate


def test_every_prefix_of_vectors():
    """After each number, the result is that of the vector so far; a new vector forgets the last."""
    rng = np.random.default_rng(1)
    for form in (FLOAT32, SMALL):
        edges = np.array(EDGES, np.uint32) if form is FLOAT32 else np.arange(256, dtype=np.uint32)
        pool = np.concatenate([edges, any_floats(rng, 300) & ((1 << form.bits) - 1)])
        finite = pool >> form.fraction_bits & form.not_finite != form.not_finite
        vectors = [rng.choice(pool, n) for n in (1, 2, 5, 9)]
        vectors += [rng.choice(pool[finite], n) for n in (1, 3, 20, 40)] * 2
        dut = FloatAbsMax(form)
        assert dut.latency == 1

        async def bench(ctx, vectors=vectors, pool=pool, form=form, dut=dut):
            for vector in vectors:
                for place, number in enumerate(vector.tolist()):
                    ctx.set(Value.cast(dut.i), number)
                    ctx.set(dut.i_valid, 1)
                    ctx.set(dut.i_first, place == 0)
                    await ctx.tick()
                    expected = float_units.absmax(vector[: place + 1], form)
                    assert (ctx.get(dut.o), bool(ctx.get(dut.o_finite))) == expected
                    ctx.set(dut.i_valid, 0)
                    while rng.random() < 0.4:
                        ctx.set(Value.cast(dut.i), int(rng.choice(pool)))
                        ctx.set(dut.i_first, int(rng.integers(0, 2)))
                        await ctx.tick()
                        assert (ctx.get(dut.o), bool(ctx.get(dut.o_finite))) == expected

        simulate(dut, bench)
