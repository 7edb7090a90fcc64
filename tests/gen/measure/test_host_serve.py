"""The measurement of products through `tritloom serve`: what is measured, not how long it takes."""

import sys
import time

import pytest

from tritloom.gen.measure import host_serve
from tritloom.gen.measure.host import CRC_CALLS
from tritloom.gen.measure.host_serve import MESSAGES, measure_host_serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the clock of another process")


@pytest.mark.sim
def test_figures(monkeypatch):
    """The client's CPU and the wall have clocks of the test; the server's is the real one."""
    wall, cpu = iter(range(1, 10**6)), iter(range(1, 10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(wall) ** 2))
    monkeypatch.setattr(time, "process_time", lambda: float(next(cpu)))
    monkeypatch.setattr(host_serve, "MESSAGES", MESSAGES[3:5])
    result = measure_host_serve(rounds=2, messages=10)
    times = result.pop("serve_us_per_product")
    assert list(times) == ["256 × 512", "256 × 256, 128 × 256, 128 × 256"]
    # Squares have greater and greater differences: the first round has the least.
    for each, whole, count in zip(times.values(), (3, 7), (1, 3), strict=True):
        assert 1 < each.pop("server_cpu") < 1e6
        whole_us, cpu_us = round(whole * 1e5 / count, 1), round(1e5 / count, 1)
        assert each == {"client_cpu": cpu_us, "whole": whole_us}
    assert result.pop("python").startswith("3.")
    assert result == {
        "crc32_us_per_kb": round(1e6 / CRC_CALLS, 3),
        "command": "tritloom measure host --serve --json",
    }


@pytest.mark.sim
def test_the_server_ends(monkeypatch):
    """Also if the client fails."""
    servers = []

    class Watched(host_serve.subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            servers.append(self)

    def fail(path):
        raise OSError("no client")

    monkeypatch.setattr(host_serve.subprocess, "Popen", Watched)
    monkeypatch.setattr(host_serve, "Client", fail)
    with pytest.raises(OSError, match="no client"):
        measure_host_serve(rounds=1)
    assert servers[0].returncode is not None


def test_what_the_command_prints(run, monkeypatch):
    result = {
        "serve_us_per_product": {
            "128 × 256": {"server_cpu": 52.04, "client_cpu": 9.0, "whole": 71.26},
            "256 × 256": {"server_cpu": 60.0, "client_cpu": 9.5, "whole": 80.0},
        },
        "crc32_us_per_kb": 0.318,
    }
    monkeypatch.setattr(host_serve, "measure_host_serve", lambda: result)
    lines = [
        "A product through tritloom serve, with a golden device:",
        "  128 × 256             server_cpu 52.0 µs, client_cpu 9.0 µs, whole 71.3 µs",
        "  256 × 256             server_cpu 60.0 µs, client_cpu 9.5 µs, whole 80.0 µs",
        "  CRC-32 of 1024 bytes  0.32 µs",
    ]
    assert run("measure", "host", "--serve") == (0, "\n".join([*lines, ""]), "")
    status, _, err = run("measure", "host", "--serve", "--udp")
    assert status == 2 and "not allowed with argument" in err
