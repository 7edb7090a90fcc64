import io
import os
import pty
import sys

import pytest

from tritloom.gen.cli import text
from tritloom.gen.cli.text import Column, count, fill, loading_bar, paint, pairs, table

HEADS = [Column("name"), Column("part", wraps=True), Column("MAC/cycle", right=True)]
ROWS = [("a", "one two three four", 5), ("long", "", 1234)]


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def wide(monkeypatch):
    """Sets the width of the terminal."""
    return lambda columns: monkeypatch.setenv("COLUMNS", str(columns))


class TestColumns:
    @pytest.mark.parametrize(("given", "columns"), [("100", 100), ("7", 40), ("x", 80), ("0", 80)])
    def test_environment(self, monkeypatch, given, columns):
        monkeypatch.setenv("COLUMNS", given)
        assert text.columns(io.StringIO()) == columns

    def test_terminal(self, monkeypatch):
        monkeypatch.delenv("COLUMNS", raising=False)
        master, slave = pty.openpty()
        try:
            import fcntl
            import struct
            import termios

            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 123, 0, 0))
            with os.fdopen(os.dup(slave), "w") as stream:
                assert text.columns(stream) == 123
        finally:
            os.close(master)
            os.close(slave)

    def test_closed(self, monkeypatch):
        monkeypatch.delenv("COLUMNS", raising=False)
        stream = io.StringIO()
        stream.close()
        assert text.columns(stream) == 80 and not text.is_terminal(stream)


class TestPaint:
    def test_terminal(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert paint("x", "red", Screen()) == "\x1b[31mx\x1b[0m"
        assert paint("x", "red", io.StringIO()) == "x"

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_switched_off(self, monkeypatch, name, value):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, value)
        assert paint("x", "red", Screen()) == "x"

    def test_empty_no_color(self, monkeypatch):
        """An empty value is as none, by no-color.org."""
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "")
        assert paint("x", "bold", Screen()) == "\x1b[1mx\x1b[0m"


class TestTable:
    def test_fits(self, wide):
        wide(80)
        assert table(HEADS, ROWS) == [
            "name  part                MAC/cycle",
            "a     one two three four          5",
            "long                           1234",
        ]

    def test_too_wide(self, wide, monkeypatch):
        """Headings on two lines, then gaps of one, then wrapped cells; never run together."""
        monkeypatch.setattr(text, "LEAST_COLUMNS", 20)
        wide(34)
        assert table(HEADS, ROWS)[:2] == [
            "                           MAC/",
            "name  part                cycle",
        ]
        wide(30)
        assert table(HEADS, ROWS)[2] == "a    one two three four     5"
        wide(27)
        assert table(HEADS, ROWS)[2:] == [
            "a    one two three        5",
            "     four",
            "long                   1234",
        ]

    def test_last_column_below(self, wide):
        heads = [Column("a"), Column("why", wraps=True)]
        wide(40)
        lines = table(heads, [("x" * 36, "because it is like that"), ("y", "")])
        assert lines == ["a", "x" * 36, "  why: because it is like that", "y"]

    @pytest.mark.parametrize("columns", range(40, 130, 7))
    def test_width(self, wide, columns):
        wide(columns)
        heads = [*HEADS, Column("GMAC/s", right=True), Column("bound by", wraps=True)]
        rows = [(*row, 4.5, "the measured table: nothing larger was routed") for row in ROWS]
        lines = table(heads, rows, indent="  ")
        assert max(map(len, lines)) <= columns
        for line in lines:
            assert not line.endswith(" ")

    def test_heading_in_bold(self, monkeypatch, wide):
        wide(80)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        lines = table(HEADS, ROWS, Screen())
        assert lines[0].startswith("\x1b[1mname ") and "\x1b" not in lines[1]


def test_pairs(wide):
    wide(40)
    assert pairs([("a", "b"), ("longer", "one two three four five six seven eight")]) == [
        "  a       b",
        "  longer  one two three four five six",
        "          seven eight",
    ]
    assert pairs([]) == []
    long = "/a/path/that/must/stay/in/one/piece/to/be/copied"
    assert pairs([("a", long)], indent="") == [f"a  {long}"]


def test_fill():
    given = "one two\nthree\n\n  an   example\nexamples:\n  x\nfour"
    assert fill(given, 8) == "one two\nthree\n\n  an   example\nexamples:\n  x\nfour"
    assert fill("one two\nthree", 80) == "one two three"
    assert fill("/a/long/path/of/a/file", 8) == "/a/long/path/of/a/file"


def test_count():
    assert [count(n, "row") for n in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]


def test_loading_bar(monkeypatch):
    """One line, which is cleared at the end; nothing where nobody watches."""
    for stream, written in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        show = loading_bar("layer")
        show(1, 2)
        show(2, 2)
        shown = "\r\x1b[Klayer 1 of 2 …\r\x1b[K"
        assert stream.getvalue() == (shown if written else "")
