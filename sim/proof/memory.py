"""Properties of the weight memory in block RAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Mux, Signal

from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import RegisterState, implies

__all__ = ["memory_contract"]


def memory_contract(component: Any) -> Bench:
    """A `BlockRamMemory` gives exactly the words of the ranges, in order, as last written.

    A word comes `LATENCY` cycles after its range or in the cycle after the word before it,
    whichever is later. Assumed: ranges are not empty and lie in the memory; nothing reads and
    writes at the same time.

    The proof follows one word of one range: the word with the number `index` among all that were
    asked for. Its content is known if its address is `place`. Both are any numbers.
    """
    config, inside = component.config, Inside(component, words_0=1)
    assert config.memory_words <= BlockRam.BANK_WORDS, "the invariants cover one bank"
    bench = Bench(component, inside)
    m, o, ask, write = bench.m, component.o, component.i_read, component.i_write
    words = config.memory_words
    # Numbers of words count modulo a power of two, above all words that can be on their way: those
    # of a range, of the next one, and in the registers.
    bits = (2 * words + 4).bit_length()
    index, place = bench.constant("index", bits), bench.constant("place", range(words))
    demanded, delivered = bench.state("demanded", bits), bench.state("delivered", bits)
    source, stored = bench.state("source", range(words)), bench.state("stored", config.word_bits)
    waiting = Signal(bits)  # words that were asked for and not delivered
    m.d.comb += waiting.eq(demanded - delivered)
    asked = ask.valid & ask.ready
    bench.assume((ask.payload.count >= 1) & (ask.payload.address + ask.payload.count <= words))
    bench.assume(~write.valid | ((waiting == 0) & ~ask.valid))
    bench.assume((write.payload.address < words) & (place < words))

    ahead = Signal(bits)  # words of the next range before the tracked one
    m.d.comb += ahead.eq(index - demanded)
    with m.If(asked):
        m.d.sync += demanded.eq(demanded + ask.payload.count)
        with m.If(ahead < ask.payload.count):
            m.d.sync += source.eq(ask.payload.address + ahead)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)
    with m.If(write.valid & write.ready & (write.payload.address == place)):
        m.d.sync += stored.eq(write.payload.word)

    distance = Signal(bits)  # words before the tracked one that are not delivered
    m.d.comb += distance.eq(index - delivered)
    tracked = (distance < waiting) & (source == place)
    old = bench.was(demanded, BlockRam.LATENCY - 1)  # what was demanded long enough ago
    bench.check("error", ~component.error)
    bench.check("none_invented", implies(o.valid, waiting != 0))
    bench.check("in_time", implies(delivered != old, o.valid))
    bench.check("order", implies(tracked & o.valid & (distance == 0), o.payload == stored))

    # Invariants: where the words on their way are. From the output backwards: at `o`, second in the
    # output's register, in the bank's register, in the read port.
    left, address = inside["left"], inside["address"]
    in_port, in_bank = inside["valid"][0], inside["valid"][1]
    output = RegisterState.of(inside.within(inside["output"]))
    second = output.second
    behind = Signal(bits)  # words before the tracked one that are not read yet
    m.d.comb += behind.eq(distance - o.valid - second - in_bank - in_port)
    bench.check("none_lost", waiting == left + in_port + in_bank + second + o.valid)
    bench.check("more", inside["more"] == (left != 0))
    bench.check("in_range", implies(left != 0, address + left <= words))
    late = inside["write"]  # a write on its way to the block
    content = Mux(
        inside["writing"][0] & (late.address == place),
        late.word,
        inside.word(bench, "words_0", place),
    )
    bench.check("written", implies(inside["writing"], waiting == 0))
    bench.check("memory", content == stored)
    data, register = inside["read_port"].data, inside["register"]
    bench.check("turns", output.in_turn)
    for name, there, before, word in (
        ("second", second, o.valid, output.second_word),
        ("in_bank", in_bank, second + o.valid, register),
        ("in_port", in_port, in_bank + second + o.valid, data),
    ):
        bench.check(name, implies(tracked & there & (distance == before), word == stored))
    bench.check(
        "source",
        implies(
            (distance < waiting) & (distance >= in_port + in_bank + second + o.valid),
            source == address + behind,
        ),
    )
    bench.cover("second_range", tracked & o.valid & o.ready & (delivered == 3) & (stored == 7))
    bench.cover("overlap", asked & (waiting > 2))
    return bench
