"""Measures the time that a product through `tritloom serve` takes on this computer.

The server is another process, with the reference device. The client is the one in Python.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tritloom.gen.measure.host import crc_us
from tritloom.host.serve.client import Client

__all__ = ["measure_host_serve"]

MESSAGES = (
    ((128, 256),),
    ((256, 256),),
    ((512, 256),),
    ((256, 512),),
    ((256, 256), (128, 256), (128, 256)),
    ((512, 256), (512, 256)),
)
"""Outputs and inputs of the layers of each message. The layers are tinylm's; llama.cpp's back end
asks in one message for gate and up; a program may also ask so for q, k and v."""
MESSAGES_A_ROUND = 200
ROUNDS = 40
"""How often everything is measured. The least time counts: other work on the computer only adds."""


def measure_host_serve(rounds: int = ROUNDS, messages: int = MESSAGES_A_ROUND) -> dict[str, Any]:
    """Measure products of one token on a `golden` device behind `tritloom serve`, in microseconds.

    Parameters
    ----------
    rounds : how often everything is measured; the least time of each counts
    messages : how many of each kind there are in a round, one after the other

    Returns
    -------
    dict[str, Any]
        `serve_us_per_product`, by the outputs and inputs of a message's layers, such as `128 × 256`
        or `512 × 256, 512 × 256`: of each product `server_cpu`, `client_cpu`, and `whole`, from the
        call to its result. `crc32_us_per_kb` is a yardstick of the same computer: `zlib.crc32` of
        1024 bytes.
    """
    random = np.random.default_rng(1)
    times: dict[str, dict[str, float]] = {}
    least_crc_us = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device"
        command = [sys.executable, "-m", "tritloom", "serve", "--device", "golden"]
        with subprocess.Popen([*command, "--socket", path], stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                with Client(path) as client:
                    layers = [
                        [
                            client.load(random.integers(-1, 2, shape).astype(np.int8))
                            for shape in shapes
                        ]
                        for shapes in MESSAGES
                    ]
                    for _ in range(rounds):
                        least_crc_us = min(least_crc_us, crc_us())
                        for numbers, shapes in zip(layers, MESSAGES, strict=True):
                            codes = random.integers(-128, 128, (1, shapes[0][1])).astype(np.int8)
                            before = _clocks(server.pid)
                            for _ in range(messages):
                                client.products(numbers, codes)
                            after = _clocks(server.pid)
                            name = ", ".join(f"{out} × {features}" for out, features in shapes)
                            least = times.setdefault(name, {})
                            for clock, end in after.items():
                                one_us = 1e6 * (end - before[clock]) / (messages * len(shapes))
                                least[clock] = min(least.get(clock, one_us), one_us)
            finally:
                server.terminate()
    return {
        "serve_us_per_product": {
            name: {clock: round(value, 1) for clock, value in each.items()}
            for name, each in times.items()
        },
        "crc32_us_per_kb": round(least_crc_us, 3),
        "python": platform.python_version(),
        "command": "tritloom measure host --serve --json",
    }


def _clocks(server: int) -> dict[str, float]:
    """Seconds of CPU that each process has used, and of the wall's clock."""
    return {
        # Linux's clock of another process has the number that clock_getcpuclockid(3) gives.
        "server_cpu": time.clock_gettime(~server << 3 | 2),
        "client_cpu": time.process_time(),
        "whole": time.perf_counter(),
    }
