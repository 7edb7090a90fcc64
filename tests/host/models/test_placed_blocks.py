"""Models whose blocks run on the reference device's vector unit: the bits of the NumPy runtime."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.programs import same_bits
from tritloom.boards.board import load_board
from tritloom.host import DeviceError, InputError, connect
from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.models import run as module
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.placed_blocks import PlacedBlocks, plan_blocks
from tritloom.host.models.run import run_model
from tritloom.host.placement import load_placed, place_layers
from tritloom.host.vectors import ProgramHandle
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_facts import VectorConfig

TINYLM = ROOT / "models" / "tinylm"
REFERENCE = np.load(ROOT / "models" / "tinylm_reference.npz")
IDS = REFERENCE["p0.ids"].tolist()
BOARD = load_board("ulx3s-85f").build_config


def config_of(words: int) -> AcceleratorConfig:
    return replace(BOARD, vector=VectorConfig(words=words))


CONFIG = config_of(4096)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(TINYLM)


def changed(checkpoint: Checkpoint, **config: object) -> Checkpoint:
    merged = checkpoint.config | config
    return Checkpoint(checkpoint.path, merged, None, checkpoint.layers, checkpoint.tensors)


def plan_of(config, model):
    shapes = {name: layer.trits.shape for name, layer in model.layers.items()}
    return plan_blocks(config, model, place_layers(config, shapes))


@contextmanager
def on_device(
    checkpoint: Checkpoint, config: AcceleratorConfig = CONFIG, verify: str = "off"
) -> Iterator[tuple[BitNetModel, PlacedBlocks]]:
    """A model whose layers and blocks a reference device computes."""
    placements = {}
    model = BitNetModel(checkpoint, lambda name, layer, x: placements[name].linear(x))
    with connect("golden", config=config) as device:
        shapes = {name: layer.trits.shape for name, layer in model.layers.items()}
        placement = place_layers(config, shapes)
        for layer in placement.load_order:
            placements[layer.name] = load_placed(device, model.layers[layer.name], layer)
        plan = plan_blocks(config, model, placement)
        handles = {name: placed.handle for name, placed in placements.items()}
        yield model, PlacedBlocks.load(device, model, plan, handles, verify)


FORMS = {
    "resident": ({}, 4128, "blocks"),
    "in pieces": ({}, 4096, "blocks"),
    "no final norm": ({}, 3648, "blocks"),
    "silu": ({"hidden_act": "silu"}, 4128, "blocks"),
    "without sub-norms": ({"model_type": "llama"}, 4128, "blocks"),
    "feed-forward": ({}, 2880, "feed_forward"),
    "one feed-forward": ({}, 2112, "feed_forward"),
}
QUICK = ("resident",)


@pytest.mark.parametrize(
    ("options", "words", "form"),
    [
        pytest.param(*values, id=name, marks=[] if name in QUICK else pytest.mark.sim)
        for name, values in FORMS.items()
    ],
)
def test_logits_are_the_runtimes(checkpoint, options, words, form):
    """Of several tokens at once, and of single tokens behind them."""
    source = changed(checkpoint, **options)
    with on_device(source, config_of(words), "always") as (model, blocks):
        assert blocks.plan.form == form
        host = BitNetModel(source)
        assert same_bits(model.logits(IDS), host.logits(IDS))
        for each in (IDS[:1], IDS[1:3]):
            assert list(model.generate(each, 3)) == list(host.generate(each, 3))
        assert blocks.compared > 0


@pytest.mark.sim
def test_greedy_ids_and_bytes(monkeypatch):
    """At most 9,000 bytes a token, since the hidden vector stays on the device."""
    connect = module.connect
    monkeypatch.setattr(module, "known_config", lambda url: None)
    monkeypatch.setattr(module, "connect", lambda url: connect(url, config=config_of(4128)))
    results = [
        run_model(TINYLM, "golden", str(REFERENCE["p0.prompt"]), count, verify="first")
        for count in (3, 9)
    ]
    expected = REFERENCE["p0.greedy_bitlinear"].tolist()
    for result in results:
        written = [*result.prompt_ids, *result.ids]
        assert written == expected[: len(written)]
    short, long = (result.timing for result in results)
    assert (long.bytes - short.bytes) / 6 == 8872
    assert long.run_cycles - short.run_cycles == 6 * 4872
    assert (long.program_cycles - short.program_cycles) % 6 == 0
    use = results[0].blocks
    assert use.token_bytes == 8872
    assert use.token_cycles == (long.program_cycles - short.program_cycles) // 6
    assert use.form == "blocks"
    assert [routine.name for routine in use.routines] == ["begin", "block 0", "block 1"]
    tokens = len(IDS) + 2
    assert [routine.executions for routine in use.routines] == [tokens] * 3
    assert {(layer.tokens, layer.runs, layer.bytes) for layer in results[0].layers} == {
        (tokens, tokens, 0)
    }
    assert use.compared == len(IDS) * (3 * 256 + 2 * 512 + 256)
    assert results[0].to_dict()["blocks"]["form"] == "blocks"
    assert str(use.summary) == (
        "Floats on the device: norms, codes and scales, residuals, activation; "
        "on the host: embedding, rotation, attention, head."
    )


def reason(checkpoint, config=CONFIG, **options):
    plan = plan_of(config, BitNetModel(checkpoint, **options))
    return plan.form, plan.reason, str(plan)


def test_why_not_on_the_device(checkpoint):
    none = ("none", "the device has no vector unit")
    assert reason(checkpoint, BOARD)[:2] == none
    assert reason(checkpoint, BOARD)[2] == f"All floats on the host ({none[1]})."
    form, why, _ = reason(checkpoint, fuse=False)
    assert form == "none"
    assert why.startswith("model.layers.0.self_attn.qkv_proj is not one ternary layer")
    form, why, _ = reason(checkpoint, config_of(3648))
    assert (form, why) == ("blocks", "the vector memory has no room for the final norm")
    form, why, line = reason(checkpoint, config_of(2880))
    assert form == "feed_forward"
    assert why.startswith("the vector memory has 2,880 words, but at least 3,425 are needed: ")
    assert "feed-forward with its norms and residual; on the host: embedding, " in line
    form, why, line = reason(checkpoint, config_of(2112))
    assert "feed-forward with its norms and residual of blocks 0; on the host" in line
    assert reason(checkpoint, config_of(512))[0] == "none"
    assert reason(changed(checkpoint, hidden_act="silu"), config_of(512))[0] == "none"


def test_layers_that_are_not_on_the_device(checkpoint):
    """Blocks need all layers; a feed-forward needs its own."""
    words = 2 * (512 + 1024 + 256 + 512) // 4 * 256 // 65
    small = replace(CONFIG, memory=BlockRam(words=words - 800))
    plan = plan_of(small, BitNetModel(checkpoint))
    assert plan.form == "feed_forward"
    assert plan.reason.endswith(" is not on the device in one piece")
    pieces = replace(CONFIG, max_out_features=500)
    plan = plan_of(pieces, BitNetModel(checkpoint))
    assert (plan.form, plan.reason) == (
        "none",
        "model.layers.0.self_attn.qkv_proj is not on the device in one piece",
    )


@pytest.mark.sim
@pytest.mark.parametrize("words", [4128, 2880])
def test_wrong_floats_are_noticed(checkpoint, monkeypatch, words):
    """In any output of any routine, by one bit."""
    run = ProgramHandle.run
    wrong: list[tuple[str, str]] = []

    def flipped(self, routine, inputs, outputs):
        results = run(self, routine, inputs, outputs)
        for name in outputs:
            if (routine, name) not in wrong:
                wrong.append((routine, name))
                results[name].view(np.uint32)[-1, 7] ^= 1
                break
        return results

    monkeypatch.setattr(ProgramHandle, "run", flipped)
    with on_device(checkpoint, config_of(words), "always") as (model, _):
        for _ in range(6 if words == 4128 else 2):
            with pytest.raises(DeviceError) as caught:
                model.logits(IDS)
            assert str(caught.value).startswith(f"{wrong[-1][0]}")
            assert "token 3, position 7 (1 of " in str(caught.value)
        host = BitNetModel(checkpoint)
        assert same_bits(model.logits(IDS), host.logits(IDS))


@pytest.mark.sim
def test_verify_first_and_off(checkpoint):
    for words in (4128, 2880):
        compared = {}
        for verify in ("off", "first", "always"):
            with on_device(checkpoint, config_of(words), verify) as (model, blocks):
                compared[verify] = [model.logits(IDS[:1]) is None or blocks.compared]
                compared[verify] += [model.logits(IDS[:1]) is None or blocks.compared]
        once = compared["first"][0]
        assert once > 0
        assert compared == {"off": [0, 0], "first": [once] * 2, "always": [once, 2 * once]}


@pytest.mark.parametrize("words", [4096, 2880])
@pytest.mark.parametrize("tokens", [1, 3])
def test_numbers_that_are_not_finite(checkpoint, words, tokens):
    """The host computes such tokens, and the device those behind them."""
    scale = np.ones((512, 1), np.float32)
    scale[100] = 2.0**64
    tensors = dict(checkpoint.tensors)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * scale
    if "lm_head.weight" in tensors:
        tensors["lm_head.weight"] = checkpoint.tensors["lm_head.weight"]
    source = Checkpoint(checkpoint.path, checkpoint.config, None, checkpoint.layers, tensors)
    with on_device(source, config_of(words)) as (model, blocks):
        host = BitNetModel(source)
        ids = [100, 28, 64][:tokens]
        with np.errstate(all="ignore"):
            assert same_bits(model.logits(ids), host.logits(ids))
        assert blocks.left_to_host == tokens * (1 if words == 4096 else 2)
        assert same_bits(model.logits(IDS), host.logits(IDS))
        assert blocks.left_to_host == tokens * (1 if words == 4096 else 2)


@pytest.mark.parametrize("words", [4096, 2880])
def test_unload(checkpoint, words):
    with on_device(checkpoint, config_of(words)) as (model, blocks):
        (name, *_) = blocks.handle.program.routines
        blocks.unload()
        with pytest.raises(InputError, match="the program was unloaded"):
            blocks.handle.run(name, {}, [])
        expected = BitNetModel(checkpoint).logits(IDS)
        assert same_bits(model.logits(IDS), expected)
        assert blocks.handle.stats.executions == 0


@pytest.mark.sim
def test_two_threads(checkpoint):
    """Each pass has the hidden vector on the device for itself."""
    expected = BitNetModel(checkpoint)
    with on_device(checkpoint) as (model, _):
        results = {}

        def compute(token: int) -> None:
            results[token] = model.logits([token])

        threads = [threading.Thread(target=compute, args=(token,)) for token in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(same_bits(results[token], expected.logits([token])) for token in range(6))


@pytest.mark.slow
@pytest.mark.parametrize("prompt", range(8))
def test_greedy_ids_on_the_simulated_device(prompt):
    """Every layer, norm and feed-forward on the hardware of the preset; every float is compared."""
    text, expected = (REFERENCE[f"p{prompt}.{key}"] for key in ("prompt", "greedy_bitlinear"))
    result = run_model(TINYLM, "sim?preset=bitlinear", str(text), 64, verify="always")
    assert [*result.prompt_ids, *result.ids] == expected.tolist()
    assert result.blocks.form == "blocks"
    assert "final norm" not in result.blocks.on_host
    tokens = len(result.prompt_ids) + 63
    assert {layer.runs for layer in result.layers} == {tokens}
    # Of single tokens qkv of both blocks and the final norm; of the prompt the hidden vectors too.
    prompt_floats = 3 * 256 * len(result.prompt_ids)
    assert result.blocks.compared == (2 * 512 + 256) * tokens + prompt_floats
    assert result.blocks.left_to_host == 0
