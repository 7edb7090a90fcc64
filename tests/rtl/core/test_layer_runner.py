"""The codes and results between the vector unit and the core, each of them played."""

import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Value

from tests.support import quick_first
from tests.support.broken import broken
from tritloom.rtl.core import layer_runner
from tritloom.rtl.core.layer_runner import LayerRunner
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import HEADER_BYTES
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.conformance.streams import FLOWS, ContractError, require, simulate

WIDE = AcceleratorConfig(
    lanes=15,
    rows=3,
    fill=5,
    tokens=2,
    memory=BlockRam(words=64),
    max_in_features=60,
    max_out_features=21,
    packet_bytes=128,
    slots=2,
    vector=VectorConfig(words=64),
)
ONE = replace(TINY, rows=1, fill=5, vector=VectorConfig(words=64))
CONFIGS = {
    "tiny": replace(TINY, vector=VectorConfig(words=64)),
    "wide": WIDE,
    "one row": ONE,
    "three tokens": replace(WIDE, tokens=3),
    "two lanes": replace(WIDE, vector=VectorConfig(words=64, lanes=2)),
    "four lanes": replace(ONE, rows=5, vector=VectorConfig(words=64, lanes=4)),
    "a word a cycle": replace(
        WIDE, lanes=20, fill=4, rows=4, max_out_features=24, vector=VectorConfig(words=64, lanes=4)
    ),
}
CORE_HOLDS = 9
"""Row groups that the played core takes before it must give one."""
BUSY_CYCLES = 200
"""Cycles after which the runner has surely given up what a program left."""
MOST_FETCHED = 4
"""Row groups that the runner fetches before it gets one."""
NOISE = 0x5A
FIRST_RESULT_CYCLES = 2
"""From the end of a layer to its first result, beside a core that gives it in the next cycle."""


class Layer:
    """What the unit asks of one layer, and what it must get.

    Members
    -------
    tiles, row_groups : of the layer
    codes : codes that the unit gives before the layer, of each token
    takes : results that the unit takes of each token before it goes on
    results : of the layer, `[tokens, row_groups, rows]`
    """

    def __init__(self, config, rng):
        self.tiles = rng.randint(1, config.max_tiles)
        self.row_groups = rng.randint(1, config.max_row_groups)
        full, results = self.tiles * config.lanes, self.row_groups * config.rows
        self.codes, self.takes, numbers = [], [], []
        top = 1 << config.acc_bits - 1
        for _ in range(config.tokens):
            count = rng.choice([full, full, rng.randint(0, full), full + rng.randint(1, 9), 0])
            if rng.random() < 0.1:
                count = config.max_tiles * config.lanes + rng.randint(0, 2 * config.fill)
            self.codes.append([rng.randint(-128, 127) for _ in range(count)])
            self.takes.append(rng.choice([results, results, rng.randint(0, results), results + 3]))
            numbers += [rng.randrange(-top, top) for _ in range(results)]
        self.results = np.array(numbers).reshape(config.tokens, self.row_groups, config.rows)

    def taken(self, token):
        """The results of a token that the unit takes; zeros follow those of the layer."""
        return [*self.results[token].reshape(-1).tolist(), 0, 0, 0][: self.takes[token]]


class Played:
    """The unit, the core and the processor around a `LayerRunner`, cycle by cycle."""

    def __init__(self, dut, programs, seed, idle, pause):
        self.dut, self.config = dut, dut.config
        self.programs = programs
        self.rng, self.idle, self.pause = random.Random(seed), idle, pause
        shape = self.config.banks, self.config.tokens, self.config.activation_words
        self.banks = np.full(shape, -1, object)
        self.token = 0
        self.lanes = self.config.vector.lanes
        self.offers = False  # a result is offered and not taken
        self.fetched = deque()  # row groups that the core holds
        self.running = None  # the layer that the core computes or has computed last

    def happens(self, chance):
        return self.rng.random() >= chance

    async def bench(self, ctx):
        for number, program in enumerate(self.programs):
            self.activations, self.result_bank = number % 2, self.rng.randrange(2)
            ctx.set(self.dut.activation_bank, self.activations)
            ctx.set(self.dut.result_bank, self.result_bank)
            ctx.set(self.dut.active, 1)
            self.running = None
            tokens = self.rng.randint(1, self.config.tokens)
            for layer in program:
                await self.one_layer(ctx, layer, tokens)
            for token in range(tokens):
                await self.go_on(ctx, token)
                before = self.banks[self.activations].copy()
                rest = [NOISE] * self.rng.randrange(2 * self.config.fill + 2)
                await self.give(ctx, rest)
                await self.cycle(ctx)
            whole = len(rest) // self.config.fill
            require(
                list(self.banks[self.activations, self.token][whole:])
                == list(before[self.token][whole:]),
                "codes that no layer uses are not written from the first word on",
            )
            ctx.set(self.dut.active, 0)
            await self.cycle(ctx)
            # The command acceptor takes the next header meanwhile.
            quick = self.idle == self.pause == 0
            for _ in range(HEADER_BYTES if quick else BUSY_CYCLES):
                if not (state := await self.cycle(ctx))["busy"]:
                    break
            require(not state["busy"], "the runner must become idle after a program")
            require(not self.fetched, "the core still holds results when it is not busy")

    async def go_on(self, ctx, token):
        """The unit goes on to a token, and takes its results of the layer before."""
        self.token = token
        if self.config.tokens > 1:
            ctx.set(self.dut.token, token)
        nothing = [0] * self.rng.randrange(3)
        await self.take(ctx, nothing if self.running is None else self.running.taken(token))

    async def one_layer(self, ctx, layer, tokens=1):
        """A layer, whose codes the unit makes of the results of the layer before."""
        index = self.rng.randrange(256)
        for token in range(tokens):
            await self.go_on(ctx, token)
            before = self.banks[self.activations, token].copy()
            await self.give(ctx, layer.codes[token])
            await self.one_run(ctx, layer, index, before, last=token == tokens - 1)
        for _ in range(self.rng.randrange(30)):
            state = await self.cycle(ctx, codes=[NOISE])
            require(not state["code_ready"], "no code may be taken while a layer is computed")
            require(not state["sum_valid"], "no result may come while a layer is computed")
            require(state["computes"] and state["busy"], "a layer is computed")
        self.running = layer
        await self.cycle(ctx, done=True)

    async def one_run(self, ctx, layer, index, before, *, last):
        """The layer of a token; the last one starts it."""
        run = index if self.config.tokens == 1 else {"layer": index, "last": last}
        while not (await self.cycle(ctx, run=run))["run_ready"]:
            pass
        while not (state := await self.cycle(ctx))["wants"]:
            require(state["computes"], "a layer that is on its way must show in computes")
        require(state["layer"] == index, f"layer must be {index}, not {state['layer']}")
        for _ in range(self.rng.randrange(4)):
            await self.cycle(ctx)
        while not (state := await self.cycle(ctx, pad=layer.tiles - 1))["padded"]:
            require(state["computes"], "no code of the next token may come among the zeros")
        self.require_codes(layer, before)
        if not last:
            return
        for _ in range(self.rng.randrange(4)):
            require((await self.cycle(ctx))["wants"], "wants must stay until the layer starts")
        require(not self.fetched, "the core holds results when a layer starts")
        await self.cycle(ctx, start=layer.row_groups - 1)
        self.require_codes(layer, before)

    async def give(self, ctx, codes):
        """The unit gives codes."""
        while codes:
            some = codes[: self.count()]
            codes = codes[len(some) :]
            while not self.happens(self.idle):
                await self.cycle(ctx)
            while not (await self.cycle(ctx, codes=some))["code_ready"]:
                pass

    async def take(self, ctx, wanted):
        """The unit takes results."""
        number = 0
        while number < len(wanted):
            results = wanted[number : number + self.count()]
            while not self.happens(self.pause):
                await self.cycle(ctx)
            while not (state := await self.cycle(ctx, take=len(results)))["sum_valid"]:
                pass
            sums = state["sum"]
            got = [sums] if self.lanes == 1 else [sums[lane] for lane in range(len(results))]
            require(got == results, f"results from {number} on must be {results}, not {got}")
            number += len(results)

    def count(self):
        """Codes or results of one transfer; mostly all lanes have one."""
        return self.lanes if self.rng.random() < 0.8 else self.rng.randint(1, self.lanes)

    def require_codes(self, layer, before):
        """The bank holds the codes, then zeros up to the end of the tiles, then what it held."""
        config, bank = self.config, self.banks[self.activations, self.token]
        given = layer.codes[self.token]
        size = max(layer.tiles * config.lanes, len(given))
        words = min(-(-size // config.fill), config.activation_words)
        codes = [code & 0xFF for code in given] + [0] * (words * config.fill)
        for address in range(words):
            word = bytes(codes[address * config.fill :][: config.fill])
            require(bank[address] == int.from_bytes(word, "little"), f"word {address} is wrong")
        require(list(bank[words:]) == list(before[words:]), "words behind the layer changed")

    async def cycle(self, ctx, *, codes=(), run=None, pad=None, start=None, done=False, take=0):
        """One cycle; gives what the runner showed in it."""
        dut, config = self.dut, self.config
        ctx.set(dut.i_code.valid, bool(codes))
        shown = [*codes, *[NOISE] * (self.lanes - len(codes))]
        if self.lanes == 1:
            ctx.set(dut.i_code.payload, shown[0])
        else:
            ctx.set(dut.i_code.payload, {"codes": shown, "last": max(0, len(codes) - 1)})
            ctx.set(dut.sum_last, max(0, take - 1))
        ctx.set(dut.i_run.valid, run is not None)
        if run is not None:
            ctx.set(dut.i_run.payload, run)
        ctx.set(dut.pad, pad is not None)
        ctx.set(dut.last_tile, pad or 0)
        ctx.set(dut.start, start is not None)
        ctx.set(dut.last_group, start or 0)
        ctx.set(dut.done, done)
        ctx.set(dut.o_sum.ready, take > 0)
        ctx.set(dut.o_fetch.ready, len(self.fetched) < CORE_HOLDS and self.happens(self.pause))
        # Once it is offered, a result stays until its transfer.
        offers = bool(self.fetched) and (self.offers or self.happens(self.idle))
        ctx.set(dut.i_result.valid, offers)
        if offers:
            sums = Value.cast(dut.i_result.payload)
            packed = 0
            for row, value in enumerate(self.fetched[0].reshape(-1).tolist()):
                packed |= (value & (1 << config.acc_bits) - 1) << row * config.acc_bits
            assert packed < 1 << len(sums)
            ctx.set(sums, packed)
        names = {
            "code_ready": dut.i_code.ready,
            "run_ready": dut.i_run.ready,
            "sum_valid": dut.o_sum.valid,
            "sum": dut.o_sum.payload,
            "wants": dut.wants,
            "layer": dut.layer,
            "padded": dut.padded,
            "computes": dut.computes,
            "busy": dut.busy,
            "load": dut.o_load.valid,
            "load_address": dut.o_load.payload.address,
            "load_word": Value.cast(dut.o_load.payload.word),
            "load_bank": dut.o_load.payload.bank,
            "load_token": dut.o_load.payload.token,
            "fetch": dut.o_fetch.valid,
            "fetch_group": dut.o_fetch.payload.row_group,
            "fetch_bank": dut.o_fetch.payload.bank,
            "fetch_ready": dut.o_fetch.ready,
            "result_ready": dut.i_result.ready,
        }
        _, _, *values = await ctx.tick().sample(*names.values())
        state = dict(zip(names, values, strict=True))
        self.offers = offers and not state["result_ready"]
        if offers and state["result_ready"]:
            self.fetched.popleft()
        if state["fetch"] and state["fetch_ready"]:
            require(state["fetch_bank"] == self.result_bank, "results of another bank")
            require(self.running is not None, "results of a layer before the program")
            most = MOST_FETCHED * (1 if self.lanes == 1 else 2)
            require(len(self.fetched) < most, "more row groups than the core may hold")
            self.fetched.append(self.running.results[:, state["fetch_group"]])
        if state["load"]:
            require(state["load_bank"] == self.activations, "codes for another bank")
            require(state["load_token"] == self.token, "codes for another token")
            require(state["load_address"] < config.activation_words, "codes beyond the bank")
            place = self.activations, self.token, state["load_address"]
            self.banks[place] = state["load_word"]
        return state


def check(runner, config, seed, idle=0.0, pause=0.0, programs=6):
    rng = random.Random(seed)
    some = [[Layer(config, rng) for _ in range(rng.randint(1, 3))] for _ in range(programs)]
    dut = runner(config)
    simulate(dut, Played(dut, some, seed, idle, pause).bench, deadline_cycles=40_000)


@quick_first("name", CONFIGS)
@quick_first(("idle", "pause"), FLOWS[:4])
def test_layers(name, idle, pause):
    check(LayerRunner, CONFIGS[name], FLOWS.index((idle, pause)), idle, pause)


@pytest.mark.parametrize("name", ["wide", "two lanes", "a word a cycle"])
def test_cycles(name):
    """Codes go in and results come out in each cycle, if nobody waits."""
    config = CONFIGS[name]
    lanes = config.vector.lanes
    layer = Layer(config, random.Random(0))
    layer.codes[0] = [1] * layer.tiles * config.lanes
    layer.takes[0] = layer.results[0].size
    dut = LayerRunner(config)
    played = Played(dut, [[layer]], 0, 0.0, 0.0)
    counts = {}

    async def bench(ctx):
        ctx.set(dut.active, 1)
        ctx.set(dut.result_bank, 1)
        played.activations, played.result_bank = 0, 1
        cycles = played.cycle

        async def counted(ctx, **inputs):
            for name in ("codes", "take"):
                used = inputs.get(name) not in (None, 0, [NOISE])
                counts[name] = counts.get(name, 0) + used
            return await cycles(ctx, **inputs)

        played.cycle = counted
        played.count = lambda: lanes
        await played.one_layer(ctx, layer)
        counts["take"] = 0
        await played.go_on(ctx, 0)

    simulate(dut, bench, deadline_cycles=2_000)
    assert counts["codes"] == -(-len(layer.codes[0]) // lanes)
    assert counts["take"] == -(-layer.takes[0] // lanes) + FIRST_RESULT_CYCLES


SEEDED_BUGS = {
    "drains": ("with m.If(empty):", "with m.If(1):"),
    "end of a program": ("clear.eq(~self.active | changes)", "clear.eq(changes)"),
    "end of the tiles": ("(tile > self.last_tile)", "(tile >= self.last_tile)"),
    "rest of a word": ("padded.eq(~partial & ~", "padded.eq(~"),
    "room": ("room.eq(tile != config.max_tiles)", "room.eq(1)"),
    "zeros": ("Mux(zero, 0, self.i_code.payload)", "self.i_code.payload"),
    "results of another program": ("takes.eq(self.active & current)", "takes.eq(current)"),
    "no results": ("~more & empty)\n        else", "~more)\n        else"),
    "last row group": ("more.eq(group != last_group)", "more.eq(1)"),
    "row": ("[has.eq(0), row.eq(0)]", "has.eq(0)"),
    "fetched before": ("            m.d.sync += more.eq(0)", "            pass"),
    "busy": ("self.busy.eq(~idle | ~empty)", "self.busy.eq(~idle)"),
    "too many": ("takes & more & ~in_core[-1]", "takes & more"),
    "codes of the token before": ("clear.eq(~self.active | changes)", "clear.eq(~self.active)"),
    "codes before the token is known": ("clear, idle & ~changes, token", "clear, idle, token"),
    "place of a token": ("load.token.eq(token)", "load.token.eq(0)"),
    "zeros of each token": ("self.pad & self.padded & ~self.runs", "self.pad & ~self.runs"),
    "results of another token": (".word_select(token, config", ".word_select(0, config"),
    "results once": ("(self.done & ~idle) | begins_again", "self.done & ~idle"),
    "row groups of the token before": ("restarts & idle & empty & ~changes", "restarts & idle"),
    "results of no layer": ("m.If(changes & has_layer)", "m.If(changes)"),
}
LANES_BUGS = {
    "zeros": ("*(Mux(zero, 0, code) for code", "*(code for code"),
    "zeros end with a word": ("Mux(count + lanes <= fill, lanes, 1)", "lanes"),
    "some codes": ("entering.eq(self.i_code.payload.last + 1)", "entering.eq(lanes)"),
    "behind a word": ("range(lanes))[after]", "range(lanes))[0]"),
    "codes of another layer": (
        "            m.d.sync += count.eq(0)\n\n    def _fetch",
        "            pass\n\n    def _fetch",
    ),
    "some results": ("taken.eq(self.sum_last + 1)", "taken.eq(lanes)"),
    "too few results": ("(count > self.sum_last) | none_comes", "(count != 0) | none_comes"),
    "room of results": ("(left < lanes) | ~takes", "(left <= lanes) | ~takes"),
    "place of results": ("placed[left[: (lanes - 1).bit_length()]]", "placed[0]"),
    "results of a program before": ("[held.eq(0), count.eq(0)]", "count.eq(0)"),
    "count of a program before": ("[held.eq(0), count.eq(0)]", "held.eq(0)"),
}


@pytest.mark.parametrize(
    ("bugs", "name"),
    [
        pytest.param(bugs, name, marks=[] if name == "drains" else pytest.mark.sim)
        for bugs in (SEEDED_BUGS, LANES_BUGS)
        for name in bugs
    ],
)
def test_seeded_bug_is_found(bugs, name):
    runner = broken(layer_runner, *bugs[name]).LayerRunner

    def check_all():
        for flow in (3, 1, 0):
            for config in CONFIGS.values():
                if (config.vector.lanes > 1) != (bugs is LANES_BUGS):
                    continue
                programs = 10 if config.tokens > 2 else 6
                check(runner, config, flow, *FLOWS[flow], programs=programs)

    with pytest.raises((ContractError, IndexError)):
        check_all()
