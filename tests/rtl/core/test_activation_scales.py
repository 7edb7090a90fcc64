"""The memory of the activations' scales: what was stored last comes, for all tokens of a group."""

import random

import pytest

from tritloom.rtl.core.activation_scales import ActivationScales
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.conformance.streams import plain, simulate

CYCLES = 1500


def config_of(tokens: int, banks: int, tiles: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=5,
        rows=1,
        tokens=tokens,
        banks=banks,
        memory=BlockRam(words=16),
        max_in_features=5 * tiles,
        max_out_features=4,
        scale=ScaleConfig(kind="float", group=5),
    )


@pytest.mark.parametrize(
    ("tokens", "banks", "tiles"), [(1, 1, 1), (3, 2, 5), (2, 1, 8), (1, 2, 6), (4, 2, 1)]
)
def test_random_words(tokens, banks, tiles):
    """A read in each cycle, as soon after the last write of its group as it may come."""
    dut = ActivationScales(config_of(tokens, banks, tiles))
    rng = random.Random(51)
    places = [(bank, group) for bank in range(banks) for group in range(tiles)]
    stored = {place: [0] * tokens for place in places}
    writes: list[tuple[tuple[int, int], int, int] | None] = []
    expected: list[list[int]] = []
    soonest = 0

    async def bench(ctx):
        nonlocal soonest
        for cycle in range(CYCLES):
            if cycle >= dut.WRITE_CYCLES and (write := writes[cycle - dut.WRITE_CYCLES]):
                stored[write[0]][write[1]] = write[2]
            await store(ctx)
            recent = {write[0] for write in writes[-dut.WRITE_CYCLES :] if write}
            free = [place for place in places if place not in recent]
            if free:
                place = rng.choice(free)
                before = writes[cycle - dut.WRITE_CYCLES] if cycle >= dut.WRITE_CYCLES else None
                if before and before[0] in free and rng.random() < 0.5:
                    place = before[0]
                    soonest += 1
                ctx.set(dut.i_bank, place[0])
                ctx.set(dut.i_group, place[1])
            expected.append(list(stored[place]) if free else [])
            *_, out, ready = await ctx.tick().sample(dut.o, dut.i.ready)
            assert ready
            if cycle >= dut.READ_CYCLES and expected[cycle - dut.READ_CYCLES]:
                assert plain(out) == expected[cycle - dut.READ_CYCLES]

    async def store(ctx):
        place, token, scale = rng.choice(places), rng.randrange(tokens), rng.getrandbits(32)
        valid = rng.random() < 0.4
        ctx.set(dut.i.valid, valid)
        fields = {"bank": place[0], "group": place[1], "token": token, "scale": scale}
        ctx.set(dut.i.payload, fields)
        writes.append((place, token, scale) if valid else None)

    simulate(dut, bench)
    assert soonest > 20
