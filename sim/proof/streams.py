"""Properties of streams: the stream rule of every output, and what `StreamRegister` and
`StreamSwitch` do with words.

The stream rule: once `valid` is set, `valid` and the payload stay until the transfer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Mux, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Out

from tritloom.sim.proof.banks import BankUse
from tritloom.sim.proof.formal import Bench, Inside

__all__ = [
    "RegisterState",
    "accelerator_rules",
    "core_rules",
    "implies",
    "register_contract",
    "stream_rules",
    "switch_contract",
]


def implies(condition: Any, result: Any) -> Any:
    """True unless `condition` is set and `result` is not."""
    return ~Value.cast(condition).bool() | result


def holds(bench: Bench, name: str, flow: Any, cover: bool = True) -> None:
    """Check the stream rule of an output stream.

    Parameters
    ----------
    bench : bench that the checks are added to
    name : how the properties' names begin
    flow : the stream
    cover : whether to cover that a word waits and is then transferred
    """
    waits = bench.was(flow.valid & ~flow.ready)
    payload = Value.cast(flow.payload)
    bench.check(f"{name}_valid", ~waits | flow.valid)
    bench.check(f"{name}_payload", ~waits | (payload == bench.was(payload)))
    if cover:
        bench.cover(f"{name}_waits", waits & flow.valid & flow.ready)


def obeys(bench: Bench, flow: Any) -> None:
    """Assume the stream rule of an input stream."""
    waits = bench.was(flow.valid & ~flow.ready)
    payload = Value.cast(flow.payload)
    bench.assume(~waits | (flow.valid & (payload == bench.was(payload))))


def stream_rules(
    component: Any, covered: Collection[str] | None = None, inside: Inside | None = None
) -> Bench:
    """The stream rule of every output stream of a component, whatever its inputs do.

    Parameters
    ----------
    component : any component
    covered : the outputs for which to cover that a word waits; `None` for all of them
    inside : the component taken apart, if its invariants are needed

    Returns
    -------
    A bench for `tritloom.sim.proof.formal.verify`, as for all functions of this module.
    """
    bench = Bench(component, inside)
    for name, member in component.signature.members.items():
        is_stream = member.is_signature and isinstance(member.signature, stream.Signature)
        if is_stream and member.flow == Out:
            cover = covered is None or name in covered
            holds(bench, name, getattr(component, name), cover)
    return bench


def core_rules(component: Any) -> Bench:
    """`stream_rules` of a `Core`, and every row group that is fetched comes at `o`, and no other.

    Assumed: shapes are in range, and the command processor keeps the rules of `BankUse`.
    """
    bench = stream_rules(component)
    config, shape, o = component.config, component.i_run.payload, component.o
    use = BankUse(
        bench,
        config,
        load=component.i_load,
        scale=component.i_scale if config.scales_activations else None,
        run=component.i_run,
        fetch=component.i_fetch,
        result=o,
        done=component.done,
    )
    bench.assume((shape.last_tile < config.max_tiles) & (shape.last_group < config.max_row_groups))
    for rule in use.rules.values():
        bench.assume(rule)
    for name, result in use.results.items():
        bench.check(name, result)
    bench.cover("result", o.valid & (Value.cast(o.payload) != 0))
    if config.banks > 1:
        bench.cover("beside_a_layer", use.taken & use.runs & (Value.cast(o.payload) != 0))
    return bench


def accelerator_rules(component: Any) -> Bench:
    """`stream_rules` of an `Accelerator`.

    A response is too many cycles away for a cover. `PacketSender` covers that an output waits; here
    the cover is that a packet is checked.
    """
    bench = stream_rules(component, covered=())
    bench.cover("checks", component.i.valid & ~component.i.ready)
    return bench


@dataclass(frozen=True)
class RegisterState:
    """The state of a `StreamRegister`, for the invariants of whatever contains one."""

    second: Value
    """Both entries are full: a second word waits behind the one at the output."""
    second_word: Value
    """The word of the entry that is not at the output."""
    in_turn: Value
    """`filling` and `sending` agree with which entries are full."""

    @classmethod
    def of(cls, inside: Any) -> RegisterState:
        """Read the state from a taken-apart `StreamRegister` (`Inside`, or its variables)."""
        full, filling, sending = inside["full"], inside["filling"], inside["sending"]
        first, second = (Value.cast(entry) for entry in inside["entries"])
        one_is_full = full == Mux(sending, 2, 1)
        return cls(
            full.all(),
            Mux(sending, first, second),
            Mux(filling == sending, full.all() | ~full.any(), one_is_full),
        )


def register_contract(component: Any) -> Bench:
    """A `StreamRegister` passes on every word that it accepts, in order, and no other."""
    inside = Inside(component)
    bench = Bench(component, inside)
    i, o, m = component.i, component.o, bench.m
    state = RegisterState.of(inside)
    # One word is followed from input to output: the one with this number.
    index = bench.constant("index", 4)
    accepted, delivered = bench.state("accepted", 4), bench.state("delivered", 4)
    tracked = bench.state("tracked", len(i.payload))
    with m.If(i.valid & i.ready):
        m.d.sync += accepted.eq(accepted + 1)
        with m.If(accepted == index):
            m.d.sync += tracked.eq(i.payload)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)
    inside_now = (accepted - delivered)[:4]
    bench.check("count", inside_now == o.valid + state.second)
    bench.check("turns", state.in_turn)
    second_is_tracked = state.second & (index == (delivered + 1)[:4])
    bench.check("second", implies(second_is_tracked, state.second_word == tracked))
    bench.check("order", implies(o.valid & (delivered == index), o.payload == tracked))
    bench.cover("both", state.second & (o.payload == 7))
    bench.cover("third", o.valid & o.ready & (delivered == 2) & (o.payload == 7))
    bench.cover("full_rate", o.valid & bench.was(o.valid & o.ready) & bench.was(o.valid, 2))
    return bench


def switch_contract(component: Any) -> Bench:
    """A `StreamSwitch` obeys the stream rule; a word passes to one output, or to none and waits.

    Assumed: the input obeys the stream rule; `second` does not change while a word waits.
    """
    bench = stream_rules(component)
    i, first, second = component.i, component.o_first, component.o_second
    obeys(bench, i)
    waits = bench.was(i.valid & ~i.ready)
    bench.assume(~waits | (component.second == bench.was(component.second)))
    passes = [(o.valid & o.ready) for o in (first, second)]
    bench.check("passes", (i.valid & i.ready) == (passes[0] | passes[1]))
    bench.check("one", ~(first.valid & second.valid))
    bench.check("chosen", implies(i.valid, Mux(component.second, second.valid, first.valid)))
    for name, o in (("first", first), ("second", second)):
        bench.check(f"word_{name}", implies(o.valid, o.payload == i.payload))
    return bench
