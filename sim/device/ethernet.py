"""A simulated board with an Ethernet port: frames go in and come out while its clocks run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from math import gcd
from pathlib import Path
from typing import Any

from tritloom.rtl.links.udp_facts import ETHERNET_HZ, Udp
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, DeviceError, ToolError
from tritloom.sim.device.cxxrtl import build
from tritloom.sim.device.simulated import SimulatedDesign

__all__ = ["ERROR", "VALID", "EthernetBoard", "EthernetSimulation"]

DRIVER = Path(__file__).with_name("ethernet.cc")
VALID, ERROR = 0x100, 0x200
"""Beside a byte on the wire: it belongs to a frame or its preamble; the PHY found an error."""
IDLE_CYCLES = 4096
"""Cycles without a byte after which a board that computes nothing has nothing more to say."""
CHUNK_CYCLES = 1 << 18
"""Cycles of one call into C++, about half a second. Between calls Python handles Ctrl-C."""
MANY = 1 << 62
COUNTS = ("cycles", "sync_cycles", "running_cycles", "sent_bytes")


class EthernetSimulation:
    """A running design with the pads of GMII.

    Parameters
    ----------
    make_rtlil, recipe : as for `tritloom.sim.device.cxxrtl.build`
    clock_hz : of its clock `clk`; the PHY's has `ETHERNET_HZ`
    running : whether the design has the output `running`
    """

    def __init__(
        self,
        make_rtlil: Callable[[], str],
        recipe: str | None,
        clock_hz: int,
        running: bool = True,
    ) -> None:
        macros = ["RUNNING=1"] if running else []
        library = build(make_rtlil, recipe, driver=DRIVER, macros=macros)
        self._calls = _load(library)
        unit = gcd(clock_hz, ETHERNET_HZ)
        self._board: int | None = self._calls.tritloom_open(clock_hz // unit, ETHERNET_HZ // unit)

    def __getattr__(self, name: str) -> int:
        """Counts since power-up.

        `cycles` of the PHY's clock, `sync_cycles` of `clk`, `running_cycles` of a layer, and
        `sent_bytes`, bytes that have gone out with their preambles.
        """
        if name not in COUNTS:
            raise AttributeError(name)
        return int(self._calls.tritloom_count(self._handle(), COUNTS.index(name)))

    def send(self, frame: bytes) -> None:
        """Queue a frame, from its destination to its payload. It gets padding, FCS and gap."""
        self._calls.tritloom_frame(self._handle(), frame, len(frame))

    def send_wire(self, cycles: Sequence[int]) -> None:
        """Queue what the PHY says in each cycle: a byte, `VALID`, `ERROR`."""
        data = (ctypes.c_uint16 * len(cycles))(*cycles)
        self._calls.tritloom_wire(self._handle(), data, len(cycles))

    def run(
        self, limit_cycles: int = MANY, idle_cycles: int = IDLE_CYCLES, most_frames: int = MANY
    ) -> list[bytes]:
        """Run the clocks until all is in and nothing has happened for `idle_cycles`.

        Parameters
        ----------
        limit_cycles : the most cycles of the PHY's clock
        idle_cycles : cycles without a byte in either direction and without a layer
        most_frames : end as soon as so many frames have come out

        Returns
        -------
        The frames that have come out, without FCS.

        Raises
        ------
        DeviceError : the design has sent what is no frame, or left too small a gap
        """
        board = self._handle()
        self._calls.tritloom_wake(board)
        while True:
            chunk = min(limit_cycles, CHUNK_CYCLES)
            before = self.cycles
            waiting = self._calls.tritloom_run(board, chunk, idle_cycles, most_frames)
            if self._calls.tritloom_wrong(board):
                raise DeviceError(f"the simulated board sent a wrong frame, in cycle {self.cycles}")
            limit_cycles -= chunk
            if self.cycles - before < chunk or limit_cycles == 0 or waiting >= most_frames:
                break
        frames = []
        for _ in range(waiting):
            frame = ctypes.create_string_buffer(self._calls.tritloom_size(board))
            self._calls.tritloom_take(board, frame)
            frames.append(frame.raw)
        return frames

    def close(self) -> None:
        """Free the design."""
        if self._board is not None:
            self._calls.tritloom_close(self._board)
            self._board = None

    def __del__(self) -> None:
        if self.__dict__.get("_board") is not None:
            self.close()

    def _handle(self) -> int:
        if self._board is None:
            raise DeviceError("the simulated board is closed; make a new one")
        return self._board


class EthernetBoard:
    """A simulated accelerator with the link `udp`, as a switch or a TAP device sees it.

    Parameters
    ----------
    config : the device's

    Members
    -------
    config : the device's
    simulation : its clocks and counts

    Raises
    ------
    ConfigError : the configuration has another link, or a memory outside the chip
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config.link, Udp):
            raise ConfigError(
                f"a board on a network needs the udp link, not {config.link.name!r}; "
                'give it "link": {"kind": "udp"}'
            )
        design = SimulatedDesign(config)
        if design.rules is not None:
            raise ConfigError(
                f"a simulated board on a network cannot have the memory {config.memory.name!r}; "
                "take one inside the chip"
            )
        self.config = config
        self.simulation = EthernetSimulation(design.rtlil, design.recipe, config.clock_hz)

    @property
    def cycles(self) -> int:
        """Cycles of the PHY's clock since power-up."""
        return self.simulation.cycles

    def exchange(self, frames: Iterable[bytes], idle_cycles: int = IDLE_CYCLES) -> list[bytes]:
        """Send frames to the board back to back, and return what it sends.

        Parameters
        ----------
        frames : from the destination to the payload, without FCS
        idle_cycles : how long nothing may happen before the board is taken to be done. A device
            that reads a layer back says nothing meanwhile; call again for as long as you wait.

        Returns
        -------
        Its frames, padding included, without FCS.
        """
        for frame in frames:
            self.simulation.send(frame)
        return self.simulation.run(idle_cycles=idle_cycles)

    def close(self) -> None:
        """Free the simulation."""
        self.simulation.close()


def _load(library: Path) -> Any:
    try:
        calls = ctypes.CDLL(str(library))
    except OSError as error:
        raise ToolError(
            f"cannot load the simulated FPGA: {error}; remove {library}, or set TRITLOOM_CACHE to "
            "a folder on another file system"
        ) from error
    handle, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    functions = [
        ("open", handle, [number, number]),
        ("close", None, [handle]),
        ("frame", None, [handle, ctypes.c_char_p, size]),
        ("wire", None, [handle, ctypes.c_void_p, size]),
        ("run", size, [handle, number, number, size]),
        ("wake", None, [handle]),
        ("size", size, [handle]),
        ("take", None, [handle, ctypes.c_char_p]),
        ("wrong", ctypes.c_uint32, [handle]),
        ("count", number, [handle, size]),
    ]
    for name, result, arguments in functions:
        function = getattr(calls, f"tritloom_{name}")
        function.restype, function.argtypes = result, arguments
    return calls
