import json

from tests.support import ROOT
from tritloom.gen.plan import cpu_onnx
from tritloom.gen.plan.cpu import Cpu
from tritloom.gen.plan.shapes import SHAPES

KV260 = str(ROOT / "examples/platforms/kv260.toml")
KEYS = {
    *("tokens_per_second", "binds", "cpu_tokens_per_second", "faster", "fits", "platform"),
    *("model", "source", "context", "memory_bytes", "needed_bytes", "token_s", "parts_s"),
    *("layers", "total", "prefill", "sequences", "rest_on_host", "cpu", "cpu_methods"),
    *("cpu_missing", "config"),
}


def test_json(run):
    status, out, err = run("plan", "--platform", KV260, "--model", "tinylm", "--json")
    result = json.loads(out)
    assert (status, err) == (0, "") and set(result) == KEYS
    assert result["fits"] == "all" and result["cpu_tokens_per_second"] > 0
    assert result["sequences"]["tokens"] == 4 and result["prefill"]["tokens"] == 128
    assert result["rest_on_host"] is None
    assert result["cpu"] in result["cpu_methods"]
    assert result["cpu_methods"][0]["method"] == "NumPy, float32"
    each = sum(layer["seconds"] for layer in result["layers"])
    assert abs(each - result["total"]["seconds"]) < 1e-6


def test_a_model_that_does_not_fit(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = run("plan", "--board", "icebreaker", "--model", "tinylm", "--context", "9")
    assert (status, err) == (0, "")
    text = " ".join(out.split())
    assert text.startswith("tinylm on 1BitSquared iCEBreaker: ") and "It does not fit: " in text
    assert "The CPU is " in text and "gate_up_proj" in text
    assert "If this computer computes them instead: " in text


def test_the_methods_of_the_cpu(run, monkeypatch):
    """ONNX Runtime is measured where it is installed; else the answer says what is missing."""
    arguments = ("plan", "--platform", KV260, "--model", "tinylm", "--json")
    monkeypatch.setattr(cpu_onnx, "measure_onnx", lambda layers, tokens: None)
    result = json.loads(run(*arguments)[1])
    assert result["cpu_missing"] == cpu_onnx.MISSING and len(result["cpu_methods"]) == 1
    monkeypatch.setenv("COLUMNS", "100")
    text = " ".join(run(*arguments[:-1])[1].split())
    assert "ONNX Runtime is not installed; pip install onnxruntime to measure it too." in text
    fast = Cpu(name="A", tokens=1, macs=1, total_s=2.5e-6, method="ONNX Runtime 1, MatMulNBits")
    monkeypatch.setattr(cpu_onnx, "measure_onnx", lambda layers, tokens: fast)
    result = json.loads(run(*arguments)[1])
    assert result["cpu_missing"] is None and result["cpu"] == fast.to_dict()
    assert len(result["cpu_methods"]) == 2 and result["faster"] == "cpu"
    text = " ".join(run(*arguments[:-1])[1].split())
    assert "with NumPy, float32, 2.5 µs with ONNX Runtime 1, MatMulNBits." in text


def test_list(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run("plan", "--model", "list")
    names = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert status == 0 and names[1:] == list(SHAPES)
    status, out, _ = run("plan", "--model", "list", "--json")
    assert status == 0 and list(json.loads(out)) == list(SHAPES)


def test_errors(run):
    for arguments, message in (
        (("--model", "tinylm"), "name a board with --board, or give a file with --platform"),
        (("--board", "ulx3s-85f", "--model", "x"), "unknown model 'x'; give a folder"),
        (("--platform", KV260, "--preset", "a", "--model", "tinylm"), "--preset goes with --board"),
        (("--platform", "none.toml", "--model", "tinylm"), "none.toml: No such file"),
    ):
        status, _, err = run("plan", *arguments)
        assert status == 1 and message in err
