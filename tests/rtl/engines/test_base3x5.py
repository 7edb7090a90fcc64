"""The decoder of weight codes: all bytes, one a cycle, as the packer's inverse says."""

import random

import numpy as np
import pytest

from tritloom.rtl.engines.base3x5 import Base3x5Decoder
from tritloom.rtl.spec.encodings import BASE3X5, encodings
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.conformance.streams import simulate


def test_cycles_are_the_encodings():
    assert BASE3X5.decoder_cycles == Base3x5Decoder.CYCLES
    assert load_component(BASE3X5.decoder) is Base3x5Decoder


@pytest.mark.parametrize("seed", range(3))
def test_all_bytes(seed):
    codes = list(range(243))
    if seed:
        random.Random(seed).shuffle(codes)
    trits = BASE3X5.decode(np.array(codes, np.uint32))
    dut = Base3x5Decoder(BASE3X5)
    decoded: list[tuple[int, int]] = []

    async def bench(ctx):
        for code in [*codes, *[0] * BASE3X5.decoder_cycles]:
            ctx.set(dut.i, code)
            *_, nonzero, negative = await ctx.tick().sample(dut.nonzero, dut.negative)
            decoded.append((nonzero, negative))

    simulate(dut, bench)
    bits = 1 << np.arange(5)
    expected = zip(((trits != 0) * bits).sum(1), ((trits < 0) * bits).sum(1), strict=True)
    assert decoded[BASE3X5.decoder_cycles :] == [(int(n), int(s)) for n, s in expected]


@pytest.mark.parametrize("name", ["base3x5"])
def test_every_group_of_trits_has_one_code(name):
    encoding = encodings[name]
    digits = (
        np.arange(3**encoding.trits_per_code)[:, None]
        // 3 ** np.arange(encoding.trits_per_code)
        % 3
    )
    trits = (digits - 1).astype(np.int8)
    codes = encoding.encode(trits)
    assert len(set(codes.tolist())) == len(trits)
    assert codes.max() < 1 << encoding.code_bits
    assert (encoding.decode(codes) == trits).all()
