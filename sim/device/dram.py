"""The simulated DRAM for Amaranth's simulator. The simulated FPGA runs the same C++ by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritloom.rtl.spec.errors import InputError
from tritloom.sim.device.cxxrtl import build_alone
from tritloom.sim.models.contract import MemoryModel

__all__ = ["HEADER", "DramSimulation", "dram_bench"]

HEADER = Path(__file__).with_name("dram.h")
SOURCE = Path(__file__).with_name("dram.cc")
INPUTS = ("arrives", "beat", "beats", "leaves")
"""What goes in of a port in a cycle, see `DramPort`."""
OUT = 2


class DramSimulation:
    """The DRAM of `dram.h` alone.

    Parameters
    ----------
    numbers : those of `DramTiming.numbers`
    ports : how many there are, up to 4

    Raises
    ------
    InputError : there is no number of a name
    """

    def __init__(self, numbers: Mapping[str, int], ports: int) -> None:
        self._calls = calls = ctypes.CDLL(str(build_alone(SOURCE, [HEADER])))
        handle, size = ctypes.c_void_p, ctypes.c_size_t
        for name, result, arguments in (
            ("open", handle, []),
            ("close", None, [handle]),
            ("set", ctypes.c_bool, [handle, ctypes.c_char_p, ctypes.c_int64]),
            ("start", None, [handle, size]),
            ("step", None, [handle, size, ctypes.c_void_p, ctypes.c_void_p]),
        ):
            function = getattr(calls, f"tritloom_dram_{name}")
            function.restype, function.argtypes = result, arguments
        self._ports = ports
        self._in = (ctypes.c_uint64 * (len(INPUTS) * ports))()
        self._out = (ctypes.c_uint8 * (OUT * ports))()
        self._dram = calls.tritloom_dram_open()
        for name, value in numbers.items():
            if not calls.tritloom_dram_set(self._dram, name.encode(), value):
                raise InputError(f"the simulated DRAM has no number {name}")
        calls.tritloom_dram_start(self._dram, ports)

    def step(self, inputs: list[int]) -> list[tuple[int, int]]:
        """A cycle: the `INPUTS` of one port after the other; gives `room` and `due` of each."""
        self._in[:] = [*inputs]
        self._calls.tritloom_dram_step(self._dram, self._ports, self._in, self._out)
        out = self._out
        return [(out[OUT * port], out[OUT * port + 1]) for port in range(self._ports)]

    def __del__(self) -> None:
        if getattr(self, "_dram", None) is not None:
            self._calls.tritloom_dram_close(self._dram)
            self._dram = None


def dram_bench(component: MemoryModel) -> Any:
    """Background test bench of Amaranth's simulator that is the DRAM of a model, which has one."""
    numbers = component.dram_numbers or {}
    ports = [getattr(component, f"dram_{number}") for number in range(component.dram_ports)]

    async def bench(ctx: Any) -> None:
        dram = DramSimulation(numbers, len(ports))
        signals = [getattr(port, name) for port in ports for name in INPUTS]
        for port in ports:
            ctx.set(port.room, 1)
        async for _, _, *values in ctx.tick().sample(*signals):
            for port, (room, due) in zip(ports, dram.step(values), strict=True):
                ctx.set(port.room, room)
                ctx.set(port.due, due)

    return bench
