"""Offload against transformers without it: exact integers, the same ids, or a clear error."""

import copy
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

from tests.support import ROOT
from tritloom.host import (
    CapacityError,
    DeviceError,
    InputError,
    TernaryLayer,
    TritloomError,
    connect,
)
from tritloom.host.torch import offload, plan_offload
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

torch.set_num_threads(1)  # the layers are small

WEIGHTS = "model.safetensors"
MODELS = ROOT / "models"
REFERENCE = np.load(MODELS / "tinylm_reference.npz")
PROMPTS = [f"p{k}" for k in range(8)]
SMALL = AcceleratorConfig(
    lanes=10,
    rows=4,
    fill=5,
    tokens=2,
    memory=BlockRam(words=2048),
    max_in_features=200,
    max_out_features=200,
    max_layers=32,
    packet_bytes=256,
    slots=8,
)
BITLINEAR = "bitlinear"
OFFLINE = "autobitlinear offline"
ONLINE = "autobitlinear online"
KINDS = [BITLINEAR, OFFLINE, ONLINE]


def make_layer(kind, shape, *, bias=False, norm=False, dtype=torch.float32, seed=0):
    """One random layer of each class, in the library's own form."""
    out_features, in_features = shape
    random = torch.Generator().manual_seed(seed)
    full = torch.randn(out_features, in_features, generator=random) * 0.1
    trits = torch.randint(-1, 2, shape, generator=random).to(dtype)
    options = {"bias": bias, "dtype": dtype, "use_rms_norm": norm, "rms_norm_eps": 1e-5}
    if kind == BITLINEAR:
        layer = BitLinear(in_features, out_features, **options)
        layer.weight = pack_weights(trits.clone())
        layer.weight_scale.fill_(17.3)
    else:
        online = kind == ONLINE
        layer = AutoBitLinear(in_features, out_features, online_quant=online, **options)
        layer.weight.data = full.to(dtype) if online else trits
        if not online:
            layer.weight_scale.fill_(0.0573)
    if bias:
        layer.bias.data = torch.randn(out_features, generator=random).to(dtype)
    if norm:
        layer.rms_norm.weight.data = torch.rand(in_features, generator=random) + 0.5
        layer.rms_norm.to(dtype)
    return layer.requires_grad_(False)


def make_llama(kind, *, bias=False, norm=False, dtype=torch.float32):
    """A random Llama of two layers, all but its head of one class."""
    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=96,
        max_position_embeddings=128,
        attention_bias=bias,
        mlp_bias=bias,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config).to(dtype).eval()
    linear = [
        (name, module)
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for seed, (name, module) in enumerate(linear):
        shape = tuple(module.weight.shape)
        layer = make_layer(kind, shape, bias=bias, norm=norm, dtype=dtype, seed=seed)
        model.model.set_submodule(name, layer)
    return model


def load_tinylm(kind, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(MODELS / "tinylm", dtype=torch.float32)
    if kind == BITLINEAR:
        for name, module in list(model.named_modules()):
            if isinstance(module, AutoBitLinear):
                shape = module.in_features, module.out_features
                layer = BitLinear(*shape, bias=False, dtype=dtype)
                layer.weight = pack_weights(module.weight.detach().clone())
                layer.weight_scale = 1 / module.weight_scale
                model.set_submodule(name, layer)
    return model.to(dtype)


@pytest.fixture(scope="module")
def tinylm():
    return load_tinylm(OFFLINE)


@pytest.fixture(scope="module")
def tinylm_bitlinear():
    return load_tinylm(BITLINEAR)


@pytest.fixture
def device():
    with connect("golden") as device:
        yield device


@pytest.fixture
def small():
    with connect("golden", config=SMALL) as device:
        yield device


def generate(model, ids, **options):
    ids = torch.as_tensor(ids)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 16} | options
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None} | options
    return model.generate(ids, **options).tolist()


def corrupt(device, monkeypatch, token, row):
    """One sum of each product is one too large."""
    exact = device.matmul

    def matmul(handle, codes):
        sums = exact(handle, codes).copy()
        sums[token, row] += 1
        return sums

    monkeypatch.setattr(device, "matmul", matmul)


def record(device, monkeypatch):
    """The codes and sums of each product from now on."""
    products = []
    exact = device.matmul

    def matmul(handle, codes):
        sums = exact(handle, codes)
        products.append((codes.copy(), sums.copy()))
        return sums

    monkeypatch.setattr(device, "matmul", matmul)
    return products


def forwards(model):
    return {name: "forward" in vars(module) for name, module in model.named_modules()}


def untouched(model, device):
    words = device.info.config.memory_words
    return (
        not any(forwards(model).values())
        and device.info.free_words == words
        and device.info.layers_used == 0
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tinylm_greedy_ids(tinylm, device, prompt):
    """Those that transformers gave when the reference was written."""
    with offload(tinylm, device, verify="always") as plan:
        ids = generate(tinylm, [REFERENCE[f"{prompt}.ids"].tolist()], max_new_tokens=64)
    assert ids[0] == REFERENCE[f"{prompt}.greedy_autobitlinear"].tolist()
    report = plan.report()
    assert [(layer.calls, layer.checks) for layer in report.layers] == [(64, 64)] * 14
    assert untouched(tinylm, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sign_of_zero_of_one_feature(device, dtype):
    """One token or many, the zeros of the outputs have the library's sign."""
    model = torch.nn.Sequential(make_layer(BITLINEAR, (12, 1), dtype=dtype))
    x = torch.tensor([[-1.5], [0.0], [2.0]], dtype=dtype)
    for inputs in (x, x[:1], x.repeat(2, 1, 1)):
        expected = model(inputs)
        with offload(model, device, verify="always"):
            y = model(inputs)
        assert torch.equal(y, expected)
        assert torch.equal(torch.signbit(y), torch.signbit(expected))


def test_tinylm_bitlinear_logits_are_bit_equal(tinylm_bitlinear, device):
    ids = torch.tensor([REFERENCE["p0.ids"].tolist()])
    with torch.no_grad():
        expected = tinylm_bitlinear(ids).logits
        with offload(tinylm_bitlinear, device, verify="always"):
            assert torch.equal(tinylm_bitlinear(ids).logits, expected)


@pytest.mark.parametrize("kind", [BITLINEAR, OFFLINE])
def test_batch_with_left_padding(tinylm, tinylm_bitlinear, device, kind):
    model = tinylm if kind == OFFLINE else tinylm_bitlinear
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tinylm", padding_side="left")
    tokenizer.pad_token_id = 0
    texts = ["It was", "Emma could not think that", "She", "Mr. Knightley was to dine with them"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    assert (batch.attention_mask == 0).any()
    options = {"attention_mask": batch.attention_mask, "max_new_tokens": 32}
    expected = generate(model, batch.input_ids, **options)
    with offload(model, device, verify="always") as plan:
        assert generate(model, batch.input_ids, **options) == expected
    tokens = batch.input_ids.numel() + 4 * 31
    assert {layer.tokens for layer in plan.report().layers} == {tokens}


@pytest.mark.parametrize("kind", [BITLINEAR, OFFLINE])
def test_sampling_with_a_seed(tinylm, tinylm_bitlinear, device, kind):
    model = tinylm if kind == OFFLINE else tinylm_bitlinear
    options = {"do_sample": True, "temperature": 0.9, "top_k": 40, "max_new_tokens": 32}
    ids = [REFERENCE["p1.ids"].tolist()] * 2

    def sample(seed):
        torch.manual_seed(seed)
        return generate(model, ids, **options)

    expected = sample(3)
    assert sample(4) != expected
    with offload(model, device, verify="always"):
        assert sample(3) == expected


def test_cache_and_no_cache_agree(tinylm_bitlinear, device):
    ids = [REFERENCE["p2.ids"].tolist()]
    with offload(tinylm_bitlinear, device) as plan:
        with_cache = generate(tinylm_bitlinear, ids)
        cached = plan.report().total.tokens
        assert generate(tinylm_bitlinear, ids, use_cache=False) == with_cache
    assert plan.report().total.tokens > 5 * cached


@pytest.mark.parametrize("prompt", PROMPTS[:3])
def test_bfloat16_bitlinear_ids(device, prompt):
    model = load_tinylm(BITLINEAR, torch.bfloat16)
    ids = [REFERENCE[f"{prompt}.ids"].tolist()]
    expected = generate(model, ids, max_new_tokens=48)
    with offload(model, device, verify="always"):
        assert generate(model, ids, max_new_tokens=48) == expected


def test_bfloat16_checkpoint(tmp_path, device):
    """Written in bfloat16 and packed, as published checkpoints are; loaded as it is."""
    state = load_tinylm(BITLINEAR, torch.bfloat16).state_dict()
    del state["lm_head.weight"]
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / WEIGHTS)
    config = json.loads((MODELS / "tinylm" / "config.json").read_text())
    config["dtype"] = "bfloat16"
    config["quantization_config"]["linear_class"] = "bitlinear"
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    kinds = {type(module) for module in model.modules()}
    assert BitLinear in kinds
    assert AutoBitLinear not in kinds
    assert model.dtype == torch.bfloat16
    ids = [REFERENCE["p3.ids"].tolist()]
    expected = generate(model, ids, max_new_tokens=32)
    with offload(model, device, verify="always") as plan:
        assert generate(model, ids, max_new_tokens=32) == expected
    assert len(plan.report().layers) == 14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_llama(small, kind, bias, norm, dtype):
    model = make_llama(kind, bias=bias, norm=norm, dtype=dtype)
    ids = [[5, 9, 33, 2, 70], [11, 4, 4, 90, 8]]
    expected = generate(model, ids)
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits
        with offload(model, small, verify="always"):
            ours = model(torch.tensor(ids)).logits
            generated = generate(model, ids)
    if kind == BITLINEAR:
        assert torch.equal(ours, logits)
        assert generated == expected
    else:  # the library sums floats, in bfloat16 rounded ones: near, no more
        near = 1e-4 if dtype == torch.float32 else 0.05
        assert (ours - logits).abs().median() < near
    assert untouched(model, small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer(small, monkeypatch, kind, bias, norm, dtype):
    """Codes are the library's; outputs are its own too, or near where it sums floats."""
    layer = make_layer(kind, (12, 35), bias=bias, norm=norm, dtype=dtype)
    x = torch.randn(2, 7, 35, generator=torch.Generator().manual_seed(1)).to(dtype) * 4
    x[0, 1] = 0 if dtype != torch.float16 else 1
    x[1, 2] *= 100
    products = record(small, monkeypatch)
    expected = layer(x)
    with offload(layer, small, verify="always"):
        y = layer(x)
        assert layer(x[:, :0]).shape == (2, 0, 12)
        assert layer(x[0, 3]).shape == (12,)
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    normed = x if layer.rms_norm is None else layer.rms_norm(x)
    if kind == BITLINEAR:
        codes = layer.activation_quant(normed)[0]
        assert torch.equal(y, expected)
    else:
        values = normed.float()
        scale = 127 / values.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        codes = (values * scale).round().clamp(-128, 127).to(torch.int8)
        close = {torch.bfloat16: 5e-2, torch.float16: 5e-3}.get(dtype, 2e-5)
        assert torch.allclose(y, expected, rtol=close, atol=close * float(expected.abs().max()))
    assert (products[0][0] == codes.reshape(-1, 35).numpy()).all()


def test_bfloat16_codes_reach_minus_128(small, monkeypatch):
    """The quantizer rounds its scale to bfloat16, so that −128 occurs, and is computed."""
    layer = make_layer(BITLINEAR, (8, 64), dtype=torch.bfloat16)
    x = -torch.rand(200, 64, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    products = record(small, monkeypatch)
    expected = layer(x)
    with offload(layer, small, verify="always"):
        assert torch.equal(layer(x), expected)
    assert (products[0][0] == -128).any()


def test_online_weights_are_absmean(small):
    layer = make_layer(ONLINE, (12, 35))
    trits, scale = numerics.absmean_ternarize(layer.weight.numpy())
    with offload(layer, small) as plan:
        weights = plan._layers[0].weights
    assert (weights.trits == trits).all()
    assert np.isclose(weights.scale, scale, rtol=1e-6)


def test_scale_a_row(small):
    for kind in (BITLINEAR, OFFLINE):
        layer = make_layer(kind, (12, 35))
        layer.weight_scale = torch.linspace(0.5, 2, 12)
        x = torch.randn(3, 35, generator=torch.Generator().manual_seed(3))
        expected = layer(x)
        with offload(layer, small, verify="always"):
            assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("verify", ["first", "always"])
def test_verify_catches_a_wrong_sum(small, monkeypatch, verify):
    model = make_llama(BITLINEAR)
    corrupt(small, monkeypatch, token=3, row=17)
    with offload(model, small, verify=verify):
        with pytest.raises(DeviceError) as caught:
            model(torch.tensor([[5, 6, 7, 8]]))
    text = str(caught.value)
    assert re.fullmatch(
        r"model\.layers\.0\.self_attn\.q_proj: the device gave (-?\d+), not (-?\d+), for token 3, "
        r"row 17 \(1 of 128 sums are wrong\); run the device's self-test",
        text,
    )
    assert untouched(model, small)


@pytest.mark.parametrize(("verify", "raises"), [("first", False), ("always", True), ("off", False)])
def test_verify_modes_after_the_first_call(small, monkeypatch, verify, raises):
    layer = make_layer(BITLINEAR, (12, 35))
    x = torch.ones(2, 35)
    with offload(layer, small, verify=verify) as plan:
        layer(x)
        corrupt(small, monkeypatch, token=1, row=0)
        if raises:
            with pytest.raises(DeviceError, match="token 1, row 0"):
                layer(x)
        else:
            layer(x)
    assert plan.report().layers[0].calls == 2
    assert plan.report().layers[0].checks == (0 if verify == "off" else 1)


def test_match(small):
    model = make_llama(BITLINEAR)
    names = [name for name, module in model.named_modules() if isinstance(module, BitLinear)]
    mlp = [name for name in names if ".mlp." in name]
    for match in ("*.mlp.*", re.compile(r"\bmlp\b"), lambda name: ".mlp." in name):
        with offload(model, small, match=match) as plan:
            assert [layer.name for layer in plan.report().layers] == mlp
            assert sorted([*plan.report().not_offloaded, *mlp]) == sorted(names)
            assert [name for name, generated in forwards(model).items() if generated] == mlp


def test_report(small):
    model = make_llama(BITLINEAR)
    with offload(model, small, match="*_proj") as plan:
        model(torch.tensor([[5, 6, 7]]))
        model(torch.tensor([[5, 6]]))
        during = plan.report()
    report = plan.report()
    assert report == during
    layer = report.layers[-1]
    assert layer.name == "model.layers.1.mlp.down_proj"
    assert (layer.out_features, layer.in_features, layer.where) == (40, 64, "golden")
    assert (layer.calls, layer.tokens, layer.checks) == (2, 5, 1)
    assert min(layer.cycles, layer.bytes_tx, layer.bytes_rx, layer.seconds) > 0
    assert report.total.tokens == 14 * 5
    assert json.loads(report.to_json()) == report.to_dict()
    assert report.to_dict()["layers"][-1]["cycles"] == layer.cycles
    lines = str(report).splitlines()
    assert len(lines) == 16
    assert lines[0].split()[:4] == ["layer", "shape", "where", "calls"]
    assert lines[-2].split()[:5] == [layer.name, "40×64", "golden", "2", "5"]
    assert lines[-1].split()[:3] == ["total", "28", "70"]


def test_module_and_state_stay(small):
    """A module keeps its identity, class, weights, hooks and keys."""
    model = make_llama(BITLINEAR)
    modules, keys = dict(model.named_modules()), list(model.state_dict())
    seen = []
    hook = model.model.layers[0].mlp.up_proj.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape)
    )
    with offload(model, small):
        assert dict(model.named_modules()) == modules
        assert list(model.state_dict()) == keys
        model(torch.tensor([[5, 6, 7]]))
    hook.remove()
    assert seen == [(1, 3, 64)]


def test_restore_without_with(small):
    model = make_llama(BITLINEAR)
    plan = offload(model, small)
    assert sum(forwards(model).values()) == 14
    plan.restore()
    plan.restore()
    assert untouched(model, small)


def test_restore_on_an_exception(small):
    model = make_llama(BITLINEAR)
    with pytest.raises(ZeroDivisionError), offload(model, small):
        raise ZeroDivisionError
    assert untouched(model, small)


def test_restore_after_the_device_closed(small):
    model = make_llama(BITLINEAR)
    with offload(model, small):
        small.close()
        with pytest.raises(DeviceError, match=r"^model\.layers\.0\.self_attn\.q_proj: "):
            model(torch.tensor([[5]]))
    assert not any(forwards(model).values())


def test_restore_under_another_replacement(small):
    model = make_llama(BITLINEAR)
    plan = offload(model, small)
    module = model.model.layers[0].mlp.up_proj
    ours = module.forward
    module.forward = lambda x: ours(x)
    with pytest.raises(InputError, match=r"^model\.layers\.0\.mlp\.up_proj: forward was replaced"):
        plan.restore()
    assert sum(forwards(model).values()) == 1
    with pytest.raises(InputError, match=r"^model\.layers\.0\.mlp\.up_proj: .*unloaded"):
        model(torch.tensor([[5]]))
    module.forward = ours
    plan.restore()
    assert untouched(model, small)


def test_copies_are_refused(small):
    model = make_llama(BITLINEAR)
    message = r"^model\.layers\.0\.self_attn\.q_proj: .* restore\(\) before a copy"
    with offload(model, small):
        with pytest.raises(InputError, match=message):
            copy.deepcopy(model)
    copied = copy.deepcopy(model)
    with offload(copied, small):
        copied(torch.tensor([[5]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.to(torch.bfloat16),
        lambda layer: layer.weight.add_(1),
        lambda layer: layer.load_state_dict(layer.state_dict()),
        lambda layer: setattr(layer, "weight", torch.nn.Parameter(layer.weight.clone())),
        lambda layer: layer.share_memory(),
    ],
    ids=["cast", "written", "loaded", "exchanged", "moved"],
)
def test_changed_weights_are_refused(small, change):
    layer = make_layer(OFFLINE, (12, 35))
    with offload(layer, small):
        layer(torch.ones(1, 35))
        layer.to("cpu").eval()
        layer(torch.ones(1, 35))
        change(layer)
        with pytest.raises(InputError, match=r"^AutoBitLinear: the weight was moved, cast or wri"):
            layer(torch.ones(1, 35))
    assert untouched(layer, small)


@pytest.mark.parametrize("verify", ["first", "always", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_written_in_inference_mode_are_refused(small, kind, verify):
    """torch does not count the writes to tensors that were made in inference mode."""
    with torch.inference_mode():
        layer = make_layer(kind, (12, 35))
        layer.weight = layer.weight.clone() if kind == BITLINEAR else layer.weight
        other = make_layer(kind, (12, 35), seed=1)
        x = torch.ones(1, 35)
        with offload(layer, small, verify=verify):
            layer(x)
            layer.weight.copy_(other.weight)
            with pytest.raises(InputError, match=r"Linear: the weight was moved, cast or written"):
                layer(x)
        expected = other(x)
        with offload(layer, small, verify=verify):
            assert torch.allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_made_before_and_written_in_inference_mode_are_refused(small, kind):
    layer = make_layer(kind, (12, 35))
    with torch.inference_mode(), offload(layer, small):
        layer(torch.ones(1, 35))
        layer.weight.zero_()
        with pytest.raises(InputError, match=r"Linear: the weight was moved, cast or written"):
            layer(torch.ones(1, 35))


def test_verify_always_sees_what_is_written_through_data(small):
    layer = make_layer(OFFLINE, (12, 35))
    with offload(layer, small, verify="always"):
        layer(torch.ones(1, 35))
        layer.weight.data.neg_()
        with pytest.raises(InputError, match=r"^AutoBitLinear: the weight was moved, cast or wri"):
            layer(torch.ones(1, 35))


def test_an_interrupt_leaves_the_offload_working(small):
    """At every 97th line that the driver and the golden device execute."""
    layer = make_layer(BITLINEAR, (12, 35))
    x = torch.randn(3, 35, generator=torch.Generator().manual_seed(4))
    expected = layer(x)
    trace = sys.gettrace()
    files = tuple(
        f"/{name}.py" for name in ("reference", "session", "device", "handle", "job", "torch")
    )

    def interrupt_at(line):
        left = line

        def tracer(frame, event, argument):
            nonlocal left
            if not (frame.f_code.co_filename.endswith(files) and "site-packages" not in str(frame)):
                return None
            left -= event == "line"
            if event == "line" and left == 0:
                raise KeyboardInterrupt
            return tracer

        return tracer

    with offload(layer, small, verify="always"):
        line, interrupted = 0, True
        while interrupted:
            line += 97
            interrupted = False
            try:
                sys.settrace(interrupt_at(line))
                layer(x)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.settrace(trace)
            assert torch.equal(layer(x), expected)
        assert line > 400
    assert untouched(layer, small)


def test_threads_take_turns(small):
    layer = make_layer(BITLINEAR, (12, 35))
    inputs = [torch.randn(2, 35, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    expected = [layer(x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(8):
            if not torch.equal(layer(inputs[i]), expected[i]):
                wrong.append(i)

    with offload(layer, small, verify="always") as plan:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    report = plan.report().layers[0]
    assert (report.calls, report.checks, report.tokens) == (32, 32, 64)


def test_tensors_given_to_the_device_itself(small):
    """bfloat16, and tensors that want a gradient, as any other array of floats."""
    layer = TernaryLayer.from_trits(np.ones((4, 10), np.int8), 1.0)
    handle = small.load(layer)
    x = torch.randn(2, 10, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = small.linear(handle, x.float().numpy())
    for given in (x, x.float().requires_grad_(), x.clone().requires_grad_()):
        assert np.array_equal(small.linear(handle, given), y)
    codes = torch.ones(2, 10, dtype=torch.int8)
    assert (small.matmul(handle, codes) == 10).all()
    for wrong in (x.to_sparse(), x.to("meta"), torch.ones(2, 10, dtype=torch.complex64)):
        with pytest.raises(InputError, match=r"^x must be "):
            small.linear(handle, wrong)


def test_gradients_are_refused(small):
    layer = make_layer(ONLINE, (12, 35)).requires_grad_(True)
    with offload(layer, small):
        y = layer(torch.ones(1, 35))
        with pytest.raises(InputError, match=r"^AutoBitLinear: .* without gradient"):
            y.sum().backward()
    layer(torch.ones(1, 35)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_that_are_not_finite(small, kind, value):
    layer = make_layer(kind, (12, 35))
    x = torch.ones(2, 3, 35)
    x[1, 2, 30] = value
    with offload(layer, small), pytest.raises(InputError) as caught:
        layer(x)
    name = type(layer).__name__
    assert str(caught.value) == f"{name}: activations must be finite, not {value} at [1, 2, 30]"


def test_scales_that_are_not_finite(small):
    """In float16 the library's scale of a zero token is inf, and its codes undefined."""
    layer = make_layer(BITLINEAR, (12, 35), dtype=torch.float16)
    with offload(layer, small):
        with pytest.raises(InputError, match=r"scales of activations in torch.float16 must be fin"):
            layer(torch.zeros(1, 35, dtype=torch.float16))


def test_activations_of_the_wrong_kind(small):
    layer = make_layer(OFFLINE, (12, 35))
    with offload(layer, small):
        for x, message in [
            (torch.ones(2, 35, dtype=torch.int32), "must be floating point, not torch.int32"),
            (torch.ones(2, 36), r"must have 35 features, not \(2, 36\)"),
            (torch.ones(2, 35).bfloat16(), "are torch.bfloat16 and weights torch.float32"),
        ]:
            with pytest.raises(InputError, match=f"^AutoBitLinear: activations {message}"):
                layer(x)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="autocast"):
            layer(torch.ones(2, 35))


class OtherBitLinear(torch.nn.Linear):
    pass


class DerivedBitLinear(AutoBitLinear):
    pass


def code_three(layer):
    layer.weight[1, 2] = 0b11000000


def not_ternary(layer):
    layer.weight[3, 4] = 0.5


def grouped(layer):
    layer.weight_scale = torch.ones(3)


def zero_scale(layer):
    layer.weight_scale.zero_()


def not_packed(layer):
    layer.weight = torch.zeros(3, 35, dtype=torch.int8)


def unpacked(layer):
    layer.weight = torch.zeros(12, 35, dtype=torch.uint8)


def padded(layer):
    layer.out_features = 14


def not_finite(layer):
    layer.weight[0, 0] = float("nan")


def on_meta(layer):
    layer.weight = torch.nn.Parameter(layer.weight.to("meta"))


def integer_weight(layer):
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.uint8), requires_grad=False)


def hooked(layer):
    layer.forward = layer.forward


def no_dtype(layer):
    layer.dtype = None


REFUSALS = [
    (BITLINEAR, code_three, r"weight has code 3 at \[10, 2\], codes are 0, 1 or 2"),
    (BITLINEAR, grouped, r"scale must have shape \(\) or \(12,\), not \(3,\)"),
    (BITLINEAR, zero_scale, "scale must not be 0 where it divides"),
    (BITLINEAR, not_packed, r"weight must be packed, .* not torch\.int8 \(3, 35\) for 12 × 35"),
    (BITLINEAR, unpacked, r"weight must be packed, .* not torch\.uint8 \(12, 35\) for 12 × 35"),
    (BITLINEAR, padded, r"weight must be packed, .* not torch\.uint8 \(3, 35\) for 14 × 35"),
    (BITLINEAR, no_dtype, "dtype must be floating point, not None"),
    (BITLINEAR, hooked, "its forward was replaced"),
    (OFFLINE, not_ternary, r"weights must be -1, 0 or 1, not 0\.5 at \[3, 4\]"),
    (OFFLINE, grouped, r"scale must have shape \(\) or \(12,\), not \(3,\)"),
    (OFFLINE, on_meta, "its weight is on the meta device"),
    (OFFLINE, integer_weight, "weight must be floating point, not torch.uint8"),
    (ONLINE, not_finite, r"weights must be finite, not nan at \[0, 0\]"),
]


@pytest.mark.parametrize(
    ("kind", "spoil", "message"), REFUSALS, ids=[f"{k}-{s.__name__}" for k, s, _ in REFUSALS]
)
def test_refusals(small, kind, spoil, message):
    """Nothing is replaced or loaded, also of the layers before; the bad one is named."""
    bad = make_layer(kind, (12, 35))
    spoil(bad)
    model = torch.nn.ModuleDict({"good": make_layer(kind, (12, 35)), "bad": bad})
    before = forwards(model)
    with pytest.raises(TritloomError, match=f"^bad: {message}"):
        offload(model, small)
    assert forwards(model) == before
    assert small.info.layers_used == 0
    with offload(model, small, match="good"):
        model["good"](torch.ones(1, 35))


@pytest.mark.parametrize("other", [OtherBitLinear(35, 12), DerivedBitLinear(35, 12)])
def test_unknown_classes(small, other):
    model = torch.nn.ModuleDict({"good": make_layer(OFFLINE, (12, 35)), "other": other})
    with pytest.raises(InputError, match=rf"^other: class .*\.{type(other).__name__} is not one"):
        offload(model, small)
    assert untouched(model, small)
    with offload(model, small, match="good") as plan:
        assert plan.report().not_offloaded == ("other",)
        assert str(plan.report()).endswith("\nleft to torch: other")


def test_wrong_arguments(small):
    model = make_llama(BITLINEAR)
    with pytest.raises(InputError, match='verify must be "first", "always" or "off", not \'on\''):
        offload(model, small, verify="on")
    with pytest.raises(InputError, match='fit must be "all" or "layers", not True'):
        offload(model, small, fit=True)
    with pytest.raises(InputError, match=r"match must be a glob, .* not int"):
        offload(model, small, match=3)
    with pytest.raises(InputError, match="no BitLinear layer matches; the model has 14, such as"):
        offload(model, small, match="lm_head")
    with pytest.raises(InputError, match="no BitLinear layer matches; the model has none"):
        offload(torch.nn.Linear(2, 2), small)
    with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module, not str"):
        offload("tinylm", small)
    with pytest.raises(InputError, match="device must be what connect returned, not str"):
        offload(model, "golden")
    with offload(model, small), pytest.raises(InputError, match="computes this layer already"):
        offload(model, small, match="*up_proj")
    assert untouched(model, small)


def test_too_large_a_model(tinylm):
    """Refused before anything is loaded, with the remedy."""
    with connect("golden", config=SMALL) as device:
        message = (
            r"^the model does not fit the device, model\.layers\.\d\.\S+ \(\d+ × \d+\) is too much "
            r'for its 2,048 words and 32 layer slots; give fit="layers" \(--fit layers\)'
        )
        with pytest.raises(CapacityError, match=message):
            offload(tinylm, device)
        assert untouched(tinylm, device)


def test_layers_that_do_not_fit_stay_in_torch(tinylm):
    """Whole layers, and pieces of one: every sum is compared, and the ids are the library's."""
    with connect("golden", config=SMALL) as device:
        with offload(tinylm, device, fit="layers", verify="always") as plan:
            ids = generate(tinylm, [REFERENCE["p0.ids"].tolist()], max_new_tokens=24)
            report = plan.report()
        expected = REFERENCE["p0.greedy_autobitlinear"].tolist()
        assert ids[0] == expected[: len(ids[0])]
        assert untouched(tinylm, device)
    assert len(report.layers) + len(report.not_offloaded) == 14
    assert report.layers
    assert report.not_offloaded
    assert tuple(layer.name for layer in report.on_host) == report.not_offloaded
    for layer in report.on_host:
        assert layer.where == "host" and layer.cycles == layer.bytes_tx == layer.checks == 0
        assert (layer.calls, layer.tokens) == (report.layers[0].calls, report.layers[0].tokens)
        assert layer.seconds > 0
    assert report.host_seconds == sum(layer.seconds for layer in report.on_host)
    assert report.total.calls == sum(layer.calls for layer in report.layers)
    table = str(report)
    assert f"\n{len(report.on_host)} layers that did not fit took torch " in table
    assert all(f"\n{layer.name} " in table for layer in report.on_host)
    assert report.to_dict()["host_seconds"] == report.host_seconds
    calls = report.on_host[0].calls
    generate(tinylm, [REFERENCE["p0.ids"].tolist()], max_new_tokens=1)
    assert plan.report().on_host[0].calls == calls  # the hooks are gone
    assert all(layer.checks == layer.calls > 0 for layer in report.layers)
    assert all(layer.cycles > 0 for layer in report.layers)
    placement = plan_offload(SMALL, tinylm)
    assert {layer.name for layer in report.layers} == {x.name for x in placement.load_order}
    split = [layer.name for layer in placement.layers if layer.where == "device and host"]
    for layer in report.layers:
        assert layer.where.startswith("golden")
        assert layer.where.endswith("%)") == (layer.name in split)
    assert split


def test_not_even_a_part_fits(tinylm):
    with connect("golden", config=replace(SMALL, memory=BlockRam(words=10))) as device:
        with pytest.raises(CapacityError, match="no part of the model fits the device, not even"):
            offload(tinylm, device, fit="layers")
        assert untouched(tinylm, device)


def test_a_device_that_fails_while_loading(small, monkeypatch):
    model = make_llama(BITLINEAR)
    load, calls = small.load, []

    def failing(layer):
        calls.append(layer)
        if len(calls) == 5:
            raise DeviceError("gone")
        return load(layer)

    monkeypatch.setattr(small, "load", failing)
    with pytest.raises(DeviceError, match=r"^model\.layers\.0\.mlp\.gate_proj: gone$"):
        offload(model, small)
    assert untouched(model, small)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_missing_package(missing):
    program = f"""
import sys
sys.modules[{missing!r}] = None
from tritloom.rtl.spec.errors import ToolError
try:
    import tritloom.host.torch
except ToolError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.startswith("tritloom.host.torch needs torch and transformers 5 ("), ran.stderr
    assert "run pip install " in ran.stdout and "[torch]" in ran.stdout


@pytest.mark.sim
def test_llama_on_the_simulated_device():
    model = make_llama(BITLINEAR, bias=True, norm=True)
    ids = [[5, 9, 33, 2, 70]]
    expected = generate(model, ids)
    with connect("sim", config=SMALL) as device:
        with offload(model, device, verify="always") as plan:
            assert generate(model, ids) == expected
    assert plan.report().total.cycles > 0


@pytest.mark.sim
@pytest.mark.slow
def test_tinylm_on_the_simulated_device(tinylm):
    with connect("sim") as device, offload(tinylm, device, verify="always"):
        for prompt in PROMPTS:
            ids = generate(tinylm, [REFERENCE[f"{prompt}.ids"].tolist()], max_new_tokens=64)
            assert ids[0] == REFERENCE[f"{prompt}.greedy_autobitlinear"].tolist()
