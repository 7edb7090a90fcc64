"""The one-page report of a build: resources, clock, critical path and floorplan."""

import html
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tritloom.boards.board import Board

__all__ = [
    "FORMAT",
    "LABELS",
    "advice",
    "critical_path",
    "crossing_ns",
    "floorplan_svg",
    "html_report",
]

FORMAT = 4
"""Raised when any file of a build changes for the same design: part of the cache's key."""
LABELS = {
    "luts": "LUTs",
    "ffs": "flip-flops",
    "block_rams": "block RAMs",
    "dsps": "DSPs",
}
BLOCKS = {
    "core.engine": ("dot engine", "#d1495b"),
    "core.sums": ("partial sums", "#edae49"),
    "core": ("activations", "#c97b3d"),
    "memory": ("weight memory", "#00798c"),
    "processor": ("command processor", "#30638e"),
    "receiver": ("receive buffer", "#7a9e9f"),
    "sender": ("send buffer", "#8f7db3"),
    "link": ("serial link", "#5c946e"),
}
"""Blocks of the accelerator by the beginning of their cells' names, the longer ones first."""
OTHER = ("clock, pins, unnamed", "#b8b8b8")
MAP_WIDTH, LARGEST_TILE = 600, 14
"""Pixels."""
LEGEND_WIDTH, LEGEND_COLUMNS = 200, 3
FULL, CROWDED = 100, 90
"""Percent of a resource from which its bar warns."""
TOOL_SUFFIX = re.compile(
    r"_(?:[A-Z0-9]+_)*(?:SB_[A-Z]|TRELLIS_|LUT4|CCU2C|PFUMX|L6MUX21|DP16KD|ICESTORM_|LC$|\$).*"
)
"""What yosys and nextpnr append to the name of the signal that a cell is next to."""


def critical_path(timing: dict[str, Any], clock: str) -> dict[str, Any]:
    """The longest path between flip-flops or memories of `clock`, in nanoseconds.

    Each of its `steps` is a cell: the signal it is next to, as most cells have no name of their
    own; its kind; its delay; and that of the wire from it to the next one.
    """
    paths = [
        path["path"]
        for path in timing["critical_paths"]
        if path["from"].split()[-1] == path["to"].split()[-1] == clock
    ]
    path: list[dict[str, Any]] = max(paths, key=_delay_ns, default=[])
    steps: list[dict[str, Any]] = []
    for piece in path:
        if piece["type"] == "routing":
            steps[-1]["wire_ns"] += piece["delay"]
            continue
        steps.append(
            {
                "near": readable(piece["from"]["cell"]),
                "kind": _kind(piece),
                "cell_ns": piece["delay"],
                "wire_ns": 0.0,
            }
        )
    for step in steps:
        step["cell_ns"], step["wire_ns"] = round(step["cell_ns"], 2), round(step["wire_ns"], 2)
    return {
        "from": steps[0]["near"] if steps else "",
        "to": steps[-1]["near"] if steps else "",
        "logic_ns": round(sum(p["delay"] for p in path if p["type"] != "routing"), 2),
        "routing_ns": round(sum(p["delay"] for p in path if p["type"] == "routing"), 2),
        "levels": sum(piece["type"] == "logic" for piece in path),
        "steps": steps,
    }


def crossing_ns(timing: dict[str, Any], clocks: Sequence[str]) -> float:
    """The longest path from one of the clocks to another one, in nanoseconds; 0 without any."""
    return max(
        (
            _delay_ns(path["path"])
            for path in timing["critical_paths"]
            for ends in [{path[end].split()[-1] for end in ("from", "to")}]
            if len(ends) == 2 and ends <= set(clocks)
        ),
        default=0.0,
    )


def _delay_ns(path: list[dict[str, Any]]) -> float:
    return sum(float(piece["delay"]) for piece in path)


def _kind(piece: dict[str, Any]) -> str:
    source, sink = piece["from"]["port"], piece["to"]["port"]
    if piece["type"] == "clk-to-q":
        memory = re.fullmatch(r"DO[AB]\d+|RDATA_\d+", sink)
        return "block RAM" if memory else "flip-flop"
    if piece["type"] == "setup":
        return "set up"
    if re.search(r"COUT|FCO|CIN|FCI", f"{source} {sink}"):
        return "carry"
    return "LUT"


def readable(cell: str) -> str:
    """The name of the signal that a cell is next to, without what the tools have added."""
    name = TOOL_SUFFIX.sub("", cell).removeprefix("accelerator.")
    name = re.sub(r"\$\d+|(?:^|(?<=\.))U\$\d+\.?|\.\d+\.\d+(_\w+)?$", "", name)
    return name.strip("._") or "accelerator"


def advice(report: dict[str, Any]) -> str:
    """One line: by how much timing was missed, and what to change; empty if it was met."""
    if report["timing_met"]:
        return ""
    crossing = report.get("crossing_ns")
    if crossing and crossing["longest"] >= crossing["allowed"]:
        return (
            f"timing missed: a path between both clocks takes {crossing['longest']:g} of "
            f"{crossing['allowed']:g} ns; try --seeds 8"
        )
    clock, path = _path_clock(report), report["critical_path"]
    option, remedies = "clock_hz", "--seeds 8 or --fit"
    if clock is not report["clock_mhz"]:
        option, remedies = "the memory's clock_hz", "--seeds 8"
    short = clock["wanted"] - clock["reached"]
    missed = [
        f"{other['name']} reaches {other['reached']:g} of {other['wanted']:g} MHz"
        for other in report.get("other_clocks_mhz", ())
        if other["reached"] < other["wanted"]
    ]
    if missed and short <= 0:
        return f"timing missed: {'; '.join(missed)}; try --seeds 8 or --fit"
    return (
        f"timing missed by {short:.2f} MHz: {clock['reached']:.2f} of {clock['wanted']:g} MHz, "
        f"from {path['from']} to {path['to']}; try {remedies}, or set {option} to at most "
        f"{int(clock['reached'] * 10) * 100_000}"
    )


def _path_clock(report: dict[str, Any]) -> dict[str, float]:
    """The clock that the critical path belongs to: the accelerator's, unless only the memory's own
    clock is missed."""
    clock: dict[str, float] = report["clock_mhz"]
    if report["timing_met"] or clock["reached"] < clock["wanted"]:
        return clock
    memory_clock: dict[str, float] = report.get("memory_clock_mhz", clock)
    return memory_clock


def _verdict(clock: dict[str, float]) -> str:
    """What was reached of a clock."""
    margin = clock["reached"] - clock["wanted"]
    return (
        f"{clock['reached']:.1f} MHz reached, {clock['wanted']:g} wanted "
        f"({margin:+.1f} MHz, {100 * margin / clock['wanted']:+.0f} %)"
    )


def _block(name: str) -> tuple[str, str]:
    for prefix, block in BLOCKS.items():
        if name.startswith(f"accelerator.{prefix}."):
            return block
    return OTHER


def floorplan_svg(placed: dict[str, Any], grid: tuple[int, int] = (1, 1)) -> str:
    """A picture of nextpnr's placed design: each tile in the colour of most of its cells.

    `grid`: least columns and rows to draw, those of the part.
    """
    tiles: dict[tuple[int, int], Counter[tuple[str, str]]] = defaultdict(Counter)
    totals = Counter[tuple[str, str]]()
    for module in placed["modules"].values():
        for name, cell in module.get("cells", {}).items():
            place = re.match(r"X(\d+)/Y(\d+)/", str(cell["attributes"].get("NEXTPNR_BEL", "")))
            if place:
                block = _block(name)
                tiles[int(place[1]), int(place[2])][block] += 1
                totals[block] += 1
    width = max(grid[0], *(x + 1 for x, _ in tiles), 1)
    height = max(grid[1], *(y + 1 for _, y in tiles), 1)
    cell = min(LARGEST_TILE, MAP_WIDTH / width)
    busiest = max((sum(counts.values()) for counts in tiles.values()), default=1)
    squares = []
    for (x, y), counts in sorted(tiles.items()):
        # Of blocks with equally many cells, the first one in `BLOCKS`.
        order = [*BLOCKS.values(), OTHER]
        block = max(counts, key=lambda block: (counts[block], -order.index(block)))
        opacity = 0.4 + 0.6 * sum(counts.values()) / busiest
        squares.append(
            f'<rect x="{x}" y="{height - 1 - y}" width=".9" height=".9" '
            f'fill="{block[1]}" fill-opacity="{opacity:.2f}"/>'
        )
    map_width, map_height = round(width * cell), round(height * cell)
    legend = []
    shown = [(block, n) for block, n in totals.most_common() if block != OTHER]
    shown += [(OTHER, totals[OTHER])] if totals[OTHER] else []
    for number, ((label, colour), count) in enumerate(shown):
        x = LEGEND_WIDTH * (number % LEGEND_COLUMNS)
        y = map_height + 12 + 18 * (number // LEGEND_COLUMNS)
        share = 100 * count / totals.total()
        legend.append(
            f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{x + 15}" y="{y + 9}">{label} {share:.0f} %</text>'
        )
    lines = -(-len(shown) // LEGEND_COLUMNS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {MAP_WIDTH} '
        f'{map_height + 12 + 18 * lines}" font-family="system-ui, sans-serif" font-size="11" '
        f'fill="#222"><rect width="{map_width}" height="{map_height}" fill="#f2f2ee"/>'
        f'<g transform="scale({cell:.4f})">{"".join(squares)}</g>{"".join(legend)}</svg>\n'
    )


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
p { margin: .3rem 0 } .quiet { color: #666 }
.verdict { display: inline-block; margin: 1rem 0 .3rem; padding: .25rem .75rem; border-radius: 1rem;
  color: #fff; font-weight: 600 }
.yes { background: #2b7a3d } .no { background: #b3261e }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; margin-top: 1rem }
.facts div { border-top: 2px solid #30638e; padding-top: .3rem }
.facts b { display: block; font-size: 1.35rem; font-weight: 600 }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: normal; color: #666 }
td, th { padding: .2rem .8rem .2rem 0; vertical-align: middle }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.kind { white-space: nowrap } .bar { width: 45% }
.bar div { background: #e8e8e4; border-radius: 2px }
.bar i { display: block; height: .8rem; background: #30638e; border-radius: 2px; min-width: 1px }
.bar i.crowded { background: #c97b3d }
.split div { display: flex } .split i { min-width: 0; flex: none }
.split .wire { background: #9fb8cc }
svg { width: 100%; height: auto } code { font-size: .9em }
"""


def html_report(report: dict[str, Any], board: Board, floorplan: str) -> str:
    """The page: nothing outside it is needed to show it."""
    clock, met = report["clock_mhz"], report["timing_met"]
    verdict = f"Timing {'met' if met else 'missed'}: {_verdict(clock)}"
    if "memory_clock_mhz" in report:
        verdict += f"; memory {_verdict(report['memory_clock_mhz'])}"
    capacity = report["weight_capacity"]
    facts = {
        "MAC/cycle of RUN, peak": f"{report['mac_per_cycle']:,}",
        "GMAC/s of RUN, peak": f"{report['mac_per_cycle'] * clock['wanted'] / 1000:.2f}",
        "LUT/MAC, whole design": f"{report['lut_per_mac']:.1f}",
        "weights in the chip": f"{capacity['trits']:,}",
    }
    cards = "".join(f"<div><b>{value}</b>{label}</div>" for label, value in facts.items())
    bars = "".join(_bar(label, report[key]) for key, label in LABELS.items())
    note = "" if met else f"<p>{html.escape(advice(report))}</p>"
    config = ", ".join(f"{key} {value}" for key, value in report["config"].items())
    title = html.escape(f"Tritloom on {board.title}")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
<p class="quiet">{html.escape(board.part)}, <code>--board {html.escape(board.name)}</code></p>
<p class="verdict {"yes" if met else "no"}">{verdict}</p>
{note}
<div class="facts">{cards}</div>
<h2>Models</h2>
{_models_table(report["models"])}
<h2>Resources</h2>
<table>{bars}</table>
<h2>Critical path</h2>
{_path_table(report["critical_path"], 1000 / _path_clock(report)["wanted"])}
<h2>Floorplan</h2>
{floorplan}<h2>Made from</h2>
<p class="quiet">{html.escape(config)}</p>
<p class="quiet">{html.escape(", ".join(report["tools"]))}, seed {report["seed"]}</p>
</html>
"""


def _models_table(models: dict[str, Any]) -> str:
    """Each model with its tokens/s, end to end first, RUN alone after it."""
    rows = []
    for name, model in models.items():
        times = model["end_to_end"]
        figures = ["unknown", "", "", ""]
        if times is not None:
            token_ms = 1e3 * times["total_s"] / times["tokens"]
            figures = [
                *(f"{times['tokens_per_s']:.3g}", f"{token_ms:,.1f}", times["bound"]),
                f"{times['gmac_per_s_run']:.2f}",
            ]
        cells = "".join(f'<td class="number">{figure}</td>' for figure in figures)
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{model['fits']}</td>{cells}</tr>")
    heads = ("tokens/s", "ms a token", "binds", "GMAC/s of RUN alone")
    head = "".join(f'<th class="number">{text}</th>' for text in heads)
    return f"""<p>End to end: loading of weights that do not fit, link, front end, RUN, driver. Only
the ternary layers are counted.</p>
<table><tr><th>model</th><th>fits</th>{head}</tr>{"".join(rows)}</table>"""


def _bar(label: str, count: dict[str, int]) -> str:
    share = 100 * count["used"] / count["available"] if count["available"] else 0.0
    crowded = ' class="crowded"' if share >= CROWDED else ""
    return (
        f'<tr><th>{label}</th><td class="number">{count["used"]:,} of {count["available"]:,}</td>'
        f'<td class="bar"><div><i{crowded} style="width:{min(share, FULL):.1f}%"></i></div></td>'
        f'<td class="number">{share:.0f} %</td></tr>'
    )


def _path_table(path: dict[str, Any], period_ns: float) -> str:
    """The critical path as a waterfall: each bar begins where the one above it ends.

    Neighbouring steps with one name and kind share a line.
    """
    total = path["logic_ns"] + path["routing_ns"]
    if not total:
        return "<p>none: the clock has no path between two cells</p>"
    scale = 100 / max(total, period_ns)
    rows, at = [], 0.0
    groups = itertools.groupby(path["steps"], key=lambda step: (step["near"], step["kind"]))
    for (near, kind), group in groups:
        steps = list(group)
        cell, wire = (sum(step[key] for step in steps) for key in ("cell_ns", "wire_ns"))
        times = f" × {len(steps)}" if len(steps) > 1 else ""
        rows.append(
            f"<tr><td><code>{html.escape(near)}</code></td>"
            f'<td class="kind">{kind}{times}</td>'
            f'<td class="number">{cell:.2f}</td><td class="number">{wire:.2f}</td>'
            f'<td class="number">{at + cell + wire:.2f}</td>'
            f'<td class="bar split"><div><i style="width:{scale * cell:.1f}%;'
            f'margin-left:{scale * at:.1f}%"></i>'
            f'<i class="wire" style="width:{scale * wire:.1f}%"></i></div></td></tr>'
        )
        at += cell + wire
    return f"""<p>{total:.1f} ns of {period_ns:.1f} ns in a cycle: {path["logic_ns"]:.1f} in
{path["levels"]} levels of logic (dark), {path["routing_ns"]:.1f} in wires (light).</p>
<table><tr><th>next to the signal</th><th>kind</th><th class="number">cell ns</th>
<th class="number">wire ns</th><th class="number">at ns</th><th></th></tr>{"".join(rows)}</table>"""
