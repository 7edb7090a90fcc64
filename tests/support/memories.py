"""Runs a weight memory and records its cycles."""

from tritloom.rtl.memories.contract import create_memory
from tritloom.sim.conformance.streams import plain, simulate, sink, source


def transfer(config, writes, ranges, takes=None, deadline_cycles=20_000):
    """Write words, then read ranges.

    Parameters
    ----------
    config : names the memory
    writes : address and word of each
    ranges : first word and number of words of each
    takes : probability that a word is taken in a cycle; always if None
    deadline_cycles : after which the memory is said to have stopped

    Returns
    -------
    The cycle in which each range is taken, and of each word the cycle, the word and `error`.
    """
    dut = create_memory(config)
    count = sum(words for _, words in ranges)
    asked, words = [], []

    async def write_then_read(ctx):
        await source(dut.i_write, [{"address": a, "word": w} for a, w in writes])(ctx)
        await source(dut.i_read, [{"address": a, "count": n} for a, n in ranges])(ctx)

    async def watch(ctx):
        cycle = 0
        while len(words) < count:
            *_, asks, moves, word, error = await ctx.tick().sample(
                dut.i_read.valid & dut.i_read.ready,
                dut.o.valid & dut.o.ready,
                dut.o.payload,
                dut.error,
            )
            if asks:
                asked.append(cycle)
            if moves:
                words.append((cycle, plain(word), error))
            cycle += 1

    pause = 0 if takes is None else 1 - takes
    reader = sink(dut.o, count, [], pause, len(ranges))
    simulate(dut, write_then_read, reader, watch, deadline_cycles=deadline_cycles)
    return asked, words
