"""Programs of whole blocks, interpreted, against the golden model and the NumPy runtime."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.programs import (
    PlayedProgram,
    layers_of,
    random_decoder,
    same_bits,
)
from tests.support.vector_programs import random_vector
from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.blocks import decoder_program, feed_forward_program, mlp_program
from tritloom.host.models.decoder import Mlp
from tritloom.host.models.golden_blocks import GoldenBlocks, golden_mlp
from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import Operation, check_program

TINYLM = ROOT / "models" / "tinylm"
IDS = [69, 110, 99, 101, 32, 117]
SMALL = VectorConfig(words=4096, bfloat16=True, steps=1024)


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(TINYLM)


def dividing(checkpoint):
    """The model with scales that divide, as the packed layers of transformers have them."""
    layers = {
        name: TernaryLayer.from_trits(layer.trits, 1 / layer.scale, scale_divides=True)
        for name, layer in checkpoint.layers.items()
    }
    return Checkpoint(checkpoint.path, checkpoint.config, None, layers, checkpoint.tensors)


def resident(model, program, played):
    """`run_blocks` of a model: token by token, with the hidden vector on the played device."""
    rows = model.decoder().qkv_rows

    def run(x, attend):
        assert len(x) == 1
        given, name = {"x": x}, "begin"
        for index in range(model.config.num_hidden_layers):
            qkv = played.run(name, given, ["qkv"])["qkv"]
            attended = attend(index, np.split(qkv, np.cumsum(rows)[:-1], axis=1))
            given, name = {"attention": attended}, f"block {index}"
        if "hidden" in program.vectors:
            return played.run(name, given, ["hidden"])["hidden"]
        return model.final_norm(played.run(name, given, ["x"])["x"])

    return run


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize(("words", "multipliers"), [(3872, 1), (3968, 1), (4128, 1), (4128, 2)])
def test_tinylm_equals_the_runtime(checkpoint, words, multipliers, divides):
    """With few vector words `up` comes in pieces, with fewer the final norm has no room."""
    source = dividing(checkpoint) if divides else checkpoint
    host, model = BitNetModel(source), BitNetModel(source)
    config = VectorConfig(words=words, multipliers=multipliers)
    decoder = model.decoder()
    program = decoder_program(config, decoder)
    hidden = []

    def record(run):
        def recorded(x, attend):
            hidden.append(run(x, attend))
            return hidden[-1]

        return recorded

    host.run_blocks = record(host.blocks_on_host)
    played = PlayedProgram(config, program, layers_of(decoder))
    model.run_blocks = record(resident(model, program, played))
    ids = [list(each.generate(IDS[:1], 6)) for each in (host, model)]
    assert ids[0] == ids[1]
    assert len(hidden) == 12
    assert all(same_bits(*pair) for pair in zip(hidden[:6], hidden[6:], strict=True))


def test_steps_of_the_feed_forward():
    """Only where the last step gives no maximum of all features, one more step finds it."""
    counts = [
        len(decoder_program(SMALL, random_decoder(0, blocks=1, **options)).steps)
        for options in ({}, {"sub_norms": False}, {"relu2": False}, {"bias": True})
    ]
    assert counts == [128, 93, 127, 137]


def check_decoder(decoder, config=SMALL, tokens=2, spread=1.0, **place):
    """Each vector that a routine leaves has the golden model's bits."""
    program = decoder_program(config, decoder)
    played = PlayedProgram(config, program, layers_of(decoder), **place)
    golden = GoldenBlocks(decoder)
    rng = np.random.default_rng(tokens)

    def some(features):
        return np.stack(
            [random_vector(rng, features, decoder.bfloat16, spread) for _ in range(tokens)]
        )

    x = some(decoder.hidden)
    got = played.run("begin", {"x": x}, ["qkv", "x"])
    assert same_bits(got["qkv"], golden.qkv(0, x))
    assert same_bits(got["x"], x)
    for index in range(len(decoder.blocks)):
        attention = some(decoder.queries)
        last = index + 1 == len(decoder.blocks)
        outputs = ["x", "hidden" if last else "qkv"]
        given = {"x": x, "attention": attention}
        x = golden.attention(index, x, attention)
        if decoder.relu2:
            got = played.run(f"block {index}", given, outputs)
        else:
            middle = played.run(f"block {index}", given, ["x", "gate_up"])
            assert same_bits(middle["gate_up"], golden.gate_up(index, x))
            gate, up = np.split(middle["gate_up"], 2, axis=1)
            inner = round_to(np.abs(gate) * up, decoder.bfloat16)  # any activation
            given = {"x": middle["x"], "inner": inner}
            got = played.run(f"feed_forward {index}", given, outputs)
        x = golden.feed_forward(index, x) if decoder.relu2 else golden.down(index, x, inner)
        assert same_bits(got["x"], x)
        expected = golden.final(x) if last else golden.qkv(index + 1, x)
        assert same_bits(got[outputs[1]], expected)
    return program


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"divides": True},
        {"bias": True, "divides": True},
        {"per_row": True, "bias": True},
        {"sub_norms": False},
        {"relu2": False},
        {"relu2": False, "sub_norms": False, "queries": 96},
        {"hidden": 72, "inner": 50, "queries": 40, "keys": 8, "blocks": 3},
        {"blocks": 1, "inner": 512},
        {"blocks": 1, "hidden": 32, "inner": 32, "queries": 256, "keys": 64},
        {"blocks": 1, "hidden": 24, "inner": 7, "queries": 8, "keys": 8},
        {"blocks": 1, "hidden": 24, "inner": 40, "per_row": True, "divides": True},
        {"blocks": 1, "hidden": 16, "inner": 10, "per_row": True, "divides": True, "bias": True},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_decoders_equal_the_golden_model(options, bfloat16):
    decoder = random_decoder(1, bfloat16=bfloat16, **options)
    one, two = (
        check_decoder(decoder, replace(SMALL, multipliers=multipliers)) for multipliers in (1, 2)
    )
    assert len(two.steps) < len(one.steps)


@pytest.mark.parametrize("sub_norms", [False, True])
@pytest.mark.parametrize(("fewer_words", "pieces"), [(0, 1), (32, 2), (160, 4)])
def test_up_in_pieces(sub_norms, fewer_words, pieces):
    """The maximum for the codes is that of all pieces."""
    decoder = random_decoder(2, blocks=1, hidden=48, inner=254, sub_norms=sub_norms)
    most = -(-decoder_program(SMALL, decoder).words // 32) * 32
    program = check_decoder(decoder, VectorConfig(words=most - fewer_words), tokens=8)
    rows = [step.count for step in program.steps_of("block 0") if step.from_core]
    up = {1: [254], 2: [127] * 2, 4: [64, 64, 64, 62]}
    assert rows == [48, 254, *up[pieces], 48]


@pytest.mark.parametrize("spread", [0, 20, 40])
def test_numbers_of_all_sizes(spread):
    check_decoder(random_decoder(3, sub_norms=False), spread=spread)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-5, 2.0**-126, 2.0**-80, 2.0**55])
def test_extreme_vectors(value):
    """Vectors of one number; of zeros too, whose scale comes from the least maximum."""
    decoder = random_decoder(4)
    played = PlayedProgram(SMALL, decoder_program(SMALL, decoder), layers_of(decoder))
    golden = GoldenBlocks(decoder)
    x = np.full((1, decoder.hidden), value, np.float32)
    attention = np.full((1, decoder.queries), -value, np.float32)
    assert same_bits(played.run("begin", {"x": x}, ["qkv"])["qkv"], golden.qkv(0, x))
    got = played.run("block 0", {"attention": attention}, ["x"])["x"]
    assert same_bits(got, golden.feed_forward(0, golden.attention(0, x, attention)))


@pytest.mark.parametrize("multipliers", [1, 2])
@pytest.mark.parametrize("divides", [False, True])
def test_a_program_at_another_place(divides, multipliers):
    config = replace(SMALL, multipliers=multipliers)
    decoder = random_decoder(5, divides=divides)
    check_decoder(decoder, config, base=320, indices=[7, 3, 250, 0, 9, 8, 5, 4])


def mlps_of(decoder):
    """Those of a decoder whose gate and up are two layers."""
    inner = decoder.inner

    def half(layer, rows):
        scale = np.broadcast_to(layer.scale, 2 * inner)[rows]
        bias = None if layer.bias is None else layer.bias[rows]
        divides = layer.scale_divides
        return TernaryLayer.from_trits(layer.trits[rows], scale, scale_divides=divides, bias=bias)

    return {
        f"layers.{index}.mlp": Mlp(
            gate=half(block.gate_up, slice(inner)),
            up=half(block.gate_up, slice(inner, None)),
            down=block.down,
            inner_norm=block.inner_norm,
        )
        for index, block in enumerate(decoder.blocks)
    }


@pytest.mark.parametrize("sub_norms", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_mlp_program_of_two_multipliers(bfloat16, sub_norms):
    """Gate is squared, and multiplied by up, while it comes from the core."""
    decoder = random_decoder(6, bfloat16=bfloat16, divides=True, sub_norms=sub_norms)
    mlps = mlps_of(decoder)
    config = VectorConfig(bfloat16=bfloat16, multipliers=2)
    program = mlp_program(config, mlps, eps=1e-5, bfloat16=bfloat16)
    one = mlp_program(replace(config, multipliers=1), mlps, eps=1e-5, bfloat16=bfloat16)
    # Square and product, and the product of the norm; the maximum needs no step of its own.
    fewer = len(decoder.blocks) * (2 + sub_norms)
    assert len(program.steps) == len(one.steps) - fewer
    layers = [layer for mlp in mlps.values() for layer in (mlp.gate, mlp.up, mlp.down)]
    played = PlayedProgram(config, program, layers)
    rng = np.random.default_rng(7)
    x = np.stack([random_vector(rng, 64, bfloat16) for _ in range(8)])
    for name, mlp in mlps.items():
        got = played.run(name, {"x": x}, ["y"])["y"]
        assert same_bits(got, golden_mlp(mlp, x, 1e-5, bfloat16))


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"divides": True, "bias": True}, {"sub_norms": False}, {"per_row": True}]
)
def test_mlp_program(options, bfloat16, pieces):
    decoder = random_decoder(6, bfloat16=bfloat16, inner=160, **options)
    mlps = mlps_of(decoder)
    config = VectorConfig(words=4096, bfloat16=bfloat16)
    program = mlp_program(config, mlps, eps=1e-5, bfloat16=bfloat16)
    if pieces == 2:
        config = replace(config, words=program.words // 32 * 32 - 32)
        program = mlp_program(config, mlps, eps=1e-5, bfloat16=bfloat16)
    rows = [step.count for step in program.steps_of("layers.0.mlp") if step.from_core]
    assert rows == [160, *[160 // pieces] * pieces, 64]
    layers = [layer for mlp in mlps.values() for layer in (mlp.gate, mlp.up, mlp.down)]
    played = PlayedProgram(config, program, layers)
    rng = np.random.default_rng(6)
    x = np.stack([random_vector(rng, 64, bfloat16) for _ in range(8)])
    for name, mlp in mlps.items():
        got = played.run(name, {"x": x}, ["y"])["y"]
        assert same_bits(got, golden_mlp(mlp, x, 1e-5, bfloat16))


def test_mlp_programs_that_do_not_fit():
    mlps = mlps_of(random_decoder(6, blocks=16))
    with pytest.raises(
        CapacityError, match=r"^the program needs \d+ steps, the device has 512; build"
    ):
        mlp_program(VectorConfig(words=8192), mlps, eps=1e-5)
    with pytest.raises(CapacityError, match="the vector memory has 512 words, but at"):
        mlp_program(VectorConfig(words=512), mlps, eps=1e-5)


@pytest.mark.parametrize(
    ("words", "blocks"), [(1024, None), (1024, [2, 0]), (544, None), (480, [2, 0])]
)
def test_feed_forward_program(words, blocks):
    """Of all blocks or some; with few words `up` comes in pieces."""
    decoder = random_decoder(6, blocks=3, inner=160, sub_norms=words == 1024)
    config = VectorConfig(words=words)
    program = feed_forward_program(config, decoder, blocks)
    chosen = range(3) if blocks is None else blocks
    layers = [
        layer
        for index in chosen
        for layer in (decoder.blocks[index].gate_up, decoder.blocks[index].down)
    ]
    played = PlayedProgram(config, program, layers)
    assert list(program.routines) == [f"feed_forward {index}" for index in chosen]
    x = np.random.default_rng(6).standard_normal((8, 64)).astype(np.float32)
    for index in chosen:
        got = played.run(f"feed_forward {index}", {"x": x}, ["x"])["x"]
        assert same_bits(got, GoldenBlocks(decoder).feed_forward(index, x))


def test_tinylm_steps(checkpoint):
    """How long the programs are: more blocks of its size would not fit the program memory."""
    program = decoder_program(VectorConfig(words=4128), BitNetModel(checkpoint).decoder())
    assert {name: routine.count for name, routine in program.routines.items()} == {
        "begin": 30,
        "block 0": 109,
        "block 1": 98,
    }
    runs = [step.a for step in program.steps if step.operation == Operation.RUN]
    assert runs == list(range(8))


@pytest.mark.parametrize("missing", range(4))
def test_a_layer_that_is_not_committed(missing):
    decoder = random_decoder(7, blocks=1)
    program = decoder_program(SMALL, decoder)
    layers = {index: shape for index, shape in enumerate(program.layers) if index != missing}
    name = "begin" if missing == 0 else "block 0"
    wrong = f"^step \\d+: layer {missing} is not committed; load it first$"
    with pytest.raises(InputError, match=wrong):
        check_program(program.steps_of(name), SMALL, layers)


def test_words_that_a_model_needs(checkpoint):
    decoder = BitNetModel(checkpoint).decoder()
    with pytest.raises(CapacityError) as caught:
        decoder_program(VectorConfig(words=3072), decoder)
    assert str(caught.value) == (
        "the vector memory has 3,072 words, but at least 3,425 are needed: "
        "256 for the hidden vector, 2,560 for weights of norms, 608 for work, "
        "and 1 for scales and other constants; build the device with more vector words"
    )


def test_steps_that_a_model_needs():
    decoder = random_decoder(8, blocks=7)
    with pytest.raises(CapacityError) as caught:
        decoder_program(VectorConfig(words=8192), decoder)
    assert str(caught.value) == (
        "the program needs 782 steps, the device has 512; build it with more steps, or run fewer "
        "blocks on it"
    )
    check_decoder(decoder, VectorConfig(words=8192, steps=1024), tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bfloat16": True}, "the unit has no bfloat16; build it with bfloat16 true"),
    ],
)
def test_what_no_program_computes(options, message):
    decoder = random_decoder(9, **options)
    for make in (decoder_program, feed_forward_program):
        with pytest.raises(InputError, match=message):
            make(VectorConfig(), decoder)


@pytest.mark.parametrize("scale", [1e-40, 2.0**126])
def test_constants_that_the_unit_does_not_compute_with(scale):
    decoder = random_decoder(10, blocks=1)
    block = decoder.blocks[0]
    layer = TernaryLayer.from_trits(block.o.trits, scale)
    decoder = replace(decoder, blocks=(replace(block, o=layer),))
    with pytest.raises(InputError, match="from 2\\^-126 to below 2\\^126, not "):
        decoder_program(SMALL, decoder)


def test_no_feed_forward_with_another_activation():
    with pytest.raises(InputError, match="no activation but relu²; leave it to the host"):
        feed_forward_program(SMALL, random_decoder(11, relu2=False))


def test_models_that_no_program_computes(checkpoint):
    message = "model.layers.0.self_attn.qkv_proj is not one ternary layer"
    with pytest.raises(InputError, match=message):
        BitNetModel(checkpoint, fuse=False).decoder()
