import argparse

import pytest

from tritloom.gen.cli import options
from tritloom.rtl.spec.errors import ConfigError


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("007", 7)])
def test_whole(text, value):
    assert options.whole(1)(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "", "x", "²", "٣"])
def test_not_whole(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        options.whole(1)(text)
    assert str(error.value) == f"must be a whole number from 1, not {text!r}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--board", "icebreaker", "-o", ""],
        ["generate", "--config", "", "-o", "x"],
        ["build", "--board", "icebreaker", "-o", ""],
        ["auto", "--board", "icebreaker", "--model", "tinylm", "-o", ""],
        ["flash", ""],
        ["verify", ""],
        ["measure", "report", ""],
    ],
)
def test_empty_name(run, arguments):
    """An empty name would be the working directory."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].endswith(": must name a file or a folder, not ''")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"lanes":' * 100_000])
def test_deeply_nested(run, tmp_path, text):
    file = tmp_path / "deep.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        options.read_config(file)
    assert str(error.value).startswith(f"{file}: ")
    status, _, err = run("generate", "--config", file, "-o", tmp_path / "out")
    assert status == 1 and err.count("\n") == 1
