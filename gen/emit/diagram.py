"""The block diagram of an accelerator: its blocks with their widths, depths and latencies."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from tritloom.rtl.spec.checks import checks_of
from tritloom.rtl.spec.commands import identity
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["block_diagram"]

WIDTH, HEIGHT = 1120, 650
TITLE_PX, TEXT_PX = 15, 13
COLORS = {  # fill, stroke
    "command": ("#eaf1fb", "#2c5f9e"),
    "memory": ("#fdf3dd", "#a86a12"),
    "arithmetic": ("#e6f4ea", "#2b7a4b"),
}
INK, QUIET = "#1c2733", "#5a6773"


@dataclass(frozen=True, slots=True)
class _Block:
    """A box of the diagram.

    Members
    -------
    x, y, width, height : place and size in pixels
    kind : which of `COLORS` it has
    title : the block's name
    facts : lines of text below the title
    """

    x: int
    y: int
    width: int
    height: int
    kind: str
    title: str
    facts: tuple[str, ...]


def block_diagram(config: AcceleratorConfig) -> str:
    """The diagram as SVG. Equal configurations give the same text."""
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "width": str(WIDTH),
            "height": str(HEIGHT),
            "font-family": "Helvetica, Arial, 'DejaVu Sans', sans-serif",
            "role": "img",
        },
    )
    summary = _summary(config)
    ET.SubElement(svg, "title").text = "Tritloom accelerator"
    ET.SubElement(svg, "desc").text = summary
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    marker = ET.SubElement(
        ET.SubElement(svg, "defs"),
        "marker",
        {
            "id": "arrow",
            "viewBox": "0 0 10 10",
            "refX": "9",
            "refY": "5",
            "markerWidth": "8",
            "markerHeight": "8",
            "orient": "auto",
        },
    )
    ET.SubElement(marker, "path", {"d": "M0 0 L10 5 L0 10 z", "fill": INK})

    _text(svg, 40, 46, "Tritloom accelerator", 22, bold=True)
    _text(svg, 40, 72, summary, 14, color=QUIET)
    core = {"x": "410", "y": "262", "width": "620", "height": "310", "rx": "10"}
    style = {"fill": "none", "stroke": QUIET, "stroke-dasharray": "5 5"}
    ET.SubElement(svg, "rect", core | style)
    _text(svg, 424, 561, "BitLinear core", 12, color=QUIET)

    for block in _blocks(config):
        _draw(svg, block)
    pins = [*config.link.pins]
    to_device, from_device = pins if len(pins) == 2 else [config.link.name] * 2
    word = f"{config.word_bits:,} bits"
    loaded = config.tokens * config.fill * config.act_bits
    sums = config.tokens * config.rows
    _wire(svg, "M24 160 H100", to_device, 60, 150)
    _wire(svg, "M330 160 H420", "8 bits", 375, 150)
    _wire(svg, "M700 160 H790", "8 bits", 745, 150)
    _wire(svg, "M1020 160 H1096", from_device, 1058, 150)
    _wire(svg, "M450 210 V236 H215 V440", f"write, read: {word}", 332, 229)
    _wire(svg, "M560 210 V290", f"load: {config.fill * config.act_bits} bits", 568, 240, "start")
    _wire(svg, "M560 380 V440", f"{loaded:,} bits", 568, 416, "start")
    _wire(svg, "M330 490 H420", word, 375, 480)
    _wire(svg, "M700 490 H790", f"{sums} × {config.sum_bits} bits", 745, 480)
    results = f"results: {sums} × {config.result_bits} bits"
    if config.vector is None:
        _wire(svg, "M905 440 V236 H670 V210", results, 787, 229)
    else:
        _wire(svg, "M985 440 V380", results, 979, 416, "end")
        _wire(svg, "M905 290 V236 H670 V210", "words, steps, results", 787, 229)
        _wire(svg, "M790 335 H700", "8 bits", 745, 325)
    for line, text in enumerate(_footer(config)):
        _text(svg, 40, 604 + 22 * line, text, TEXT_PX, color=QUIET)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _summary(config: AcceleratorConfig) -> str:
    rate = config.macs_per_cycle * config.clock_hz / 1e9
    return (
        f"{config.lanes:,} lanes × {config.rows} rows × {_count(config.tokens, 'token')}: "
        f"at most {config.macs_per_cycle:,} MAC/cycle of RUN, {rate:,.2f} GMAC/s at "
        f"{config.clock_hz / 1e6:g} MHz"
        + (f", {config.link.title()}" if config.link.title() else "")
    )


def _footer(config: AcceleratorConfig) -> list[str]:
    trits = config.memory_words * config.rows * config.lanes
    limits = f"{config.max_in_features:,} inputs and {config.max_out_features:,} outputs"
    return [
        f"{trits:,} weights in {_count(config.max_layers, 'layer')}, each of at most {limits}",
        f"layout {config.layout_digest.hex()}   build {config.build_digest.hex()}",
    ]


def _blocks(config: AcceleratorConfig) -> list[_Block]:
    return _every_block(config) + _unit(config)


def _unit(config: AcceleratorConfig) -> list[_Block]:
    """The vector unit, if there is one."""
    unit = config.vector
    if unit is None:
        return []
    form = "bfloat16" if unit.bfloat16 else "float32"
    return [
        _Block(
            *(790, 290, 230, 90, "arithmetic", "Vector unit"),
            (
                f"{unit.words:,} × 32 bits, {form}",
                f"{_count(unit.multipliers, 'multiplier')}, {unit.steps:,} steps",
            ),
        )
    ]


def _every_block(config: AcceleratorConfig) -> list[_Block]:
    """The blocks of every accelerator."""
    cycles = config.memory.latency(config)
    latency = "latency varies" if cycles is None else f"latency {_count(cycles, 'cycle')}"
    packets = f"{config.slots} × {config.packet_bytes:,} bytes"
    loaded = config.tokens * config.fill * config.act_bits
    totals = config.tokens * config.rows * config.result_bits
    return [
        _Block(
            *(100, 110, 230, 100, "command", "Packet receiver"),
            ("checks length, CRC-32", f"buffer {packets}"),
        ),
        _Block(
            *(420, 110, 280, 100, "command", "Command processor"),
            (
                f"{len(checks_of(config))} commands, {config.window} in flight",
                f"layer table {config.max_layers}, identity {len(identity(config))} bytes",
            ),
        ),
        _Block(
            *(790, 110, 230, 100, "command", "Packet sender"),
            ("adds CRC-32", f"replay {packets}"),
        ),
        _Block(
            *(420, 290, 280, 90, "memory", "Activation buffer"),
            (
                f"{config.activation_words:,} × {loaded:,} bits",
                f"{_count(config.max_tiles, 'tile')} of {config.lanes:,} inputs",
            ),
        ),
        _Block(
            *(100, 440, 230, 100, "memory", f"Weight memory: {config.memory.title()}"),
            (
                f"{config.memory_words:,} × {config.word_bits:,} bits",
                f"{config.encoding}, {latency}",
            ),
        ),
        _Block(
            *(420, 440, 280, 100, "arithmetic", f"Dot engine: {config.engine}"),
            (
                f"{config.lanes:,} lanes × {config.rows} rows × {_count(config.tokens, 'token')}",
                f"latency {_count(config.engine_latency, 'cycle')}",
            ),
        ),
        _Block(
            *(790, 440, 230, 100, "arithmetic", "Partial sums"),
            (
                f"{config.result_row_groups:,} × {totals:,} bits",
                f"round {_count(config.again_cycles, 'cycle')}",
            ),
        ),
    ]


def _count(number: int, what: str) -> str:
    """A number with its unit, which gets an `s` unless the number is 1."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _draw(svg: ET.Element, block: _Block) -> None:
    fill, stroke = COLORS[block.kind]
    ET.SubElement(
        svg,
        "rect",
        {
            "x": str(block.x),
            "y": str(block.y),
            "width": str(block.width),
            "height": str(block.height),
            "rx": "8",
            "fill": fill,
            "stroke": stroke,
            "stroke-width": "1.5",
        },
    )
    middle = block.x + block.width // 2
    y = block.y + block.height // 2 - 11 * len(block.facts) + 5
    _text(svg, middle, y, block.title, TITLE_PX, anchor="middle", bold=True, color=stroke)
    for line, fact in enumerate(block.facts, start=1):
        _text(svg, middle, y + 2 + 21 * line, fact, TEXT_PX, anchor="middle")


def _wire(svg: ET.Element, path: str, label: str, x: int, y: int, anchor: str = "middle") -> None:
    """A line with an arrow at its end, and a label at `x`, `y`."""
    style = {"fill": "none", "stroke": INK, "stroke-width": "1.5", "marker-end": "url(#arrow)"}
    ET.SubElement(svg, "path", {"d": path} | style)
    _text(svg, x, y, label, 12, anchor=anchor)


def _text(
    svg: ET.Element,
    x: int,
    y: int,
    text: str,
    size: int,
    *,
    anchor: str = "start",
    bold: bool = False,
    color: str = INK,
) -> None:
    style = {"font-size": str(size), "text-anchor": anchor, "fill": color}
    if bold:
        style["font-weight"] = "bold"
    ET.SubElement(svg, "text", {"x": str(x), "y": str(y)} | style).text = text
