"""Who uses which bank, against a model: layers and RESULTS come at random, within the rules."""

import random
from dataclasses import replace

from tests.support import quick_first
from tritloom.rtl.control.banks import Banks
from tritloom.rtl.spec.config import TINY
from tritloom.sim.conformance.streams import simulate


@quick_first("slots", [2, 8])
@quick_first("banks", [2, 1])
def test_banks(banks, slots):
    config = replace(TINY, banks=banks, slots=slots)
    dut, rng = Banks(config), random.Random(slots)
    seen = set()

    async def bench(ctx):
        running, elapsed = None, 0  # the layer that runs, and its cycles so far
        waiting: list[int] = []  # the banks of the RESULTS that are not copied, in order
        results: dict[int, tuple[int, int | None]] = {}  # row groups and cycles of each bank
        for _ in range(3000):
            activations, bank = rng.randrange(banks), rng.randrange(banks)
            copy_bank = waiting[0] if waiting else rng.randrange(banks)
            ctx.set(dut.activation_bank, activations)
            ctx.set(dut.result_bank, bank)
            ctx.set(dut.copy_bank, copy_bank)
            may_load = running is None or running["activation_bank"] != activations
            may_run = running is None and bank not in waiting
            may_copy = running is None or running["result_bank"] != copy_bank
            assert ctx.get(dut.busy) == (running is not None)
            assert ctx.get(dut.may_load) == may_load
            assert ctx.get(dut.may_run) == may_run
            assert ctx.get(dut.may_copy) == may_copy
            for view, number in ((dut.results, bank), (dut.copy_results, copy_bank)):
                assert ctx.get(view.present) == (number in results)
                if number in results:
                    row_groups, cycles = results[number]
                    assert ctx.get(view.last_group) == row_groups
                    assert cycles is None or ctx.get(view.cycles) == cycles
            seen.add((may_load, may_run, may_copy))
            starts = may_run and rng.random() < 0.3
            done = running is not None and rng.random() < 0.1
            enqueue = len(waiting) < slots and bank in results and rng.random() < 0.3
            enqueue = enqueue and not starts
            copied = bool(waiting) and may_copy and rng.random() < 0.3
            forget = running is None and not (waiting or starts or enqueue)
            forget = forget and rng.random() < 0.1
            run = {
                "last_tile": 0,
                "last_group": rng.randrange(config.max_row_groups),
                "activation_bank": activations,
                "result_bank": bank,
            }
            for signal, value in (
                (dut.start, starts),
                (dut.run, run),
                (dut.done, done),
                (dut.enqueue, enqueue),
                (dut.copied, copied),
                (dut.forget, forget),
            ):
                ctx.set(signal, value)
            await ctx.tick()
            elapsed += running is not None
            if done:
                number = running["result_bank"]
                results[number] = (results[number][0], elapsed)
                running = None
            if starts:
                running, elapsed = run, 0
                results[bank] = (run["last_group"], None)
            if copied:
                waiting.pop(0)
            if enqueue:
                waiting.append(bank)
            if forget:
                results.clear()

    simulate(dut, bench, deadline_cycles=0)
    if banks == 2:
        assert {(True, False, True), (False, False, False), (True, False, False)} <= seen
