import sys

from tritloom.gen.cli import main as cli
from tritloom.gen.cli import measures


def test_old_name(run):
    """The old name works and says that it is old."""
    status, out, err = run("bench", "engine", "--help")
    assert status == 0 and out.startswith("usage: tritloom measure engine ")
    note = "bench is now called measure; the old name goes with the next release"
    assert err == f"tritloom: {note}\n"
    assert "\n    bench " not in run("--help")[1]


def test_a_measurement_is_one_file(run, monkeypatch, tmp_path):
    """A new module in the folder is a new command; nothing else changes."""
    (tmp_path / "sample.py").write_text(
        "from tritloom.gen.cli.options import Help, add_command\n"
        "def add(commands):\n"
        "    add_command(commands, 'sample', Help('v', 'V.', '', ''), lambda options: 7)\n"
    )
    monkeypatch.setattr(measures, "__path__", [*measures.__path__, str(tmp_path)])
    assert cli.main(["measure", "sample"]) == 7
    monkeypatch.delitem(sys.modules, "tritloom.gen.cli.measures.sample")


def test_no_folder(run, tmp_path):
    """A file that could not be written is refused before the measurement."""
    file = tmp_path / "none" / "a.json"
    status, _, err = run(
        *("measure", "engine", "--family", "ecp5", "--engine", "select", "--output", file)
    )
    assert (status, err) == (
        1,
        f"tritloom: error: --output: there is no folder {file.parent}\n",
    )
