"""What the commands print: tables, lists, colours, progress and JSON.

Everything follows the terminal: its width, and whether it shows colours. Results go to standard
output; progress and errors go to standard error, so that a program can read the results alone.
"""

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TextIO

from tritloom.rtl.spec.files import write_whole

__all__ = [
    "Column",
    "columns",
    "count",
    "error_line",
    "fill",
    "loading_bar",
    "paint",
    "pairs",
    "print_json",
    "progress_line",
    "say",
    "table",
    "tell_size",
]

DEFAULT_COLUMNS = 80
"""Width of what is not a terminal."""
LEAST_COLUMNS = 40
"""Text is never wrapped narrower than this."""
LEAST_WRAPPED = 16
"""A column is wrapped to no fewer characters; below that its text goes on a line of its own."""
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
UNBROKEN: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""Paths, names and commands can be copied only if they are in one piece."""
BREAK = re.compile(r" |(?<=/)(?=\w{3})")
"""Where a heading may go on to the next line."""
CLEAR_LINE = "\r\x1b[K"


def columns(stream: TextIO | None = None) -> int:
    """The width of the terminal behind a stream, standard output if none is given.

    `COLUMNS` in the environment goes first. What is not a terminal has 80 columns.
    """
    stream = sys.stdout if stream is None else stream
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdecimal() and int(given):
        return max(LEAST_COLUMNS, int(given))
    try:
        wide = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        wide = 0
    return max(LEAST_COLUMNS, wide or DEFAULT_COLUMNS)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches a stream. A stream that was closed is no terminal."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour of `COLOURS`, if `stream` is a terminal that shows colours.

    A non-empty `NO_COLOR` in the environment, or `TERM=dumb`, switches colours off.
    """
    stream = sys.stdout if stream is None else stream
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal(stream):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where the number wants it: `1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def fill(text: str, width: int) -> str:
    """Wraps the paragraphs of a text to `width`; lines that begin with a space stay as they are."""
    lines: list[str] = []
    paragraph: list[str] = []

    def end_paragraph() -> None:
        lines.extend(textwrap.wrap(" ".join(paragraph), width, **UNBROKEN))
        paragraph.clear()

    for line in text.splitlines():
        if line and not line[0].isspace():
            paragraph.append(line)
            if line.endswith(":"):  # the heading of a block of examples
                end_paragraph()
            continue
        end_paragraph()
        lines.append(line)
    end_paragraph()
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `right` aligns its cells to the right, as numbers are. A `wraps` column gives way where the
    table is wider than the terminal.
    """

    heading: str
    right: bool = False
    wraps: bool = False


def table(
    heads: Sequence[Column],
    rows: Iterable[Sequence[object]],
    stream: TextIO | None = None,
    indent: str = "",
) -> list[str]:
    """The lines of a table that fits into the terminal, headings first.

    A table that is too wide gets, in this order: headings on several lines, gaps of one space,
    wrapped cells, and its last column on lines of its own below each row.

    Parameters
    ----------
    heads : one `Column` a column
    rows : as many cells a row; a cell may be anything that has a text
    stream : where the table is printed, standard output if none is given
    indent : what each line begins with
    """
    room = columns(stream) - len(indent)
    cells = [[str(cell) for cell in row] for row in rows]
    layout = _Layout(heads, cells, room)
    below: Column | None = None
    if layout.excess > 0 and heads[-1].wraps and len(heads) > 1:
        below, heads = heads[-1], heads[:-1]
        layout = _Layout(heads, [row[:-1] for row in cells], room)
    lines = [paint(line, "bold", stream) for line in layout.heading_lines()]
    for row in cells:
        lines += layout.row_lines(row[: len(heads)])
        if below is not None and row[-1]:
            text = f"{below.heading}: {row[-1]}"
            lines += textwrap.wrap(
                text, room, initial_indent="  ", subsequent_indent="    ", **UNBROKEN
            )
    return [indent + line for line in lines]


class _Layout:
    """How a table lies in `room` characters; `excess` is by how many it is still too wide."""

    def __init__(self, heads: Sequence[Column], cells: Sequence[Sequence[str]], room: int) -> None:
        self._heads = heads
        self._headings = [[head.heading] for head in heads]
        self._gap = 2

        def measure() -> int:
            self._widths = [
                max([*map(len, heading), *(len(row[index]) for row in cells)])
                for index, heading in enumerate(self._headings)
            ]
            return sum(self._widths) + self._gap * (len(heads) - 1) - room

        self.excess = measure()
        if self.excess > 0:
            self._headings = [BREAK.split(head.heading) for head in heads]
            self.excess = measure()
        if self.excess > 0:
            self._gap = 1
            self.excess = measure()
        for index, head in enumerate(heads):
            if head.wraps and self.excess > 0:
                least = min(self._widths[index], LEAST_WRAPPED)
                narrower = max(least, self._widths[index] - self.excess)
                self.excess -= self._widths[index] - narrower
                self._widths[index] = narrower

    def heading_lines(self) -> list[str]:
        """The headings, each ending on the last line."""
        height = max(len(heading) for heading in self._headings)
        padded = [[""] * (height - len(heading)) + heading for heading in self._headings]
        return [self._line(texts) for texts in zip(*padded, strict=True)]

    def row_lines(self, row: Sequence[str]) -> list[str]:
        """A row; more than one line where a cell is wrapped."""
        wrapped = [
            textwrap.wrap(text, size) if len(text) > size else [text]
            for text, size in zip(row, self._widths, strict=True)
        ]
        return [self._line(texts) for texts in zip_longest(*wrapped, fillvalue="")]

    def _line(self, texts: Sequence[str]) -> str:
        aligned = (
            text.rjust(size) if head.right else text.ljust(size)
            for text, size, head in zip(texts, self._widths, self._heads, strict=True)
        )
        return (" " * self._gap).join(aligned).rstrip()


def pairs(facts: Iterable[tuple[str, object]], indent: str = "  ") -> list[str]:
    """The lines of a list of names and values; a long value is wrapped beside its name."""
    room = columns()
    texts = [(name, str(value)) for name, value in facts]
    names = max((len(name) for name, _ in texts), default=0)
    lines = []
    for name, value in texts:
        start = f"{indent}{name:{names}}  "
        wrapped = textwrap.wrap(value, max(room - len(start), LEAST_WRAPPED), **UNBROKEN) or [""]
        lines.append((start + wrapped[0]).rstrip())
        lines += [" " * len(start) + line for line in wrapped[1:]]
    return lines


def say(text: str) -> None:
    """Writes to standard error, at once."""
    sys.stderr.write(text)
    sys.stderr.flush()


def progress_line(line: str) -> None:
    """A line of progress, to standard error."""
    say(f"{line}\n")


def loading_bar(what: str) -> Callable[[int, int], None]:
    """A function of how many are done and of all, which keeps one line of standard error.

    The line is cleared when all are done. Nothing is written where nobody watches.
    """

    def show(done: int, total: int) -> None:
        if is_terminal(sys.stderr):
            say(CLEAR_LINE if done >= total else f"{CLEAR_LINE}{what} {done} of {total} …")

    return show


def error_line(message: str) -> None:
    """The one line of an error, to standard error."""
    label = paint("error:", "red", sys.stderr)
    say(f"tritloom: {label} {' '.join(message.split())}\n")


def print_json(value: object) -> None:
    """One JSON value on one line of standard output."""
    print(json.dumps(value))


def tell_size(options: argparse.Namespace, result: dict[str, Any]) -> int:
    """Write the figures where `--output` says and print them, as JSON with `--json`.

    Parameters
    ----------
    options : of the command, with `output` and `json`
    result : `luts`, `ffs`, `block_rams`, `dsps`, `fmax_mhz`, `part`

    Returns
    -------
    int
        The status: 0.
    """
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
        return 0
    clocks = ", ".join(f"{clock:.1f}" for clock in result["fmax_mhz"]) or "unknown"
    multipliers = f", {result['dsps']} multipliers" if result.get("dsps") else ""
    print(
        f"{result['luts']:,} LUTs, {result['ffs']:,} flip-flops, {result['block_rams']} block RAMs"
        f"{multipliers} of the {result['part']}; clock {clocks} MHz"
    )
    return 0
