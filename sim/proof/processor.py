"""Properties of the command processor: stream rules, who uses which bank, and its counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from amaranth.hdl import Cat, Mux, Signal, Value
from amaranth.lib import data, fifo
from amaranth.lib.memory import Memory

from tritloom.rtl.control.tasks import Kind, task_layout
from tritloom.rtl.spec.commands import LAYER, Opcode
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.sim.proof.banks import BankUse
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies, stream_rules

__all__ = ["processor_rules"]

ACCEPTED = ("REACH", "COMPARE", "EXECUTE", "COLLECT", "EXTENT", "ASK", "START", "CHECKSUM", "PUSH")
"""States of the acceptor that only the next command of the session passes through."""
DIRECT = ("BEGIN", "FORGET", "REPLAY", "DIRECT", "SENT")
"""States of the acceptor that no such command passes through, and that have no response to send."""
RESPOND = ("DRAIN", "RESPOND", "RESPOND-HEADER")
"""States of the acceptor that either passes through."""
RESULTS_STATES = ("RESPOND", "RESPOND-HEADER", "PUSH", "HEADER", "ORDER")
"""States of the acceptor in which the kind of its task may be RESULTS."""


def processor_rules(component: Any) -> Bench:
    """`stream_rules` of a `CommandProcessor`, the rules of `BankUse`, and no counter overflows.

    Bank exclusion: while a layer runs, no activations are loaded to its activation bank, and no row
    group is fetched from its result bank. While a RESULTS is not copied, or a row group of it is
    fetched and not taken, no layer starts that writes its bank.

    Assumed of the core: totals come only for row groups that were fetched, and no more row groups
    wait than the core holds. `core_rules` shows both.

    The covers are too many cycles away for the solver: `Bench.simulate` reaches them.
    """
    parts = _Parts(component)
    inside, config = parts.inside, component.config
    bench = stream_rules(component, inside=inside)
    use = BankUse(
        bench,
        config,
        load=component.o_load,
        scale=component.o_scale if config.scales_activations else None,
        run=component.o_run,
        fetch=component.o_fetch,
        result=component.i_result,
        done=component.done,
    )
    for result in use.results.values():
        bench.assume(result)
    for name, rule in use.rules.items():
        bench.check(name, rule)
    run = component.o_run.payload
    results_of_run = parts.count(
        bench, "of_run", lambda task: (task.kind == Kind.RESULTS) & (task.bank == run.result_bank)
    )
    bench.check("run_after_results", ~component.o_run.valid | (results_of_run == 0))
    _cases(bench, parts, component, use)
    _counters(bench, parts, config)
    _acceptor(bench, parts, config)
    _responder(bench, parts, config, use)
    return bench


class _Parts:
    """A `CommandProcessor` taken apart.

    Members
    -------
    inside : its logic
    queue : the queue of tasks, `None` with one bank
    queued : tasks in the queue: whether there is one, and the task
    task : the responder's task, from a register
    works : the responder has a task
    """

    def __init__(self, component: Any) -> None:
        class Watched(Memory):
            """A memory whose words can all be read at once."""

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.ports = [self.read_port(domain="comb") for _ in range(self.depth)]

        with patch.object(fifo, "Memory", Watched):
            self.inside = inside = Inside(component)
        self.task = inside.within(inside["responder"])["task"]
        self.works = ~inside.state("responder", "TASK")
        self.queue = inside.part("tasks") if component.config.banks > 1 else None
        self.queued: list[tuple[Any, Any]] = []
        if self.queue is not None:
            self.queue_state = inside.within(self.queue)
            self.memory = self.queue_state["storage"]
            layout = task_layout(component.config)
            level, first = self.queue_state["inner_level"], self.queue_state["consume"]
            words = [self.queue.r_data, *(port.data for port in self.memory.ports)]
            depth = self.memory.depth
            places = [Mux(first > n, depth + n - first, n - first) for n in range(depth)]
            present = [self.queue.r_rdy, *(place < level for place in places)]
            views = [data.View(layout, Value.cast(word)) for word in words]
            self.queued = list(zip(present, views, strict=True))

    def count(self, bench: Bench, name: str, chosen: Callable[[Any], Any]) -> Signal:
        """How many tasks are in the queue or in work, of those that are `chosen`."""
        total = Signal(8, name=f"tasks_{name}")
        tasks = [*self.queued, (self.works, self.task)]
        bench.m.d.comb += total.eq(sum(present & chosen(task) for present, task in tasks))
        return total


def _counters(bench: Bench, parts: _Parts, config: Any) -> None:
    """Check that no counter overflows, and what each counts."""
    inside, slots = parts.inside, config.slots
    tasks, complete, was_kept = (inside.signal(name) for name in ("tasks", "complete", "was_kept"))
    unsent, sending = inside["acceptor"].unsent, inside["acceptor"].sending
    uncopied = inside.within(inside["banks"])["uncopied"]
    bench.check("tasks_limit", tasks <= slots + 1)
    bench.check("unsent_limit", unsent <= slots)
    bench.check("complete_limit", complete <= unsent)
    respond = parts.count(bench, "respond", lambda task: task.kind != Kind.CHECKSUM)
    checksums = parts.count(bench, "checksum", lambda task: task.kind == Kind.CHECKSUM)
    waits = inside.state("acceptor", "CHECKSUM")
    bench.check("one_checksum", checksums <= waits)
    bench.check("tasks", tasks == parts.count(bench, "all", lambda task: 1))
    bench.check("unsent", unsent == complete + (sending & was_kept) + respond)
    for bank, count in enumerate(uncopied):

        def is_of_bank(task: Any, bank: int = bank) -> Any:
            return (task.kind == Kind.RESULTS) & (task.bank == bank)

        of_bank = parts.count(bench, f"of_{bank}", is_of_bank)
        bench.check(f"uncopied_limit_{bank}", count <= slots)
        bench.check(f"uncopied_{bank}", count == of_bank)

    if parts.queue is not None:
        for number, port in enumerate(parts.memory.ports):
            bench.m.d.comb += port.addr.eq(number)
        state, depth = parts.queue_state, parts.memory.depth
        level, first, end = state["inner_level"], state["consume"], state["produce"]
        bench.check("queue_limit", (level <= depth) & (first < depth) & (end < depth))
        distance = Mux(first + level >= depth, first + level - depth, first + level)
        bench.check("queue_end", end == distance)


def _cases(bench: Bench, parts: _Parts, component: Any, use: BankUse) -> None:
    """Cover what the rules are about: commands beside a layer, and such that wait for a bank."""
    inside, config = parts.inside, component.config
    acceptor, banks = inside["acceptor"], inside["banks"]
    opcode = inside.within(acceptor)["states"].request.opcode
    executes = inside.state("acceptor", "EXECUTE")
    is_results = parts.task.kind == Kind.RESULTS
    bench.cover("load_waits", executes & (opcode == Opcode.LOAD) & ~banks.may_load)
    if config.scales_activations:
        bench.cover("scale_waits", executes & (opcode == Opcode.SCALES) & ~banks.may_load)
        if config.banks > 1:
            bench.cover("scale", component.o_scale.valid & use.runs)
    if config.banks > 1:
        waits_to_run = executes & (opcode == Opcode.RUN)
        if config.asks_ahead:
            waits_to_run = inside.state("acceptor", "START")
            bench.cover("ask", component.o_read.valid & use.runs)
        unfinished = waits_to_run & ~banks.may_run & ~banks.busy
        waits = inside.state("responder", "WAIT") & is_results & ~banks.may_copy
        bench.cover("load", component.o_load.valid & use.runs)
        bench.cover("fetch", component.o_fetch.valid & use.runs)
        bench.cover("run_waits", unfinished)
        bench.cover("results_wait", waits)


def _acceptor(bench: Bench, parts: _Parts, config: Any) -> None:
    """Invariants of the acceptor: what a command may rely on after its checks."""
    inside = parts.inside
    acceptor, banks = inside["acceptor"], inside["banks"]
    states = inside.within(acceptor)["states"]
    of_banks = inside.within(banks)
    of_run, uncopied = of_banks["of_run"], of_banks["uncopied"]

    unsent = acceptor.unsent

    def state(*names: str) -> Any:
        return inside.state("acceptor", *names)

    for part in ("acceptor", "responder"):
        machine = inside.machine(part)
        bench.check(f"state_{part}", machine.state < len(machine.encoding))
    kept = state(*ACCEPTED) | (state(*RESPOND) & states.keep)
    alone = state(*DIRECT) | (state(*RESPOND) & ~states.keep)
    bench.check("kept", implies(state(*ACCEPTED), states.keep))
    bench.check("room", implies(kept, unsent < config.slots))
    bench.check("not_kept", implies(state(*DIRECT, "QUIET"), ~states.keep))
    bench.check("alone", implies(alone, unsent == 0))

    is_results = states.kind == Kind.RESULTS
    most = config.max_payload // config.acc_bytes
    bench.check("kind_results", implies(is_results, state(*RESULTS_STATES)))
    with_task = (*RESULTS_STATES, "ASK", "CHECKSUM")
    bench.check("kind", implies(states.kind != Kind.NOTHING, state(*with_task)))
    asks = (states.kind == Kind.NOTHING) | (states.kind == Kind.WORDS)
    bench.check("kind_asks", implies(state("ASK"), asks | (states.kind == Kind.CHECKSUM)))
    bench.check("kind_alone", implies(alone, states.kind == Kind.NOTHING))
    responds = state("RESPOND", "RESPOND-HEADER", "PUSH")
    bench.check("items", implies(is_results & responds, states.items <= most))
    for number, (present, task) in enumerate(parts.queued):
        queued_results = present & (task.kind == Kind.RESULTS)
        bench.check(f"items_{number}", implies(queued_results, task.items <= most))

    words, collects = states.words, state("COLLECT")
    count = inside.within(words)["count"]
    sizes = {Opcode.WRITE: config.word_bytes, Opcode.LOAD: config.fill, Opcode.DEFINE: LAYER.size}
    if config.scales_activations:
        sizes[Opcode.SCALES] = FLOAT_BYTES
    for opcode, size in sizes.items():
        is_opcode = states.request.opcode == opcode
        bench.check(f"size_{opcode.name}", implies(collects & is_opcode, states.size == size))
    bench.check("collects", implies(collects, Mux(words.complete, count == 0, count < states.size)))
    before = state("REACH", "COMPARE", "EXECUTE")
    bench.check("no_word", implies(before, (count == 0) & ~words.complete))

    starts = state("START") | (state("ASK") & (states.kind == Kind.NOTHING))
    if config.asks_ahead:
        starts = acceptor.o_run.valid
    free = Mux(acceptor.o_run.payload.result_bank, uncopied[-1], uncopied[0]) == 0
    bench.check("starts", implies(starts, ~banks.busy & free))
    own = of_run.activation_bank == acceptor.o_load.payload.bank
    of_layer = banks.busy & own
    opcode = states.request.opcode
    loads = collects & ((opcode == Opcode.LOAD) | (opcode == Opcode.SCALES))
    bench.check("loads", ~(loads & of_layer))


def _floats(bench: Bench, parts: _Parts, moving: Any) -> Value:
    """Invariants of `ResultFloats` where its totals need no converter; the totals to be taken.

    Those are counted from the first row of the row group that is taken next.
    """
    responder = parts.inside.within(parts.inside["responder"])
    floats = parts.inside.within(responder["m"].submodules.floats)
    queue, left, row = floats["queue"], floats["left"], floats["row"]
    inner = parts.inside.within(queue)["inner_level"]
    chosen = queue.level + queue.w_en
    bench.check("floats_free", floats["free"] + chosen == floats["depth"])
    bench.check("floats_queue", queue.r_rdy | (inner <= 1))
    bench.check("floats_left", Mux(moving, parts.task.items == left + chosen, chosen == 0))
    rows = Mux(left == 0, 1, floats["config"].rows)
    bench.check("floats_row", implies(moving, row < rows))
    return left + row


def _responder(bench: Bench, parts: _Parts, config: Any, use: BankUse) -> None:
    """Invariants of the responder: it fetches the row groups that it takes, and of one bank."""
    inside, task, rows = parts.inside, parts.task, config.rows
    banks = inside["banks"]
    of_run = inside.within(banks)["of_run"]
    unfetched = inside.within(inside["responder"])["unfetched"]
    is_results = task.kind == Kind.RESULTS
    waits, moves, patches = (inside.state("responder", name) for name in ("WAIT", "MOVE", "PATCH"))
    bench.check("busy", banks.busy == use.running)
    of_layer = Cat(of_run.activation_bank, of_run.result_bank)
    if config.banks > 1:
        bench.check("of_run", implies(banks.busy, of_layer == use.banks))
    most = config.max_payload // config.acc_bytes
    bench.check("response", implies(patches, task.kind != Kind.CHECKSUM))
    bench.check("wanted", implies((waits | moves) & is_results, task.items <= most))

    def groups(results: Any) -> Any:
        return (results + (rows - 1)) // rows

    fetching = moves & is_results
    untaken = task.items
    if config.scales_activations:
        untaken = _floats(bench, parts, fetching)
    all_groups = groups(untaken) == groups(unfetched) + use.length
    bench.check("fetching", Mux(fetching, all_groups, use.length == 0))
    own = (moves | patches) & is_results
    bench.check("own_bank", ~(own & banks.busy & (of_run.result_bank == task.bank)))
    asked = Cat(use.length > n for n in range(len(use.waiting)))
    others = asked & Mux(task.bank, ~use.waiting, use.waiting)[: len(asked)]
    bench.check("one_bank", ~others.any())
