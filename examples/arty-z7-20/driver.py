"""A Tritloom core on a Zynq, from Python: packets through the registers of an AXI4-Stream FIFO.

    python examples/arty-z7-20/driver.py /dev/mem@0x43C00000

computes a layer on the device and compares it with NumPy. In your own program:

    transport = FifoTransport(MappedRegisters("/dev/uio0"))
    with Device(transport, url="uio0") as device:
        handle = device.load(TernaryLayer.from_trits(trits, scale))

It needs the packages numpy and tritloom alone, and root's rights for /dev/mem.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import sys
import time
from typing import Protocol

import numpy as np

from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import DeviceError, TritloomError

ISR, TDFR, TDFV, TDFD, TLR = 0x00, 0x08, 0x0C, 0x10, 0x14
RDFR, RDFO, RDFD, RLR = 0x18, 0x1C, 0x20, 0x24
"""Registers of AMD's AXI4-Stream FIFO (product guide PG080), as bytes from their beginning.

TDFR, RDFR: reset of the queues of commands and responses. TDFV: words that there is room for. TDFD:
a word of a command. TLR: its bytes, which sends it. RDFO: words of whole responses. RLR: bytes of
the next response. RDFD: a word of it. ISR: interrupts; a 1 clears its bit.
"""
RESET = 0xA5
LENGTH = (1 << 23) - 1
"""The bits of RLR that hold the length."""
SPAN = 0x1000
"""Bytes of the registers."""
MOST_PACKET = 65536
SEND_S = 1.0
"""Seconds in which the queue of commands has room again."""


class Registers(Protocol):
    """32-bit registers by their offset in bytes."""

    def read(self, offset: int) -> int:
        """The value of a register."""

    def write(self, offset: int, value: int) -> None:
        """Set a register."""

    def close(self) -> None:
        """Give them back."""


class MappedRegisters:
    """Registers in a file: /dev/mem, /dev/uio0.

    Parameters
    ----------
    path : the file, and behind an @ where the registers begin in it, such as /dev/mem@0x43C00000

    Raises
    ------
    DeviceError : it cannot be mapped
    """

    def __init__(self, path: str) -> None:
        name, _, address = path.partition("@")
        try:
            begin = int(address or "0", 0)
        except ValueError:
            raise DeviceError(
                f"the address must be a number such as 0x43C00000, not {address!r}"
            ) from None
        try:
            file = os.open(name, os.O_RDWR | os.O_SYNC)
            try:
                self._map = mmap.mmap(file, SPAN, offset=begin)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            raise DeviceError(f"cannot map the registers in {path}: {error}") from None
        # An element of such an array is read and written as one word.
        self._words = (ctypes.c_uint32 * (SPAN // 4)).from_buffer(self._map)

    def read(self, offset: int) -> int:
        return int(self._words[offset // 4])

    def write(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value

    def close(self) -> None:
        """A second call does nothing."""
        if hasattr(self, "_words"):
            del self._words  # it holds the map
            self._map.close()


class FifoTransport:
    """Transport of packets to a device behind the FIFO (`tritloom.host.links.contract`).

    Parameters
    ----------
    registers : of the FIFO

    Members
    -------
    timeout_s : seconds in which an idle device responds to a short command
    """

    timeout_s = 0.1

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        registers.write(TDFR, RESET)
        registers.write(RDFR, RESET)
        registers.write(ISR, 0xFFFFFFFF)

    def send(self, packet: bytes) -> None:
        """Send a packet.

        Raises
        ------
        DeviceError : the queue has no room for it
        """
        words = np.frombuffer(packet + bytes(-len(packet) % 4), "<u4").tolist()
        end = time.monotonic() + SEND_S
        while self._registers.read(TDFV) < len(words):
            if time.monotonic() > end:
                raise DeviceError(
                    "the FIFO takes no words; is the bitstream loaded, and the address that of "
                    "the FIFO?"
                )
        for word in words:
            self._registers.write(TDFD, word)
        self._registers.write(TLR, len(packet))

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet; None if none has come in time."""
        end = time.monotonic() + timeout_s
        while True:
            if self._registers.read(RDFO):
                size = self._registers.read(RLR) & LENGTH
                if 0 < size <= MOST_PACKET:
                    words = [self._registers.read(RDFD) for _ in range(-(-size // 4))]
                    return np.array(words, "<u4").tobytes()[:size]
                self._registers.write(RDFR, RESET)  # no packet of a device
            if time.monotonic() >= end:
                return None

    def close(self) -> None:
        """Unmap the registers. A second call does nothing."""
        self._registers.close()


def main() -> int:
    """Compute a layer on the device and compare it with NumPy."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("registers", help="such as /dev/mem@0x43C00000 or /dev/uio0")
    parser.add_argument("--shape", default="256x512", help="outputs × inputs (256x512)")
    options = parser.parse_args()
    rows, columns = (int(number) for number in options.shape.split("x"))
    rng = np.random.default_rng(1)
    trits = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
    codes = rng.integers(-128, 128, (4, columns)).astype(np.int8)
    try:
        transport = FifoTransport(MappedRegisters(options.registers))
        with Device(transport, url=options.registers) as device:
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            begin = time.perf_counter()
            sums = device.matmul(handle, codes)
            seconds = time.perf_counter() - begin
    except TritloomError as error:
        print(f"driver: {error}", file=sys.stderr)
        return 1
    right = codes.astype(np.int64) @ trits.T.astype(np.int64)
    same = bool(np.array_equal(sums, right))
    print(f"{rows} × {columns}, 4 tokens in {1000 * seconds:.1f} ms: ", end="")
    print("all sums are those of NumPy" if same else "SUMS DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
