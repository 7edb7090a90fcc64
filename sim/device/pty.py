"""A simulated accelerator behind a pseudo-terminal, as if it were a board at a serial port.

What a program writes to the terminal goes into the UART of the simulated design, and what the UART
sends can be read from the terminal. `tritloom sim --pty` runs it for a person. Needs an operating
system with pseudo-terminals (Linux, macOS, BSD).
"""

from __future__ import annotations

import os
import pty
import queue
import random
import select
import shutil
import tempfile
import threading
import time
import tty
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.cxxrtl import UartSimulation, build
from tritloom.sim.device.simulated import SimulatedDesign

__all__ = ["Noise", "PtyBridge"]

DIVISOR = 4
"""Cycles of a bit: the fewest that the UART accepts, so that a byte takes little time."""
STEP_CYCLES = 2048
"""Cycles between two looks at the terminal; they take about a millisecond."""
QUIET_CYCLES = 1 << 19
"""Cycles that the clock runs on after the last byte moved. Then it stops until a byte comes."""
BUFFER_BYTES = 1 << 16
"""Bytes that wait for a host that does not read, as in a USB bridge; further bytes are lost."""
READ_BYTES = BUFFER_BYTES // 64
"""The most bytes that are read from the terminal at once, and that wait for the design."""
JOIN_S = 30.0
"""The longest wait for the bridge's thread, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Faults of a cable: the probability of each for one byte.

    Members
    -------
    flip : one bit of the byte flips
    drop : the byte is lost
    repeat : the byte comes twice
    """

    flip: float = 0.0
    drop: float = 0.0
    repeat: float = 0.0

    @classmethod
    def each(cls, rate: float) -> Noise:
        return cls(flip=rate, drop=rate, repeat=rate)


class PtyBridge:
    """A simulated device with a UART behind a pseudo-terminal. It runs in a thread; use `with`.

    Parameters
    ----------
    config : the device's. If it has no UART, the bridge gives it one of `DIVISOR` cycles a bit.
    seed : of the noise

    Members
    -------
    path : file name of the terminal; it stays the same when the cable is unplugged and plugged
    config : the device's, with its UART
    baud : rate of the line in bits a second
    noise : `Noise` of the bytes to the device (`"in"`) and from it (`"out"`); may be changed
    faults : number of faults so far, by direction and kind, such as `"in flip"`
    bytes_in, bytes_out : bytes so far that the host has sent to the design, and the design to it
    """

    def __init__(self, config: AcceleratorConfig, seed: int = 0) -> None:
        if not isinstance(config.link, Uart):
            clock_hz = DIVISOR * 1_000_000
            config = replace(config, link=Uart(baud=clock_hz // DIVISOR), clock_hz=clock_hz)
        assert isinstance(config.link, Uart)
        self.config = config
        self.baud = config.link.baud
        self.noise = {"in": Noise(), "out": Noise()}
        self.faults: Counter[str] = Counter()
        self.bytes_in = self.bytes_out = 0
        self._random = random.Random(seed)
        design = SimulatedDesign(config)
        self._library = build(
            design.rtlil, design.recipe, config.link.divisor(config), macros=design.macros
        )
        self._rules = design.rules
        self._simulation = UartSimulation(self._library, rules=self._rules)
        self._folder = Path(tempfile.mkdtemp(prefix="tritloom-"))
        self.path = str(self._folder / "serial")
        # Removes the folder even if the interpreter ends before `close`.
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._ends: tuple[int, int] | None = None
        self._out = bytearray()
        self._quiet_cycles = 0
        self._stalled_until = 0.0
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._waker = os.pipe()
        self._ended = False
        self._plug()
        # A daemon thread, so that a test that fails without closing does not keep Python running.
        self._thread = threading.Thread(target=self._serve, name="pty bridge", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"serial://{self.path}?baud={self.baud}"

    @property
    def is_running(self) -> bool:
        """Whether the simulated board still serves the terminal."""
        return self._thread.is_alive()

    def __enter__(self) -> PtyBridge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and free everything. A second call does nothing."""
        if self._thread.is_alive():
            self._orders.put(self._end)
            os.write(self._waker, b"\0")
            self._thread.join(JOIN_S)
        if self._wake >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._wake = self._waker = -1
        self._remove()

    def unplug(self) -> None:
        """Pull the cable: the terminal disappears at once, with the bytes in it."""
        self._do(self._unplug)

    def plug(self, *, power_up: bool = False) -> None:
        """Put the cable back; with `power_up` the device has been without power and starts anew."""
        if power_up:
            self._do(self._power_up)
        self._do(self._plug)

    def stall(self, seconds: float) -> None:
        """Read nothing from the terminal for some time."""
        self._do(lambda: setattr(self, "_stalled_until", time.monotonic() + seconds))

    def inject(self, garbage: bytes) -> None:
        """Send bytes to the host that do not come from the device."""
        self._do(lambda: self._out.extend(garbage))

    def inject_in(self, garbage: bytes) -> None:
        """Send bytes to the device that do not come from the host."""
        self._do(lambda: self._feed(garbage))

    def _do(self, order: Callable[[], None]) -> None:
        """Let the thread execute `order`, wait until it has, and raise what it raised."""
        done = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                order()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failed.append(error)
            done.set()

        if not self._thread.is_alive():
            raise DeviceError("the bridge is closed; make a new one")
        self._orders.put(run)
        os.write(self._waker, b"\0")
        if not done.wait(JOIN_S):
            raise DeviceError("the bridge does not respond; its thread has failed, make a new one")
        if failed:
            raise failed[0]

    def _serve(self) -> None:
        try:
            while not self._ended:
                self._step()
        finally:
            self._unplug()
            self._simulation.close()

    def _step(self) -> None:
        busy = self._quiet_cycles < QUIET_CYCLES
        stalled_s = self._stalled_until - time.monotonic()
        master = [] if self._ends is None else [self._ends[0]]
        readers = [self._wake, *(master if stalled_s <= 0 else [])]
        writers = master if self._out else []
        timeout = 0.0 if busy else max(stalled_s, 0.01) if stalled_s > 0 else None
        readable, writable, _ = select.select(readers, writers, [], timeout)
        if self._wake in readable:
            os.read(self._wake, 64)
        while not self._orders.empty():
            self._orders.get()()
            self._quiet_cycles = 0
        if self._ended or self._ends is None or [self._ends[0]] != master:
            master = []
        # While many bytes wait for the device, the host's bytes stay in the terminal, so that a
        # host that writes too fast is blocked as it is by a real port.
        if master and master[0] in readable and self._simulation.pending < READ_BYTES:
            self._feed(self._through("in", os.read(master[0], READ_BYTES)))
        if master and master[0] in writable:
            del self._out[: os.write(master[0], self._out)]
        if not self._ended and self._quiet_cycles < QUIET_CYCLES:
            pending = self._simulation.pending
            received = self._simulation.run(STEP_CYCLES)
            self.bytes_out += len(received)
            self._out += self._through("out", received)
            del self._out[BUFFER_BYTES:]
            is_quiet = not (pending or received)
            self._quiet_cycles = self._quiet_cycles + STEP_CYCLES if is_quiet else 0

    def _feed(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self._simulation.send(data)
        self._quiet_cycles = 0

    def _through(self, direction: str, data: bytes) -> bytes:
        noise = self.noise[direction]
        if noise == Noise():
            return data
        noisy = bytearray()
        for byte in data:
            if self._random.random() < noise.flip:
                byte ^= 1 << self._random.randrange(8)
                self.faults[f"{direction} flip"] += 1
            if self._random.random() < noise.drop:
                self.faults[f"{direction} drop"] += 1
                continue
            noisy.append(byte)
            if self._random.random() < noise.repeat:
                noisy.append(byte)
                self.faults[f"{direction} repeat"] += 1
        return bytes(noisy)

    def _end(self) -> None:
        self._ended = True

    def _power_up(self) -> None:
        self._simulation.close()
        self._simulation = UartSimulation(self._library, rules=self._rules)

    def _plug(self) -> None:
        if self._ends is not None:
            return
        master, slave = pty.openpty()
        # The slave stays open here; otherwise reading the master fails while no host has it open.
        tty.setraw(slave)
        os.set_blocking(master, False)
        new = self._folder / "new"
        new.symlink_to(os.ttyname(slave))
        new.replace(self.path)
        self._ends = master, slave

    def _unplug(self) -> None:
        if self._ends is None:
            return
        Path(self.path).unlink(missing_ok=True)
        for end in self._ends:
            os.close(end)
        self._ends = None
        self._out.clear()
