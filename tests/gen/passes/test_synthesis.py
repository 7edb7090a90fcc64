"""Synthesis with a stand-in for yosys."""

from pathlib import Path

import pytest

from tritloom.boards.families.ecp5 import ECP5
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.spec.errors import ToolError


class TestSynthesise:
    def run(self, errors: list[str], logged: list[str]) -> tuple[list[str], str]:
        scripts = []

        def yosys(arguments: list[str], folder: Path) -> None:
            assert (folder / "top.il").read_text() == "a design"
            script = arguments[-1].removeprefix("read_rtlil top.il; ")
            scripts.append(script.removesuffix("; write_json top.json"))
            if logged:
                (folder / arguments[arguments.index("-l") + 1]).write_text(logged.pop(0))
            if errors:
                raise ToolError(errors.pop(0))
            (folder / "top.json").write_text('{"modules": {"top": {"ports": {}, "cells": {}}}}')

        return scripts, synthesise("a design", "ecp5", yosys)

    def test_again_only_where_yosys_broke(self) -> None:
        assert self.run([], [])[0] == [ECP5.synthesis[0]]
        assert self.run(["yosys failed: Assert `x' failed"], [])[0] == list(ECP5.synthesis)
        for errors in (["no module"], ["Assert `x' failed", "Assert `x' failed"]):
            with pytest.raises(ToolError, match=f"^{errors[-1]}$"):
                self.run(errors, [])

    def test_error_in_the_log_only(self) -> None:
        said, broke = "yosys failed: no reason given", "a\nERROR: Assert `x' failed in y\n"
        assert self.run([said], [broke])[0] == list(ECP5.synthesis)
        with pytest.raises(ToolError, match=r"^yosys failed: ERROR: no module$"):
            self.run([said], ["ERROR: no module\n"])
        # The log of the first is no reason of the second's.
        with pytest.raises(ToolError, match=f"^{said}$"):
            self.run([said, said], [broke])

    @pytest.mark.parametrize("text", ["", '{"modules": {"top"', '{"modules": {}\n,'])
    def test_cut_netlist(self, text: str) -> None:
        """On a full disk yosys writes a part of the netlist and ends without an error."""

        def yosys(arguments: list[str], folder: Path) -> None:
            (folder / "top.json").write_text(text)

        with pytest.raises(
            ToolError, match=r"^top\.json was written only in part; is the disk of "
        ):
            synthesise("a design", "ecp5", yosys)
