"""What the commands print of a time, and of this computer's CPU beside it."""

from typing import Any

from tritloom.gen.cli.text import Column, table

__all__ = ["rate", "seconds", "times_lines", "verdict"]


def seconds(value: float) -> str:
    """A time with three digits and the unit that suits it."""
    if not value:
        return "0"
    for unit, factor in (("µs", 1e-6), ("ms", 1e-3)):
        if value < 999.5 * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:,.0f} minutes"


def rate(value: float) -> str:
    """A rate with three digits, and never as a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times_lines(times: Any, link: str) -> list[str]:
    """The parts of a `Times`, each with what it counts; the one that binds is marked."""
    what = {
        "loading": f"{times.loading_bytes:,} bytes" if times.loading_bytes else "all weights fit",
        "link in": f"{times.bytes_in:,} bytes, {link}",
        "link out": f"{times.bytes_out:,} bytes, {link}",
        "front end": "moving bytes in and out",
        "engine": f"RUN alone, {times.run_cycles:,} cycles, {rate(times.gmac_per_s_run)} GMAC/s",
        "host": f"{times.calls:,} calls, {times.commands:,} commands",
    }
    heads = [Column("limit"), Column("busy", right=True), Column(""), Column("of", wraps=True)]
    rows = [
        [name, seconds(part), "binds" if name == times.bound else "", what[name]]
        for name, part in times.parts_s.items()
    ]
    return table(heads, rows)


def verdict(times: Any, cpu: Any) -> str:
    """A sentence: what this computer's CPU takes, and which is faster; `times` may be None."""
    first = (
        f"This computer's CPU ({cpu.name}, NumPy, float32, measured now): "
        f"{rate(cpu.tokens_per_s)} tokens/s, {seconds(cpu.total_s / cpu.tokens)} a token"
    )
    if times is None:
        return f"{first}."
    ratio = cpu.tokens_per_s / times.tokens_per_s
    if ratio >= 1:
        return f"{first}: the CPU is {rate(ratio)} times faster than the device."
    return f"{first}: the device is {rate(1 / ratio)} times faster."
