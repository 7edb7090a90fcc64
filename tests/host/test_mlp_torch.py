"""Feed-forwards of transformers on the vector unit: the floats that offload gives without it."""

import copy
import os
from dataclasses import replace

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.host import DeviceError, InputError, connect
from tritloom.host.torch import offload
from tritloom.host.vectors import ProgramHandle
from tritloom.rtl.spec.vector_facts import VectorConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

torch.set_num_threads(1)

TINYLM = ROOT / "models" / "tinylm"
REFERENCE = np.load(ROOT / "models" / "tinylm_reference.npz")
IDS = torch.tensor([REFERENCE["p0.ids"].tolist()])
BOARD = load_board("ulx3s-85f").build_config
CONFIG = replace(BOARD, vector=VectorConfig(words=3072, bfloat16=True))
AUTO, FLOAT32, BFLOAT16 = "autobitlinear", "bitlinear float32", "bitlinear bfloat16"
NAMES = ["model.layers.0.mlp", "model.layers.1.mlp"]


def load(kind):
    model = AutoModelForCausalLM.from_pretrained(TINYLM, dtype=torch.float32).eval()
    dtype = torch.bfloat16 if kind == BFLOAT16 else torch.float32
    if kind != AUTO:
        for name, module in list(model.named_modules()):
            if isinstance(module, AutoBitLinear):
                layer = BitLinear(module.in_features, module.out_features, bias=False, dtype=dtype)
                layer.weight = pack_weights(module.weight.detach().clone())
                layer.weight_scale = (1 / module.weight_scale).to(dtype)
                model.set_submodule(name, layer)
    return model.to(dtype)


@pytest.fixture
def model():
    return load(FLOAT32)


@pytest.fixture
def device():
    with connect("golden", config=CONFIG) as device:
        yield device


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("kind", [AUTO, FLOAT32, BFLOAT16])
def test_logits_are_bit_equal(device, kind):
    """To those without a unit, and, where the library sums integers, to the library's."""
    model = load(kind)
    with connect("golden", config=BOARD) as plain, offload(model, plain):
        expected, single = logits(model), logits(model, IDS[:, :1])
    if kind != AUTO:
        assert torch.equal(expected, logits(model))
    with offload(model, device, verify="always") as plan:
        assert torch.equal(logits(model), expected)
        assert torch.equal(logits(model, IDS[:, :1]), single)
        report = plan.report()
    assert [program.name for program in report.programs] == NAMES
    for program in report.programs:
        assert (program.calls, program.checks, program.tokens) == (2, 2, IDS.numel() + 1)
        assert program.where == "golden (program)"
        assert program.cycles > 0
        assert program.bytes_tx + program.bytes_rx < 2300 * program.tokens
    calls = {layer.name: layer.calls for layer in report.layers}
    assert {calls[f"{name}.{part}_proj"] for name in NAMES for part in ("gate", "down")} == {0}
    assert report.without_program == ()
    assert report.total.tokens == sum(each.tokens for each in (*report.layers, *report.programs))
    assert "golden (program)" in str(report)
    assert not any("forward" in vars(module) for module in model.modules())
    assert device.info.free_vector_words == 3072
    assert device.info.layers_used == 0


def test_without_a_unit(model):
    with connect("golden", config=BOARD) as device, offload(model, device) as plan:
        assert "forward" not in vars(model.model.layers[0].mlp)
        assert (plan.report().programs, plan.report().without_program) == ((), ())


def reasons(model, config=CONFIG, **options):
    with connect("golden", config=config) as device, offload(model, device, **options) as plan:
        report = plan.report()
        assert len(report.programs) + len(report.without_program) == 2
        for name, reason in report.without_program:
            assert f"no program for {name}: {reason}" in str(report)
        return dict(report.without_program)


def test_why_there_is_no_program(model):
    assert not reasons(model)
    first, second = NAMES
    assert reasons(model, match="*down_proj") == dict.fromkeys(
        NAMES, "gate_proj is not on the device"
    )
    pieces = replace(CONFIG, max_out_features=300)
    assert reasons(model, pieces) == dict.fromkeys(
        NAMES, "gate_proj is not on the device in one piece"
    )
    small = replace(CONFIG, vector=VectorConfig(words=1632))
    assert list(reasons(model, small)) == [second]
    assert reasons(model, small)[second].startswith("the vector memory has 1,632 words, but at")
    tiny = replace(CONFIG, vector=VectorConfig(words=512))
    assert list(reasons(model, tiny)) == [second, first]
    mlp = model.model.layers[0].mlp
    mlp.ffn_sub_norm.variance_epsilon = 1e-3
    assert reasons(model) == {second: "its sizes, eps or dtype differ from those of the first"}
    mlp.ffn_sub_norm.bfloat16()
    assert reasons(model) == {first: "its dtype is not float32 or bfloat16 throughout"}
    mlp.ffn_sub_norm.float()
    mlp.ffn_sub_norm = torch.nn.Identity()
    assert reasons(model) == {first: "its norm is not BitNetRMSNorm"}
    mlp.act_fn = torch.nn.ReLU()
    assert reasons(model) == {first: "its activation is not relu²"}
    mlp.forward = mlp.forward
    assert reasons(model) == {first: "its forward was replaced"}


def test_bfloat16_without_a_unit_for_it():
    config = replace(CONFIG, vector=VectorConfig(words=3072))
    assert reasons(load(BFLOAT16), config) == dict.fromkeys(
        NAMES, "bfloat16 needs BitLinear, and a vector unit with bfloat16"
    )


def test_bias():
    """`BitLinear` adds its bias last, as the program does; `AutoBitLinear` does not."""
    model = load(FLOAT32)
    for layer in model.model.layers:
        for part in (layer.mlp.gate_proj, layer.mlp.down_proj):
            del part.bias
            part.bias = torch.nn.Buffer(torch.linspace(-1, 1, part.out_features))
    expected = logits(model)
    config = replace(CONFIG, vector=VectorConfig(words=8192))
    with connect("golden", config=config) as device:
        plan = offload(model, device, verify="always")
        assert torch.equal(logits(model), expected)
        plan.restore()
        assert [program.calls for program in plan.report().programs] == [1, 1]
    model = load(AUTO)
    down = model.model.layers[1].mlp.down_proj
    down.bias = torch.nn.Parameter(torch.linspace(-1, 1, down.out_features), requires_grad=False)
    assert reasons(model) == {NAMES[1]: "a layer of AutoBitLinear has a bias"}


def watched(model):
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *arguments: None)


def renormed(model):
    with torch.no_grad():
        model.model.layers[0].mlp.ffn_sub_norm.weight[3] *= 2


def rescaled(model):
    model.model.layers[0].mlp.gate_proj.weight_scale *= 2


def huge(model):
    """The squares in the norm leave the unit's range; the library's output is finite."""
    model.model.layers[0].mlp.gate_proj.weight_scale *= 2.0**-40


@pytest.mark.parametrize("change", [watched, renormed, rescaled, huge])
def test_where_the_program_does_not_suit(model, device, change):
    """The layers are computed one by one: the floats are the library's."""
    if change is huge:
        change(model)
    with offload(model, device, verify="always") as plan:
        change(model) if change is not huge else None
        result = logits(model)
        calls = [program.calls for program in plan.report().programs]
    assert calls == [0, 1]
    assert torch.equal(result, logits(model))


def test_autocast_is_refused_as_by_layers(model, device):
    with offload(model, device), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(InputError, match="autocast changes the layer's arithmetic"):
            model.model.layers[0].mlp(torch.zeros(1, 1, 256))


def test_changed_weights_are_refused(model, device):
    with offload(model, device):
        model.model.layers[0].mlp.up_proj.weight += 0
        with pytest.raises(InputError) as caught:
            logits(model)
    assert str(caught.value) == (
        "model.layers.0.mlp: the weight was moved, cast or written since offload; "
        "restore() and offload again"
    )


@pytest.mark.parametrize("verify", ["first", "always"])
def test_verify_catches_a_wrong_float(model, device, monkeypatch, verify):
    run = ProgramHandle.run

    def wrong(self, routine, inputs, outputs):
        results = run(self, routine, inputs, outputs)
        results["y"].view(np.uint32)[1, 2] ^= 1
        return results

    with offload(model, device, verify=verify):
        monkeypatch.setattr(ProgramHandle, "run", wrong)
        with pytest.raises(DeviceError) as caught:
            logits(model)
    message = str(caught.value)
    assert message.startswith("model.layers.0.mlp: the device gave ")
    assert message.endswith(
        f", for token 1, position 2 (1 of {256 * IDS.numel()} floats are wrong); "
        "run the device's self-test"
    )


def test_gradients_and_copies_are_refused(model, device):
    with offload(model, device):
        x = torch.zeros(1, 256, requires_grad=True)
        y = model.model.layers[0].mlp(x)
        with pytest.raises(InputError, match="without gradient"):
            y.sum().backward()
        with pytest.raises(InputError, match="a device computes this layer; restore"):
            copy.deepcopy(model.model.layers[0].mlp)


def test_restore_under_another_replacement(model, device):
    plan = offload(model, device)
    mlp = model.model.layers[0].mlp
    ours = mlp.forward
    mlp.forward = lambda x: x
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp: forward was replaced again"):
        plan.restore()
    mlp.forward = ours
    plan.restore()
    assert "forward" not in vars(mlp)


@pytest.mark.slow
def test_on_the_simulated_device(model):
    """The preset's hardware gives the library's floats and ids."""
    expected = logits(model)
    with connect("sim?preset=bitlinear") as device:
        with offload(model, device, verify="always") as plan:
            assert torch.equal(logits(model), expected)
            ids = model.generate(IDS, max_new_tokens=16, do_sample=False, pad_token_id=0)
        report = plan.report()
    written = REFERENCE["p0.greedy_bitlinear"].tolist()
    assert ids[0].tolist() == written[: IDS.numel() + 16]
    assert [(program.calls, program.checks) for program in report.programs] == [(17, 17)] * 2
