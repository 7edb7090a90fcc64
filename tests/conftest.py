"""What all tests share."""

import gc
import importlib.util
import os

import pytest

from tests.support import ROOT

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A design is a hundred thousand small objects that live until its test ends. With the usual
# threshold of 700 new objects the collector walks through them again and again, in vain.
gc.set_threshold(100_000, 20, 20)

# These import torch and transformers at their top; without both none of them can be selected.
HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def pytest_ignore_collect(collection_path, config):
    """Leave these files out where none of their tests is selected: torch imports slowly."""
    selection = config.getoption("markexpr")
    unwanted = not HAS_TORCH or "not torch" in selection
    return True if unwanted and collection_path.name.endswith("_torch.py") else None


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI what a test needs is there: a skip would hide that it is not."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command in the project's folder; gives its status, standard output and error."""
    from tritloom.gen.cli import main as cli

    monkeypatch.chdir(ROOT)

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run
