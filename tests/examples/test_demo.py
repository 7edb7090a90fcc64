import os
import pty
import subprocess
import sys

from tests.support import ROOT, quick_first


def screen(output):
    """What a terminal shows: a carriage return goes back, ESC [K clears the rest of the line."""
    lines = []
    for raw in output.replace("\r\n", "\n").split("\n"):
        line = ""
        for number, part in enumerate(raw.split("\r")):
            clears = part.startswith("\x1b[K")
            text = part.removeprefix("\x1b[K")
            rest = "" if clears else line[len(text) :]
            line = text + rest if number else part
        lines.append(line)
    return lines


def on_a_terminal(arguments, columns):
    """What a command writes where standard output and standard error are one terminal."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave, close_fds=True
    )
    os.close(slave)
    chunks = []
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # Linux's end of a terminal
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    assert process.wait(60) == 0
    return b"".join(chunks).decode()


@quick_first("columns", [80, 100])
def test_terminal(columns):
    """The loading bar erases no word of the text, and nothing is wider than the terminal."""
    arguments = [sys.executable, "examples/demo.py", "--device", "golden", "--tokens", "12"]
    output = on_a_terminal(arguments, columns)
    assert "loading layer 1 of 8 …" in output
    lines = screen(output)
    assert "  She could not bear to be in the world." in lines
    assert not any("loading layer" in line for line in lines)
    starts = ("End to end, a token on Radiona", "link out, ", "RUN alone, ", "This computer's CPU")
    places = [
        next(n for n, line in enumerate(lines) if line.startswith(f"  {start}")) for start in starts
    ]
    assert places == sorted(places)
    assert max(map(len, lines)) <= columns
    assert lines[-2].startswith("All exact, in ")
