"""Properties of the `select` engine and of its decoder: every trit and every sum is exact."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from tritloom.rtl.engines.contract import ACT_LATENCY
from tritloom.rtl.spec.encodings import encodings
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["decoder_inverse", "engine_product"]


def decoder_inverse(component: Any) -> Bench:
    """A `Base3x5Decoder` inverts Σ (tᵢ+1)·3^i, for every code up to 242."""
    bench = Bench(component)
    bench.assume(component.i <= 242)
    trits = [Mux(component.nonzero[n], Mux(component.negative[n], -1, 1), 0) for n in range(5)]
    started = bench.was(Const(1), component.CYCLES)
    again = sum((trit + 1) * 3**n for n, trit in enumerate(trits))
    bench.check("inverse", implies(started, again == bench.was(component.i, component.CYCLES)))
    bench.check(
        "negative_is_nonzero", implies(started, (component.negative & ~component.nonzero) == 0)
    )
    bench.cover("low", started & (again == 0))
    bench.cover("high", started & (again == 242))
    return bench


def engine_product(component: Any) -> Bench:
    """A `SelectEngine` gives Σ tᵢ·xᵢ over the tile that was loaded.

    The bench multiplies. Every trit and activation takes every value. Words come with or without
    pauses. Tiles change at any time that the contract allows. A tile consists of the words that
    `i_act` holds `ACT_LATENCY` cycles after their addresses, which count up from 0. Assumed:
    `i_more` rises after `i_start` and falls after `i_swap`.
    """
    config, inside = component.config, Inside(component)
    encoding = encodings[config.encoding]
    bench = Bench(component, inside, driven=("i_word", "i_swap"))
    m, more, latency = bench.m, component.i_more, config.engine_latency
    loads, bits = config.lanes // config.fill, config.lanes * config.act_bits

    trits = [bench.free(f"trit_{k}", signed(2)) for k in range(config.rows * config.lanes)]
    for trit in trits:
        bench.assume(trit != -2)
    signs, codes = _signs_and_codes(config, trits)
    m.d.comb += component.i_word.eq(Cat(Value.cast(code)[: encoding.code_bits] for code in codes))
    swap = bench.free("swap")
    m.d.comb += component.i_swap.eq(swap & component.i_valid & component.ready)
    bench.assume(~component.i_start | ~more)
    change = Mux(more, bench.was(component.i_start), bench.was(component.i_swap))
    bench.assume((more == bench.was(more)) | change)

    # The model: `run` asks for a word of the next tile, which arrives later. `tile` is what has
    # arrived, `used` the tile of the last weight word, `current` that of this cycle's.
    run, arrives = inside["run"], Signal()
    asked, count = (bench.state(n, range(loads + 1)) for n in ("asked", "count"))
    address = bench.state("address", len(component.act_address))
    tile, used, current = (bench.state(n, bits) for n in ("tile", "used", "current"))
    m.d.comb += [
        arrives.eq(bench.was(run, ACT_LATENCY)),
        current.eq(Mux(component.i_swap, tile, used)),
    ]
    m.d.sync += used.eq(current)
    with m.If(run):
        m.d.sync += [address.eq(address + 1), asked.eq(asked + 1)]
    with m.If(component.i_start):
        m.d.sync += address.eq(0)
    with m.If(arrives):
        m.d.sync += [
            tile.eq(Cat(tile, Value.cast(component.i_act))[-bits:]),
            count.eq(count + 1),
        ]
    with m.If(component.i_swap):
        m.d.sync += [asked.eq(0), count.eq(0)]

    due = bench.was(component.i_valid, latency)
    for row in range(config.rows):
        terms: list[Any] = []
        for lane in range(config.lanes):
            trit = trits[row * config.lanes + lane]
            x = current.word_select(lane, config.act_bits).as_signed()
            # The solver handles a selection better than a product; a check shows them equal.
            term = Signal(signed(config.act_bits + 1), name=f"term_{row}_{lane}")
            m.d.comb += term.eq(Mux(trit == 1, x, Mux(trit == -1, -x, 0)))
            bench.check(f"product_{row}_{lane}", term == trit * x)
            terms.append(term)
        while len(terms) > 1:  # added in pairs like the hardware, which helps the solver
            terms = [sum(terms[k : k + 2]) for k in range(0, len(terms), 2)]
        total = Signal(signed(config.sum_bits + 1), name=f"total_{row}")
        m.d.comb += total.eq(terms[0])
        late = bench.was(total, latency)
        result = Mux(component.o_negative[row], -component.o_sums[row], component.o_sums[row])
        bench.check(f"sum_{row}", implies(due, result == late))
        lowest = config.lanes << (config.act_bits - 1)
        bench.cover(f"sum_{row}_highest", due & (result == lowest))

    # Invariants. `zeros`, `nonzeros` and `relatives` of `elaborate` are those of the last row, and
    # these configurations have one.
    decoded = bench.was(component.i_valid, encoding.decoder_cycles)
    zeros, nonzeros = inside["zeros"], inside["nonzeros"]
    for k, trit in enumerate(trits[: config.lanes]):
        late, sign = (bench.was(value, encoding.decoder_cycles) for value in (trit, signs[k]))
        if k:
            sign = sign ^ bench.was(signs[k & (k - 1)], encoding.decoder_cycles)
        nonzero = nonzeros[k // 2] if k % 2 else ~zeros[k // 2]
        right = (nonzero == (late != 0)) & (inside["relatives"][k] == sign)
        bench.check(f"decoded_{k}", implies(decoded, right))
    recent = [bench.was(component.i_swap, n) for n in range(1, encoding.decoder_cycles)]
    pending = Cat(recent).any()
    full = count == loads
    bench.check("ready", component.ready == full)
    bench.check("address", component.act_address == address)
    bench.check("loads", run == (more & (asked != loads) & ~pending))
    bench.check("no_overwrite", ~arrives | ~(full | pending))
    bench.check("arrives", inside["arriving"][-1] == arrives)
    under_way = [bench.was(run, n) for n in range(1, ACT_LATENCY + 1)]
    bench.check("asked", (asked == count + sum(under_way)) & (asked <= loads))

    loaded, in_use = Value.cast(inside["loaded"]), Value.cast(inside["current"])
    bench.check("loaded", loaded == tile)
    bench.check("current", Mux(pending, loaded, in_use) == used)
    bench.check("pending", inside["pending"] == pending)
    bench.check("words", inside["words"] == Mux(pending, loads, asked))
    bench.check("one_swap", implies(pending, asked == 0))
    bench.cover("swap_under_way", due & bench.was(component.i_swap, 2))
    bench.cover("second_tile", component.ready & (address == 2 * loads))
    return bench


def _signs_and_codes(config: Any, trits: list[Any]) -> tuple[list[Any], list[Any]]:
    """The signs and codes of a weight word.

    Parameters
    ----------
    config : the engine's configuration; its encoding is `base3x5`, or `diff2` with one row
    trits : the trits of a word

    Returns
    -------
    One bit a trit: it counts as negative (the encoding chooses the sign of a zero). The codes.
    """
    if config.encoding == "base3x5":
        fives = [trits[k : k + 5] for k in range(0, len(trits), 5)]
        codes = [sum((trit + 1) * 3**n for n, trit in enumerate(five)) for five in fives]
        return [trit == -1 for trit in trits], codes
    assert config.encoding == "diff2" and config.rows == 1
    signs: list[Any] = []
    for first, second in zip(trits[::2], trits[1::2], strict=True):
        negative = (first == -1) | ((first == 0) & (second == -1))
        signs += [negative, negative ^ ((first != 0) & (second != 0) & (first != second))]
    codes = []
    for n in range(0, len(trits), 2):
        relative = signs[n] ^ signs[n & (n - 2)] if n else signs[0]
        codes.append(Cat(trits[n] == 0, trits[n + 1] != 0, signs[n] ^ signs[n + 1], relative))
    return signs, codes
