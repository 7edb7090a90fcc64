"""The page of the measurements: its table and plots, from JSON files of `measure engine`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_whole
from tritloom.rtl.spec.scale_facts import DEFAULT_KIND

__all__ = ["PUBLIC", "summary", "write_report"]

BEGIN, END = "<!-- measure report: begin -->", "<!-- measure report: end -->"
OURS, THEIRS = "#1f77b4", "#b0b0b0"
WIDTH_INCHES, BAR_INCHES, HEAD_INCHES = 9, 0.26, 0.9
PANEL_MARGIN_BARS = 2
"""Height of a panel's title and axis, in bars."""
LABEL_ROOM = 1.12
"""Length of an axis; the longest bar is 1. The figure beside that bar needs the rest."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; a figure that is `None` was not measured or does not exist."""

    family: str
    name: str
    part: str
    mac_per_cycle: int
    lut_per_mac: float
    ff_per_mac: float | None = None
    block_rams: int | None = None
    fmax_mhz: float | None = None
    klut_peak: float | None = None
    klut_sustained: float | None = None
    per_percent: float | None = None
    utilization: float | None = None
    command: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}, {self.part}"


def _public(name: str, includes: str, *figures: float) -> tuple[Row, Row]:
    macs, lut_per_mac, mhz, density, xc7 = figures
    named = f"{name} ({includes})"
    return (
        Row(
            *("ecp5", named, "LFE5U-25F-6", int(macs), lut_per_mac),
            fmax_mhz=mhz,
            klut_peak=density,
        ),
        Row("xc7", named, "xc7", int(macs), xc7),
    )


PUBLIC = tuple(
    row
    for rows in (
        _public("ternfpga dot_pipe 16", "tree only", 16, 54, 110, 2.0, 22),
        _public("ternfpga dot_pipe 64", "tree only", 64, 58, 71, 1.2, 26),
        _public("ternfpga gemv_stream 16", "memories, accumulator, control", 16, 74, 88, 1.2, 39),
        _public("ternarycore gemm 16", "accumulators, counters", 16, 136, 123, 0.9, 106),
        _public("rejunity systolic 15", "decoder", 15, 148, 132, 0.9, 61),
        _public("bitnet-kv260 engine", "memories, FIFO, control", 160, 39.5, 88, 2.1, 24.5),
    )
    for row in rows
)
"""Public ternary engines, by the names of their projects: our measurements of their RTL with the
same tools and parts, median of three seeds; for xc7 by synthesis. Of a range, its best."""


def summary(result: dict[str, Any]) -> str:
    """The figures of a measurement, for people."""
    share = result["part_share"]
    resources = (
        ("luts", "LUT"),
        ("ffs", "FF"),
        ("block_rams", "block RAM"),
        ("dsps", "DSP"),
    )
    uses = (f"{result[key]:,} {label} ({share[key]:g} %)" for key, label in resources)
    name = f"{result['engine']} {result['encoding']} on {result['part']}"
    harness = f"the harness has another {result['harness_luts']} LUT, {result['harness_ffs']} FF"
    shape = f"{result['in_features']} × {result['out_features']}"
    cycles = f"{result['cycles']:,} cycles, {result['utilization']:.1%} of the peak"
    lines = [
        f"{name}: {result['mac_per_cycle']} MAC/cycle, RUN of the core alone",
        f"{', '.join(uses)}; {harness}",
        f"{result['lut_per_mac']:.2f} LUT/MAC, {result['ff_per_mac']:.2f} FF/MAC",
        f"{shape}: {cycles}, {result['exact_vectors']:,} results exact",
    ]
    if result["fmax_mhz_median"] is not None:
        least, most = result["fmax_mhz_min"], result["fmax_mhz_max"]
        peak, sustained = (result[f"gmac_per_s_per_klut_{of}"] for of in ("peak", "sustained"))
        scarcest = dict(resources)[result["scarcest"]]
        lines += [
            f"{result['fmax_mhz_median']:g} MHz, {least:g} to {most:g} over the seeds",
            f"GMAC/s per kLUT: {peak:.2f} peak, {sustained:.2f} sustained",
            f"GMAC/s per 1 % of the part's {scarcest}: {result['gmac_per_s_per_percent']:.3f}",
        ]
    if mix := result.get("mix"):
        rate = mix["gmac_per_s_sustained"]
        lines.append(
            f"{mix['name']}: {mix['utilization']:.1%} of the peak"
            + ("" if rate is None else f", {rate:.2f} GMAC/s sustained")
        )
    return "\n".join(lines)


def write_report(directory: Path) -> list[Path]:
    """Write the plots into the folder and the table into its page; gives what was written."""
    page = directory.with_suffix(".md")
    rows = [_row(file) for file in sorted(directory.glob("*.json"))]
    if not rows:
        raise InputError(f"{directory} has no JSON files; write some with measure engine --output")
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"{page} must have one line {BEGIN} and after it one line {END}")
    rows.sort(key=lambda row: (row.family, row.part, row.lut_per_mac, row.name, row.mac_per_cycle))
    plots = {
        "lut_per_mac": ("LUT per MAC: less is better", [*rows, *PUBLIC]),
        "klut_peak": ("GMAC/s per kLUT, peak: more is better", [*rows, *PUBLIC]),
        "per_percent": ("GMAC/s per 1 % of the part's scarcest resource: more is better", rows),
    }
    files = []
    for figure, (title, shown) in plots.items():
        files.append(directory / f"{figure}.svg")
        write_whole(files[-1], _panels(title, figure, shown))
    head, rest = text.split(BEGIN)
    write_whole(
        page,
        head + BEGIN + "\n\n" + _section(directory.name, rows, plots) + END + rest.split(END)[1],
    )
    return [page, *files]


def _row(file: Path) -> Row:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        config = result["config"]
        geometry = f"{config['lanes']}×{config['rows']}"
        if config["tokens"] > 1:
            geometry += f"×{config['tokens']} tokens"
        if scale := config.get("scale"):
            kind = "" if scale["kind"] == DEFAULT_KIND else f"{scale['kind']} "
            geometry += f" with {kind}scales for {scale['group']}"
        return Row(
            family=result["family"],
            name=f"**{result['engine']} {result['encoding']} {geometry}**",
            part=result["part"],
            mac_per_cycle=result["mac_per_cycle"],
            lut_per_mac=result["lut_per_mac"],
            ff_per_mac=result["ff_per_mac"],
            block_rams=result["block_rams"],
            fmax_mhz=result["fmax_mhz_median"],
            klut_peak=result["gmac_per_s_per_klut_peak"],
            klut_sustained=result["gmac_per_s_per_klut_sustained"],
            per_percent=result["gmac_per_s_per_percent"],
            utilization=result["utilization"],
            command=result["command"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a measurement of measure engine: {error!r}") from None


def _section(folder: str, rows: Sequence[Row], plots: dict[str, Any]) -> str:
    columns = (
        ("engine", "name", ""),
        ("part", "part", ""),
        ("MAC/cycle", "mac_per_cycle", ","),
        ("LUT/MAC", "lut_per_mac", ".2f"),
        ("FF/MAC", "ff_per_mac", ".2f"),
        ("block RAM", "block_rams", ","),
        ("MHz", "fmax_mhz", ".0f"),
        ("GMAC/s per kLUT", "klut_peak", ".1f"),
        ("sustained", "klut_sustained", ".1f"),
        ("GMAC/s per 1 %", "per_percent", ".2f"),
        ("utilization", "utilization", ".1%"),
    )
    out = io.StringIO()
    out.write("| " + " | ".join(title for title, _, _ in columns) + " |\n")
    out.write("|" + "---|" * len(columns) + "\n")
    for row in (*rows, *PUBLIC):
        cells = (_cell(getattr(row, name), form) for _, name, form in columns)
        out.write("| " + " | ".join(cells) + " |\n")
    out.write("\n")
    for figure, (title, _) in plots.items():
        out.write(f"![{title}]({folder}/{figure}.svg)\n\n")
    out.write("The command of each line of ours, in its order:\n\n```sh\n")
    out.write("".join(f"{row.command}\n" for row in rows))
    out.write("```\n\n")
    return out.getvalue()


def _cell(value: object, form: str) -> str:
    return "" if value is None else format(value, form)


def _panels(title: str, figure: str, rows: Sequence[Row]) -> str:
    """Horizontal bars as an SVG: a panel for each family, each with an axis from 0 of its own.

    The lengths of two bars of a panel compare as their figures do. The SVG has no date, fixed names
    and text as text, so equal figures give equal files.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = [row for row in rows if getattr(row, figure) is not None]
    families = list(dict.fromkeys(row.family for row in shown))
    panels = [[row for row in shown if row.family == family][::-1] for family in families]
    heights = [len(panel) for panel in panels]
    settings: Any = {"svg.hashsalt": "tritloom", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        size = (
            WIDTH_INCHES,
            HEAD_INCHES + BAR_INCHES * sum(height + PANEL_MARGIN_BARS for height in heights),
        )
        drawing = Figure(figsize=size, layout="constrained")
        grid = drawing.subplots(max(len(panels), 1), squeeze=False, height_ratios=heights or None)
        for axes, family, panel in zip(grid[:, 0], families, panels, strict=False):
            values = [getattr(row, figure) for row in panel]
            colors = [OURS if row.command else THEIRS for row in panel]
            bars = axes.barh(range(len(panel)), values, color=colors)
            axes.bar_label(bars, labels=[f"{value:.3g}" for value in values], padding=3)
            axes.set_yticks(range(len(panel)), [row.label.replace("*", "") for row in panel])
            axes.set_title(family, loc="left", fontweight="bold")
            axes.set_ylim(-0.7, len(panel) - 0.3)
            axes.set_xlim(0, max(values) * LABEL_ROOM)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        drawing.suptitle(title)
        if any(not row.command for row in shown):
            drawing.legend(
                handles=[
                    Patch(color=OURS, label="Tritloom"),
                    Patch(color=THEIRS, label="other engines, measured with the same tools"),
                ],
                loc="outside lower center",
                ncols=2,
                frameon=False,
            )
        out = io.StringIO()
        drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
