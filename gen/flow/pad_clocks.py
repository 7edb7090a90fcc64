"""The clocks at the pads of a link or a memory, in nextpnr's report."""

from collections.abc import Sequence
from typing import Any

from tritloom.gen.flow.tools import BuildError
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["pad_clocks"]


def pad_clocks(config: AcceleratorConfig, timing: Any, ours: Sequence[str]) -> list[dict[str, Any]]:
    """What the clocks at the pads of link and memory reach, and what they must.

    The second routing of a design aims at the accelerator's clock for all clocks, so what nextpnr
    aims at says nothing.

    Raises
    ------
    BuildError : nextpnr reports another number of them
    """
    records = (config.link, config.memory)
    wanted = sorted(hz / 1e6 for record in records if record.tie for hz in record.clocks.values())
    others = {
        name: float(facts["achieved"]) for name, facts in timing["fmax"].items() if name not in ours
    }
    if not wanted:
        return []
    if len(others) != len(wanted):
        raise BuildError(
            f"nextpnr reports the clocks {', '.join(timing['fmax'])}; {len(wanted)} are at pads"
        )
    # With several, the fastest is taken for the one that must be fastest.
    names = sorted(others, key=lambda name: others[name])
    return [
        {"name": name, "wanted": aim, "reached": round(others[name], 2)}
        for name, aim in zip(names, wanted, strict=True)
    ]
