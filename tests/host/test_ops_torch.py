"""`offload(compile=True)`: one graph, and the results of the same layers without a graph."""

import os
from dataclasses import replace

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import pytest
import torch

from tests.host.test_mlp_torch import CONFIG, load
from tests.host.test_offload_torch import BITLINEAR, KINDS, SMALL, make_layer, make_llama
from tritloom.host import DeviceError, InputError, connect
from tritloom.host.torch import offload

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

torch.set_num_threads(1)

IDS = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(15))


@pytest.fixture(autouse=True)
def dynamo(monkeypatch):
    """The library's own layers were imported without it; what a test compiles has it."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    torch._dynamo.reset()


@pytest.fixture
def device():
    with connect("golden", config=SMALL) as device:
        yield device


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def compiled(model):
    """With one graph, or an error; the graph's operations run as they do without it."""
    return torch.compile(model, backend="aot_eager", fullgraph=True)


def number(module):
    return module.forward.__self__._number


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_and_exported(device, kind, dtype):
    model = make_llama(kind, norm=kind != BITLINEAR, bias=True, dtype=dtype)
    with offload(model, device):
        expected, single = logits(model), logits(model, IDS[:1, :3])
    with offload(model, device, compile=True, verify="always") as plan:
        assert torch.equal(logits(model), expected)
        run = compiled(model)
        assert torch.equal(logits(run), expected)
        assert torch.equal(logits(run, IDS[:1, :3]), single)
        with torch.no_grad():
            exported = torch.export.export(model, (IDS,), {"use_cache": False})
        nodes = [str(node.target) for node in exported.graph.nodes]
        assert nodes.count("tritloom.linear.default") == 14
        graph = exported.module()
        assert torch.equal(logits(graph), expected)
        assert {layer.calls for layer in plan.report().layers} == {4}
    with pytest.raises(InputError, match="q_proj: no device computes it now, as this graph"):
        logits(graph)
    with offload(model, device, compile=True), pytest.raises(InputError, match="no device"):
        logits(graph)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(device, kind, dtype):
    """The library's own judgement of the operation."""
    model = torch.nn.Sequential(make_layer(kind, (24, 40), norm=True, dtype=dtype))
    with offload(model, device, compile=True):
        for shape in ((3, 40), (2, 0, 40)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            arguments = (x, model[0].weight, number(model[0]))
            torch.library.opcheck(torch.ops.tritloom.linear.default, arguments)


def test_dtype_of_the_output_is_known_beforehand(device):
    """A float16 scale and bfloat16 activations make float32: the graph must say so."""
    layer = make_layer(BITLINEAR, (24, 40), dtype=torch.float16)
    model = torch.nn.Sequential(layer)
    x = torch.randn((3, 40), generator=torch.Generator().manual_seed(2)).bfloat16()
    expected = model(x)
    assert expected.dtype == torch.float32
    with offload(model, device, compile=True), torch.no_grad():
        assert torch.equal(model(x), expected)
        result = compiled(model)(x)
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)


def test_feed_forward_is_one_operation():
    model = load("bitlinear float32").model.layers[0]
    model = torch.nn.Sequential(model.mlp)
    x = torch.randn((2, 3, 256), generator=torch.Generator().manual_seed(3))
    with connect("golden", config=CONFIG) as device, torch.no_grad():
        expected = model(x)
        with offload(model, device, compile=True) as plan:
            assert torch.equal(compiled(model)(x), expected)
            exported = torch.export.export(model, (x,))
            nodes = [str(node.target) for node in exported.graph.nodes]
            assert [name for name in nodes if name.startswith("tritloom")] == [
                "tritloom.feed_forward.default"
            ]
            assert torch.equal(exported.module()(x), expected)
            assert plan.report().programs[0].calls == 2
            weights = [part.weight for part in model[0].children() if hasattr(part, "in_features")]
            torch.library.opcheck(
                torch.ops.tritloom.feed_forward.default, (x, weights, number(model[0]))
            )
            # If a layer inside is watched, the layers compute it, inside the same operation.
            seen = []
            model[0].up_proj.register_forward_hook(lambda *of_call: seen.append(of_call))
            assert torch.equal(compiled(model)(x), expected)
            assert [layer.calls for layer in plan.report().layers] == [1, 1, 1]
            assert len(seen) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_refused(device, kind):
    """When one is computed; a graph that only could compute one is no error."""
    layer = make_layer(kind, (24, 40))
    model = torch.nn.Sequential(layer)
    plain = torch.ones(3, 40)
    with offload(model, device, compile=True):
        expected = model(plain)
        for run in (model, compiled(model)):
            y = run(plain.clone().requires_grad_())
            assert torch.equal(y, expected)
            with pytest.raises(InputError, match=r"^0: a device computes this layer, without grad"):
                y.sum().backward()
            if layer.weight.is_floating_point():
                layer.weight.requires_grad_()
                y = run(plain)
                with pytest.raises(InputError, match=r"^0: a device computes this layer"):
                    y.sum().backward()
                layer.weight.requires_grad_(False)


def test_gradients_of_a_feed_forward_are_refused():
    model = torch.nn.Sequential(load("bitlinear float32").model.layers[0].mlp)
    x = torch.ones((3, 256), requires_grad=True)
    with connect("golden", config=CONFIG) as device, offload(model, device, compile=True):
        for run in (model, compiled(model)):
            with pytest.raises(InputError, match="0: a device computes this layer"):
                run(x).sum().backward()


def test_autocast_is_refused(device):
    model = torch.nn.Sequential(make_layer(BITLINEAR, (24, 40)))
    x = torch.ones(3, 40)
    with offload(model, device, compile=True), torch.no_grad():
        run = torch.compile(model, backend="aot_eager")
        run(x)
        for layer in (model, run):
            with (
                torch.autocast("cpu", torch.bfloat16),
                pytest.raises(InputError, match="autocast changes"),
            ):
                layer(x)
        run(x)


def test_a_wrong_sum_is_seen_in_the_graph(device, monkeypatch):
    model = torch.nn.Sequential(make_layer(BITLINEAR, (24, 40)))
    x = torch.ones(3, 40)
    with offload(model, device, compile=True, verify="always"), torch.no_grad():
        run = compiled(model)
        run(x)
        handle = model[0].forward.__self__.placed
        right = type(handle).matmul
        monkeypatch.setattr(type(handle), "matmul", lambda self, codes: right(self, codes) + 1)
        with pytest.raises(DeviceError, match="the device gave"):
            run(x)


def test_weights_written_after_the_graph_was_made_are_refused(device):
    model = torch.nn.Sequential(make_layer(BITLINEAR, (24, 40)))
    x = torch.ones(3, 40)
    with offload(model, device, compile=True), torch.no_grad():
        run = compiled(model)
        run(x)
        model[0].weight += 1
        with pytest.raises(InputError, match="the weight was moved, cast or written"):
            run(x)


def test_restored_layers_are_the_librarys_again(device):
    model = make_llama(BITLINEAR)
    expected = logits(model)
    with offload(model, replace_device := device, compile=True):
        run = compiled(model)
        assert torch.equal(logits(run), expected)
    assert replace_device.info.layers_used == 0
    assert torch.equal(logits(torch.compile(model, backend="aot_eager")), expected)
    with connect("golden", config=replace(SMALL, tokens=1)) as other, offload(model, other):
        assert torch.equal(logits(model), expected)
