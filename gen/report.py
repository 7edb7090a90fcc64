"""The one-page report of a build: resources, clock, critical path, and where everything lies."""

import html
import re
from collections import Counter, defaultdict
from typing import Any

__all__ = ["floorplan_svg", "html_report"]

PARTS = {
    "core.engine": ("dot engine", "#d1495b"),
    "core.sums": ("partial sums", "#edae49"),
    "core.activations": ("activations", "#f2d492"),
    "memory": ("weight memory", "#00798c"),
    "processor": ("command processor", "#30638e"),
    "receiver": ("receive buffer", "#7a9e9f"),
    "sender": ("answers", "#8f7db3"),
    "link": ("link", "#5c946e"),
}
OTHER = ("other", "#b8b8b8")
CELL = 8
"""Pixels of a tile."""


def _part(name: str) -> tuple[str, str]:
    for prefix, part in PARTS.items():
        if f"accelerator.{prefix}." in name:
            return part
    return OTHER


def floorplan_svg(placed: dict[str, Any]) -> str:
    """A picture of nextpnr's placed design: each tile in the colour of most of its cells."""
    tiles: dict[tuple[int, int], Counter[tuple[str, str]]] = defaultdict(Counter)
    for module in placed["modules"].values():
        for name, cell in module.get("cells", {}).items():
            place = re.match(r"X(\d+)/Y(\d+)/", str(cell["attributes"].get("NEXTPNR_BEL", "")))
            if place:
                tiles[int(place[1]), int(place[2])][_part(name)] += 1
    width = 1 + max((x for x, _ in tiles), default=0)
    height = 1 + max((y for _, y in tiles), default=0)
    busiest = max((sum(counts.values()) for counts in tiles.values()), default=1)
    squares, totals = [], Counter[tuple[str, str]]()
    for (x, y), counts in sorted(tiles.items()):
        # Most LUTs lose their names in synthesis; a tile belongs to what kept its name there.
        named = Counter({part: n for part, n in counts.items() if part != OTHER}) or counts
        (label, colour), _ = named.most_common(1)[0]
        totals[label, colour] += 1
        opacity = 0.35 + 0.65 * sum(counts.values()) / busiest
        squares.append(
            f'<rect x="{x * CELL}" y="{(height - 1 - y) * CELL}" width="{CELL - 1}" '
            f'height="{CELL - 1}" fill="{colour}" fill-opacity="{opacity:.2f}"/>'
        )
    legend = "".join(
        f'<rect x="{110 * (n % 5)}" y="{height * CELL + 10 + 18 * (n // 5)}" width="10" '
        f'height="10" fill="{colour}"/><text x="{110 * (n % 5) + 14}" '
        f'y="{height * CELL + 19 + 18 * (n // 5)}">{label}</text>'
        for n, ((label, colour), _) in enumerate(totals.most_common())
    )
    total_height = height * CELL + 14 + 18 * (1 + (len(totals) - 1) // 5)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(width * CELL, 560)} '
        f'{total_height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width * CELL}" height="{height * CELL}" fill="#f4f4f0"/>'
        f"{''.join(squares)}{legend}</svg>\n"
    )


def html_report(report: dict[str, Any], floorplan: str) -> str:
    """The page: nothing outside it is needed to show it."""
    clock = report["clock_mhz"]
    met = report["timing_met"]
    bars = "".join(
        f"<tr><th>{label}</th><td>{report[key]['used']:,} of {report[key]['available']:,}</td>"
        f'<td class="bar"><div style="width:{_share(report[key]):.1f}%"></div></td>'
        f"<td>{_share(report[key]):.0f} %</td></tr>"
        for key, label in (
            ("luts", "LUTs"),
            ("ffs", "flip-flops"),
            ("block_rams", "block RAMs"),
            ("dsps", "DSPs"),
        )
    )
    path = report["critical_path"]
    delay = path["logic_ns"] + path["routing_ns"]
    facts = {
        "Clock": f"{clock['wanted']:g} MHz wanted, {clock['reached']:g} MHz reached",
        "MAC/cycle": f"{report['mac_per_cycle']:,}",
        "LUT/MAC, whole design": f"{report['lut_per_mac']:g}",
        "Weights": f"{report['weight_capacity']['trits']:,} trits in the chip",
        "Critical path": (
            f"{path['from']} → {path['to']}: {delay:.1f} ns, {path['logic_ns']:g} in logic, "
            f"{path['routing_ns']:g} in wires"
        ),
        "Made by": ", ".join(report["tools"]) + f", seed {report['seed']}",
    }
    rows = "".join(
        f'<tr><th>{name}</th><td colspan="3">{html.escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    advice = f"<p class=no>{html.escape(report['advice'])}</p>" if "advice" in report else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Tritloom on {report["board"]}</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 60em; margin: 2em auto; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th {{ text-align: left; font-weight: normal; color: #666; padding: .25em 1em .25em 0 }}
.bar {{ width: 50%; background: #eee }} .bar div {{ height: 1em; background: #30638e }}
.yes {{ color: #2b7a3d }} .no {{ color: #b3261e }}
</style>
<h1>Tritloom on {report["board"]}</h1>
<p class={"yes" if met else "no"}>{"Timing met" if met else "Timing missed"}: {report["part"]}</p>
{advice}<table>{bars}{rows}</table>
<h2>Floorplan</h2>
{floorplan}</html>
"""


def _share(count: dict[str, int]) -> float:
    return 100 * count["used"] / count["available"] if count["available"] else 0.0
