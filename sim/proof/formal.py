"""Proofs: a bench of named properties → RTLIL → yosys → SMT-LIB → yosys-smtbmc with yices.

A property that fails is a `PropertyError` with the values of the bench's signals in each cycle.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import (
    Assert,
    Assume,
    Cat,
    ClockDomain,
    Cover,
    Fragment,
    Module,
    Signal,
    Value,
)
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import formal_path, run_yosys

__all__ = ["Bench", "Inside", "Proof", "PropertyError", "verify"]

# Induction does not know what a ROM holds, so none is made and those of the design are mapped.
SCRIPT = (
    "read_rtlil top.il; hierarchy -top top; proc -norom; flatten; opt_clean; memory_collect; "
    "memory_nordff; memory_map -rom-only; async2sync; chformal -lower; opt_clean; dffunmap; "
    "write_smt2 -wires top.smt2"
)
TIMEOUT_SECONDS = 600
"""For one run of the solver."""
HIDDEN = re.compile(r"clk$|was\b|cover_|assumed_|in_.*__|.*\$\S*:")
"""Signals that a trace leaves out: what others show too."""


Inputs = Generator[dict[str, int], Callable[[Any], int], None]
"""What drives a bench in a simulation."""


class PropertyError(Exception):
    """A property fails, is not inductive, or a cover is not reached.

    `names`: these properties. `trace`: signal of the bench → its value in each cycle.
    """

    def __init__(self, what: str, names: list[str], trace: dict[str, list[int]]) -> None:
        self.names = names
        self.trace = trace
        super().__init__("\n".join([f"{', '.join(names)}: {what}", *_table(trace)]))


def _table(trace: dict[str, list[int]]) -> list[str]:
    """One line a signal, one column a cycle, hexadecimal."""
    if not trace:
        return []
    rows = {"cycle": [str(cycle) for cycle in range(len(next(iter(trace.values()))))]}
    rows |= {name: [f"{value:x}" for value in values] for name, values in trace.items()}
    wide = max(map(len, rows))
    cells = [max(map(len, column)) for column in zip(*rows.values(), strict=True)]
    return [
        f"{name:{wide}}  " + " ".join(f"{v:>{n}}" for v, n in zip(values, cells, strict=True))
        for name, values in rows.items()
    ]


class Inside:
    """A component taken apart, so that properties can name what is within it.

    An invariant needs that: induction starts from any state that the properties allow.
    `inside["name"]` is the local variable of that name in the component's `elaborate`.
    """

    def __init__(self, component: Any, **reads: int) -> None:
        """`reads`: for each memory that properties read, how many words they read at once."""
        Fragment.get(component, None)  # or Amaranth warns that the component is not used
        module, locals_of = _watched(lambda: component.elaborate(None))
        self._locals = locals_of[id(component)]
        self._ports = {
            name: [module.submodules[name].read_port(domain="comb") for _ in range(count)]
            for name, count in reads.items()
        }
        self._module = module
        self.fragment, self._within = _watched(lambda: Fragment.get(module, None))

    def __getitem__(self, name: str) -> Any:
        if name not in self._locals:
            raise LookupError(f"elaborate has no variable {name!r}, which the proof needs")
        return self._locals[name]

    def within(self, part: Any) -> dict[str, Any]:
        """The local variables of a component that is part of this one."""
        return self._within[id(part)]

    def part(self, name: str) -> Any:
        """The submodule of that name."""
        return self._module.submodules[name]

    def machine(self, *part: str) -> Any:
        """The state machine of the component, or of its submodule `part`."""
        return self.fragment.find_generated(*part, "fsm")

    def state(self, part: str, *names: str) -> Any:
        """Whether the state machine of the submodule `part` is in one of these states."""
        machine = self.machine(part)
        return Cat(machine.state == machine.encoding[name] for name in names).any()

    def signal(self, name: str) -> Any:
        """The signal of a name that the component itself drives, wherever it was made."""
        driven = [
            signal
            for statements in self.fragment.statements.values()
            for statement in statements
            for signal in statement._lhs_signals()
            if signal.name == name
        ]
        if len(set(map(id, driven))) != 1:
            raise LookupError(f"the component drives no signal {name!r}, which the proof needs")
        return driven[0]

    def word(self, bench: Bench, memory: str, address: Any) -> Any:
        """What `memory` holds at `address`."""
        port = self._ports[memory].pop()
        bench.m.d.comb += port.addr.eq(address)
        return port.data


def _watched(call: Callable[[], Any]) -> tuple[Any, dict[int, dict[str, Any]]]:
    """What `call` returns; and for each component elaborated by it, by `id`, the local
    variables at its end. Signals have no other key."""
    variables: dict[int, dict[str, Any]] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_name == "elaborate":
            variables[id(frame.f_locals.get("self"))] = dict(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        result = call()
    finally:
        sys.setprofile(before)
    return result, variables


class Bench:
    """A component with free inputs, and properties of it.

    Every input of the component takes any value in any cycle, but for what `assume` excludes.
    `driven`: inputs that the bench drives itself. There is no reset but the one at the start.
    """

    def __init__(self, component: Any, inside: Inside | None = None, driven: Any = ()) -> None:
        self.name = type(component).__name__
        self.m = Module()
        self.clock = ClockDomain("sync", reset_less=True)
        self.m.domains.sync = self.clock
        self.m.submodules.dut = inside.fragment if inside else component
        self._inputs: list[Any] = []
        self._assumed: list[Signal] = []
        self._checks: dict[str, Signal] = {}
        self._covers: dict[str, Signal] = {}
        for path, member, port in component.signature.flatten(component):
            name = "__".join(map(str, path))
            if member.flow == In and name not in driven:
                self.m.d.comb += Value.cast(port).eq(self.free(name, len(Value.cast(port))))

    def free(self, name: str, shape: Any = 1) -> Any:
        """An input of the bench: any value in each cycle."""
        signal = Signal(shape, name=f"in_{name}")
        self._inputs.append(Value.cast(signal))
        return signal

    def constant(self, name: str, shape: Any) -> Any:
        """Any value, the same in each cycle: what holds for it holds for all."""
        value = self.free(name, shape)
        known = Signal(name=f"{name}_known")
        self.m.d.sync += known.eq(1)
        self.assume(~known | (value == self.was(value)))
        return value

    def was(self, value: Any, cycles: int = 1) -> Any:
        """`value` as it was `cycles` ago; 0 before the first."""
        for _ in range(cycles):
            late = Signal(Value.cast(value).shape(), name="was")
            self.m.d.sync += late.eq(value)
            value = late
        return value

    def state(self, name: str, shape: Any = 1) -> Any:
        """A register of the bench."""
        return Signal(shape, name=f"model_{name}")

    def assume(self, condition: Any) -> None:
        """The component's surroundings keep this."""
        self._assumed.append(self._signal(f"assumed_{len(self._assumed)}", condition))

    def check(self, name: str, condition: Any) -> None:
        """This is always true."""
        self._name(self._checks, f"check_{name}", condition)

    def cover(self, name: str, condition: Any) -> None:
        """This is true at some time."""
        self._name(self._covers, f"cover_{name}", condition)

    @property
    def covers(self) -> set[str]:
        """The names of all covers."""
        return set(self._covers)

    def _name(self, properties: dict[str, Signal], name: str, condition: Any) -> None:
        if name in properties:
            raise ValueError(f"the bench already has a property {name!r}")
        properties[name] = self._signal(name, condition)

    def _signal(self, name: str, condition: Any) -> Signal:
        signal = Signal(name=name)
        self.m.d.comb += signal.eq(condition)
        return signal

    def simulate(self, cycles: int, inputs: Inputs) -> set[str]:
        """Simulate the component, and check all properties in each cycle.

        A proof holds for nothing if its assumptions exclude what it is about. A simulation in which
        they hold shows that they do not, also where a cover is too far away for the solver.

        Parameters
        ----------
        cycles : how long
        inputs : yields for each cycle the values of free inputs, by name, and is sent a function
            that reads signals in this cycle; an input keeps its value until it gets another one

        Returns
        -------
        The names of the covers that are reached. Raises `PropertyError` if a check fails or an
        assumption does not hold.
        """
        free = {signal.name.removeprefix("in_"): signal for signal in self._inputs}
        required = self._checks | {signal.name: signal for signal in self._assumed}
        reached: set[str] = set()

        async def run(context: Any) -> None:
            values = next(inputs)
            for _ in range(cycles):
                for name, value in values.items():
                    context.set(free[name], value)
                failed = [name for name, signal in required.items() if not context.get(signal)]
                if failed:
                    raise PropertyError("fails", failed, {})
                reached.update(n for n, signal in self._covers.items() if context.get(signal))
                values = inputs.send(context.get)
                await context.tick()

        simulator = Simulator(self.m)
        simulator.add_clock(1e-6)
        simulator.add_testbench(run)
        simulator.run()
        return reached

    def rtlil(self) -> str:
        for signal in self._assumed:
            self.m.d.comb += Assume(signal)
        for signal in self._checks.values():
            self.m.d.comb += Assert(signal)
        for signal in self._covers.values():
            self.m.d.comb += Cover(signal)
        text: str = rtlil.convert(
            self.m, name="top", ports=[self.clock.clk, *self._inputs], emit_src=False
        )
        # The tools report the names of cells, which Amaranth numbers.
        return re.sub(
            r"cell \$check \S+(\n(?:(?!  end\n).*\n)*?    connect \\A \\((?:check|cover)_\w+))",
            r"cell $check \\of_\2\1",
            text,
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """What `verify` showed: `depth` is k of k-induction, else the cycles after reset; `covers` is
    the number of covers that the solver reached."""

    inductive: bool
    depth: int
    covers: int
    seconds: float


def verify(bench: Bench, *, depth: int, cover: int | None, induction: bool = True) -> Proof:
    """Shows that no check of `bench` ever fails, and that each cover is reached.

    With `induction` for all time, by at most `depth` steps of it; else for `depth` cycles
    after reset. `cover`: cycles in which the covers are reached; `None` leaves them to
    `Bench.simulate`. Raises `PropertyError`.
    """
    begin = time.monotonic()
    text = bench.rtlil()
    if not bench.covers:
        raise ValueError("a bench without a cover proves nothing")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.il").write_text(text)
        run_yosys(["-q", "-p", SCRIPT], folder)
        _solve(folder, "fails", "-t", str(depth))
        steps = depth
        if induction:
            log = _solve(folder, "is not inductive", "-i", "-t", str(depth))
            steps = depth - int(re.findall(r"Trying induction in step (\d+)", log)[-1])
        covers = 0
        if cover is not None:
            reached = _solve(folder, f"is not reached in {cover} cycles", "-c", "-t", str(cover))
            covers = reached.count("Reached cover statement")
    return Proof(induction, steps, covers, time.monotonic() - begin)


def _solve(folder: Path, what: str, *arguments: str) -> str:
    """Runs yosys-smtbmc on the design in `folder` and returns what it printed."""
    trace = folder / "trace.vcd"
    with formal_path() as programs:
        command = [str(programs / "yosys-smtbmc"), "-s", "yices", "--dump-vcd", trace.name]
        try:
            result = subprocess.run(
                [*command, *arguments, "top.smt2"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"yosys-smtbmc did not end in {TIMEOUT_SECONDS} s") from None
    log: str = result.stdout
    if result.returncode == 0:
        return log
    names = re.findall(r"(?:Assert failed|Unreached cover statement).*\bof_(\w+)", log)
    if not names:
        lines = log.strip().splitlines() or ["no output"]
        raise ToolError(f"yosys-smtbmc failed: {lines[-1]}")
    raise PropertyError(what, names, {} if "-c" in arguments else _read_trace(trace))


def _read_trace(path: Path) -> dict[str, list[int]]:
    """The signals of the top module in a trace: value in each cycle."""
    if not path.exists():
        return {}
    names: dict[str, str] = {}
    trace: dict[str, list[int]] = {}
    values: dict[str, int] = {}
    depth = 0

    for line in path.read_text().splitlines():
        words = line.split()
        match words:
            case ["$scope", *_]:
                depth += 1
            case ["$upscope", *_]:
                depth -= 1
            case ["$var", "wire", _, identifier, name, *_] if depth == 1 and not HIDDEN.match(name):
                names[identifier] = name
            case [value, identifier] if value.startswith("b"):
                values[identifier] = int(value[1:].replace("x", "0"), 2)
            case ["1!"] if values:  # a clock edge; the last one ends the trace
                for identifier, name in names.items():
                    trace.setdefault(name, []).append(values.get(identifier, 0))
    return trace
