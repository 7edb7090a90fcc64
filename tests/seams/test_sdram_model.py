"""A random decoder of 100 million weights: every layer in simulated SDRAM, one token, all exact."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.sdram import ACCELERATOR
from tritloom.host import handle
from tritloom.host.checkpoints.huggingface import Checkpoint
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.bitnet import BitNetModel, golden_linear
from tritloom.host.models.config import BitNetConfig
from tritloom.host.placement import load_placed, place_layers
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.simulated import SimulatedDevice

HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 768, 3072, 12, 4, 4096


def random_model(blocks: int, seed: int = 14) -> Checkpoint:
    """A checkpoint of random trits, scales and norms, as `load_checkpoint` would read it."""
    rng = np.random.default_rng(seed)
    config = {
        "model_type": "bitnet",
        "hidden_act": "relu2",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "num_attention_heads": HEADS,
        "num_hidden_layers": blocks,
        "num_key_value_heads": KEY_HEADS,
        "quantization_config": {
            "linear_class": "autobitlinear",
            "modules_to_not_convert": ["lm_head"],
            "quant_method": "bitnet",
            "quantization_mode": "offline",
        },
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "vocab_size": VOCABULARY,
    }
    shapes = BitNetConfig.from_files(config).linear_shapes
    layers = {
        name: TernaryLayer.from_trits(
            rng.integers(-1, 2, shape, np.int8), float(rng.uniform(0.01, 0.1))
        )
        for name, shape in shapes.items()
        if name != "lm_head"
    }
    tensors = {
        "model.embed_tokens.weight": rng.standard_normal((VOCABULARY, HIDDEN), np.float32),
        "lm_head.weight": rng.standard_normal((VOCABULARY, HIDDEN), np.float32),
    }
    norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
    norms |= {"self_attn.attn_sub_norm": HIDDEN, "mlp.ffn_sub_norm": INNER}
    for block in range(blocks):
        for name, size in norms.items():
            weight = rng.uniform(0.5, 1.5, size).astype(np.float32)
            tensors[f"model.layers.{block}.{name}.weight"] = weight
    tensors["model.norm.weight"] = rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
    return Checkpoint(Path("random"), config, None, layers, tensors)


def fill_chip(monkeypatch, transport, damage=()):
    """Put what `Device.load` would write straight into the chip's model; COMMIT still reads it.

    Of the loads in `damage` a bit is wrong.
    """
    loads = Counter()

    def write_piece(session, config, piece, packed):
        image = bytearray(packed)
        requests = handle.Requests(session, config)
        commands = [
            requests.define(piece.index, piece.base, piece.shape),
            requests.commit(piece.index, packed),
        ]
        if loads.total() in damage:
            image[len(image) // 2] ^= 1
        loads["all"] += 1
        transport.write_words(piece.base, bytes(image))
        session.enqueue(*commands)
        for command in commands:
            session.require(command)

    monkeypatch.setattr(handle, "_write_piece", write_piece)
    return loads


def one_token(monkeypatch, blocks: int) -> tuple[int, int]:
    """Compute one token; gives the weights of all layers, and the cycles of their RUNs.

    Each layer's floats are those of the golden model, bit for bit, and so are the logits.
    """
    checkpoint = random_model(blocks)
    golden = BitNetModel(checkpoint)
    transport = SimulatedDevice(ACCELERATOR)
    loads = fill_chip(monkeypatch, transport)
    computed = Counter()
    with Device(transport, url="sim", config=ACCELERATOR) as device:
        shapes = {name: layer.trits.shape for name, layer in golden.layers.items()}
        placement = place_layers(ACCELERATOR, shapes, device.allocation())
        placement.require("all")
        placed = {
            each.name: load_placed(device, golden.layers[each.name], each)
            for each in placement.load_order
        }
        assert loads.total() == 4 * blocks

        def linear(name, layer, x):
            y = placed[name].linear(x)
            assert np.array_equal(y, golden_linear(name, layer, x)), name
            computed[name] += 1
            return y

        logits = BitNetModel(checkpoint, linear).logits([5])
        counters = device.counters()
    assert np.array_equal(logits, golden.logits([5]))
    assert dict(computed) == dict.fromkeys(golden.layers, 1)
    return sum(layer.trits.size for layer in golden.layers.values()), counters.run_cycles


def share_of_peak(weights: int, cycles: int) -> float:
    """Share of RUN's cycles × the chip's 16 bits that weight bits without padding take."""
    return weights * 8 / 5 / (16 * cycles)


@pytest.mark.sim
def test_a_block(monkeypatch):
    """A block of the model, a twelfth of its weights."""
    weights, cycles = one_token(monkeypatch, 1)
    assert weights == 8_650_752
    assert share_of_peak(weights, cycles) > 0.98


@pytest.mark.slow
def test_all_blocks(monkeypatch):
    """103.8 million weights, 20.8 MB of the chip's 32."""
    weights, cycles = one_token(monkeypatch, 12)
    assert weights == 103_809_024
    assert share_of_peak(weights, cycles) > 0.98


@pytest.mark.sim
def test_commit_checks_what_the_chip_holds(monkeypatch):
    """One bit of a layer that lies wrong in the chip, and its COMMIT is refused."""
    transport = SimulatedDevice(ACCELERATOR)
    fill_chip(monkeypatch, transport, damage=(1,))
    rng = np.random.default_rng(1)
    with Device(transport, url="sim", config=ACCELERATOR) as device:
        layer = TernaryLayer.from_trits(rng.integers(-1, 2, (64, 80), np.int8), 1.0)
        good = device.load(layer)
        with pytest.raises(DeviceError, match="BAD_CHECKSUM"):
            device.load(layer)
        codes = rng.integers(-128, 128, (1, 80)).astype(np.int8)
        assert np.array_equal(device.matmul(good, codes)[0], layer.trits @ codes[0].astype(int))
