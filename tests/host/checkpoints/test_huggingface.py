"""The reader of model directories: every good layout, and one line for every bad file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support import ROOT
from tests.support.checkpoints import message, packed
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.checkpoints.quantization import Quantization
from tritloom.rtl.spec import numerics

MODELS = ROOT / "models"
NAME = "model.layers.0.mlp.up_proj"
CONFIG: dict[str, Any] = {
    "model_type": "bitnet",
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
}
RNG = np.random.default_rng(11)
TRITS = RNG.integers(-1, 2, (8, 6)).astype(np.int8)


def good(scale: float = 0.25) -> dict[str, np.ndarray]:
    return {
        f"{NAME}.weight": packed(TRITS),
        f"{NAME}.weight_scale": np.array([scale], np.float32),
        "model.embed_tokens.weight": RNG.standard_normal((5, 6)).astype(np.float32),
        "model.norm.weight": np.ones(6, np.float32),
    }


def write(folder: Path, tensors: dict[str, np.ndarray], **quantization: Any) -> Path:
    config = CONFIG | {"quantization_config": CONFIG["quantization_config"] | quantization}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("linear_class", "divides"), [("bitlinear", True), ("autobitlinear", False), (None, True)]
)
def test_the_class_tells_what_the_scale_means(
    tmp_path: Path, linear_class: str | None, divides: bool
) -> None:
    checkpoint = load_checkpoint(write(tmp_path, good(), linear_class=linear_class))
    layer = checkpoint.layers[NAME]
    assert (layer.trits == TRITS).all()
    assert layer.scale == 0.25
    assert layer.scale_divides is divides
    assert layer.bias is None
    x = np.ones((1, 6), np.float32)
    y = numerics.bitlinear(x, layer.trits, layer.scale, layer.scale_divides)
    assert np.allclose(y, TRITS.sum(axis=1) * (4 if divides else 0.25))


def test_members(tmp_path: Path) -> None:
    tensors = good()
    folder = write(tmp_path, tensors)
    assert load_checkpoint(folder).generation is None
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    checkpoint = load_checkpoint(str(folder))
    assert checkpoint.path == folder
    assert checkpoint.config["model_type"] == "bitnet"
    assert checkpoint.generation == {"eos_token_id": 3}
    assert list(checkpoint.layers) == [NAME]
    assert checkpoint.tensors.keys() == {"model.embed_tokens.weight", "model.norm.weight"}
    for key, tensor in checkpoint.tensors.items():
        assert (tensor == tensors[key]).all()


def test_bias_of_bitlinear_is_added_and_of_autobitlinear_scaled_first(tmp_path: Path) -> None:
    bias = RNG.standard_normal(8).astype(np.float32)
    tensors = good(0.3) | {f"{NAME}.bias": bias}
    layer = load_checkpoint(write(tmp_path, tensors, linear_class="bitlinear")).layers[NAME]
    assert layer.bias is not None
    assert (layer.bias == bias).all()
    layer = load_checkpoint(write(tmp_path, tensors)).layers[NAME]
    assert layer.bias is not None
    assert (layer.bias == bias * np.float32(0.3)).all()


def test_a_scale_a_row(tmp_path: Path) -> None:
    scale = RNG.uniform(1, 2, 8).astype(np.float32)
    tensors = good() | {f"{NAME}.weight_scale": scale}
    assert (load_checkpoint(write(tmp_path, tensors)).layers[NAME].scale == scale).all()


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_unpacked_trits(tmp_path: Path, dtype: type) -> None:
    tensors = good() | {f"{NAME}.weight": TRITS.astype(dtype)}
    assert (load_checkpoint(write(tmp_path, tensors)).layers[NAME].trits == TRITS).all()


def test_online_weights_are_ternarized(tmp_path: Path) -> None:
    weights = RNG.standard_normal((7, 6)).astype(np.float32)
    tensors = {f"{NAME}.weight": weights, f"{NAME}.bias": np.ones(7, np.float32)}
    layer = load_checkpoint(write(tmp_path, tensors, quantization_mode="online")).layers[NAME]
    trits, scale = numerics.absmean_ternarize(weights)
    assert (layer.trits == trits).all()
    assert layer.scale == scale
    assert not layer.scale_divides
    assert layer.bias is not None
    assert (layer.bias == 1).all()


def test_modules_to_not_convert_stay_floats(tmp_path: Path) -> None:
    key = "model.layers.0.mlp.down_proj.weight"
    tensors = good() | {key: np.ones((6, 8), np.float32)}
    folder = write(tmp_path, tensors, modules_to_not_convert=["down_proj"])
    assert key in load_checkpoint(folder).tensors
    folder = write(tmp_path, tensors, modules_to_not_convert=["down"])
    assert message(lambda: load_checkpoint(folder)) == (
        f"{key} has no {key}_scale; convert the model again, or list it in modules_to_not_convert"
    )


UP, DOWN, QUERY = (
    f"model.layers.0.{name}" for name in ("mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
)


@pytest.mark.parametrize(
    ("patterns", "floats"),
    [
        (None, {"lm_head"}),
        ([], set()),
        (["lm_head"], {"lm_head"}),
        (["mlp"], set()),
        (["self_attn"], set()),
        (["n_proj"], {DOWN}),
        (["q_proj"], {QUERY}),
        (["model.layers.*.self_attn"], {QUERY}),
        (["model.layers.0.mlp"], {UP, DOWN}),
        (["model.layers.0.mlp.up"], set()),
        (["model.layers.0.mlp.up|lm_head"], {"lm_head"}),
        (["model.layers.0."], {UP, DOWN, QUERY}),
        (["model.layers.0.mlp|lm_head"], {UP, DOWN, "lm_head"}),
        (["layers.0.mlp"], set()),
        ([".*mlp"], {UP, DOWN}),
        (["Up_proj", "lm_head"], {"lm_head"}),
        ([""], {UP, DOWN, QUERY, "lm_head"}),
    ],
)
def test_which_modules_stay_floats(patterns: list[str] | None, floats: set[str]) -> None:
    config = {"quantization_config": {"modules_to_not_convert": patterns}}
    quantization = Quantization.from_config(config, "config.json")
    names = {UP, DOWN, QUERY, "lm_head"}
    assert {name for name in names if quantization.is_float(name)} == floats


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lm_head", "must be a list of names, not 'lm_head'; write [\"lm_head\"]"),
        (3, 'must be a list of names, not 3; write ["lm_head"]'),
        (False, 'must be a list of names, not False; write ["lm_head"]'),
        (["a", 3], "must be a list of names, not ['a', 3]; write [\"lm_head\"]"),
        (["*"], "has '*', which is no regular expression: nothing to repeat at position 0"),
    ],
)
def test_wrong_patterns(tmp_path: Path, value: Any, expected: str) -> None:
    folder = write(tmp_path, good(), modules_to_not_convert=value)
    assert message(lambda: load_checkpoint(folder)) == f"modules_to_not_convert {expected}"


def test_a_list_without_the_head_makes_it_ternary(tmp_path: Path) -> None:
    """As in transformers: a tied head is ternarized, while the embedding stays as it is."""
    tensors = {f"{NAME}.weight": RNG.standard_normal((8, 6)), **good()}
    tensors = {key: tensors[key].astype(np.float32) for key in tensors if "scale" not in key}
    write(tmp_path, tensors, quantization_mode="online", modules_to_not_convert=[])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    checkpoint = load_checkpoint(tmp_path)
    table = tensors["model.embed_tokens.weight"]
    assert (checkpoint.tensors["model.embed_tokens.weight"] == table).all()
    assert (checkpoint.layers["lm_head"].trits == numerics.absmean_ternarize(table)[0]).all()
    write(tmp_path, good(), modules_to_not_convert=[])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    assert message(lambda: load_checkpoint(tmp_path)) == (
        "lm_head.weight has no lm_head.weight_scale; convert the model again, or list it in "
        "modules_to_not_convert"
    )


def test_names_without_the_base(tmp_path: Path) -> None:
    """A file of the model without its head, and one that has the prefix once too often."""
    whole = load_checkpoint(write(tmp_path, good() | {"lm_head.weight": np.ones((5, 6))}))
    for change in (lambda key: key.removeprefix("model."), lambda key: f"model.{key}"):
        tensors = good() | {"lm_head.weight": np.ones((5, 6))}
        write(tmp_path, {change(key): tensor for key, tensor in tensors.items()})
        other = load_checkpoint(tmp_path)
        assert other.layers.keys() == whole.layers.keys()
        assert other.tensors.keys() == whole.tensors.keys()
    write(tmp_path, good() | {"norm.weight": np.ones(6)})
    assert message(lambda: load_checkpoint(tmp_path)) == (
        "model.norm.weight is in the files twice; keep one of the two"
    )


def test_a_stale_index_beside_the_whole_file(tmp_path: Path) -> None:
    folder = write(tmp_path, good())
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert list(load_checkpoint(folder).layers) == [NAME]


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("bitnet", "has no quantization_config; the model is not a BitNet one"),
        ({"linear_class": 3}, "linear_class must be bitlinear or autobitlinear, not 3"),
        ({"linear_class": ["bitlinear"]}, "linear_class must be bitlinear or autobitlinear, not ["),
        ({"linear_class": ""}, "linear_class must be bitlinear or autobitlinear, not ''"),
        ({"quantization_mode": {}}, "quantization_mode must be offline or online, not {}"),
        ({"use_rms_norm": "no"}, "use_rms_norm must be true or false, not 'no'"),
        (
            {"use_rms_norm": True, "rms_norm_eps": "x"},
            "rms_norm_eps must be a positive number, not 'x'",
        ),
        (
            {"quant_method": "x" * 99},
            f"quantization_config.quant_method must be bitnet, not '{'x' * 59}…",
        ),
    ],
)
def test_wrong_types(tmp_path: Path, quantization: Any, expected: str) -> None:
    folder = write(tmp_path, good())
    config = CONFIG | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    assert expected in message(lambda: load_checkpoint(folder))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_deep_json(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, good())
    (folder / name).write_text("[" * 200_000)
    expected = f"{folder / name} is nested too deeply for a model; copy it again"
    assert message(lambda: load_checkpoint(folder)) == expected
    # As deep as Python still reads it.
    (folder / name).write_text('{"quantization_config": ' + "[" * 900 + "]" * 900 + "}")
    if name == "config.json":
        assert "has no quantization_config" in message(lambda: load_checkpoint(folder))


def test_shards(tmp_path: Path) -> None:
    tensors = good()
    whole = load_checkpoint(write(tmp_path, tensors))
    (tmp_path / "model.safetensors").unlink()
    weight_map = {}
    for number, key in enumerate(sorted(tensors)):
        shard = f"model-{number % 2 + 1:05}-of-00002.safetensors"
        weight_map[key] = shard
    for shard in set(weight_map.values()):
        part = {key: tensors[key] for key in tensors if weight_map[key] == shard}
        save_file(part, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    split = load_checkpoint(tmp_path)
    assert (split.layers[NAME].trits == whole.layers[NAME].trits).all()
    assert split.tensors.keys() == whole.tensors.keys()

    index.write_text(json.dumps({"weight_map": weight_map | {"lost.weight": shard}}))
    assert message(lambda: load_checkpoint(tmp_path)) == (
        f"lost.weight is not in {tmp_path / shard}; copy the shard again"
    )
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    assert "names '../model.safetensors'; a shard must lie beside its index" in message(
        lambda: load_checkpoint(tmp_path)
    )
    index.write_text(json.dumps({"weight_map": ["a"]}))
    assert message(lambda: load_checkpoint(tmp_path)) == f"{index} has no weight_map; copy it again"
    index.write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / shard).unlink()
    assert message(lambda: load_checkpoint(tmp_path)) == (
        f"no model file {tmp_path / shard}; copy the whole model directory"
    )


def test_tinylm() -> None:
    checkpoint = load_checkpoint(MODELS / "tinylm")
    assert len(checkpoint.layers) == 14
    assert sum(layer.trits.size for layer in checkpoint.layers.values()) == 1_179_648
    assert not any(layer.scale_divides for layer in checkpoint.layers.values())


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_code_3_is_refused_with_its_place(tmp_path: Path, place: int) -> None:
    weight = packed(TRITS)
    weight[1, 4] |= 3 << 2 * place
    folder = write(tmp_path, good() | {f"{NAME}.weight": weight})
    assert message(lambda: load_checkpoint(folder)) == (
        f"{NAME}.weight has code 3 at [{1 + 2 * place}, 4], codes are 0, 1 or 2; get the file again"
    )


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({f"{NAME}.weight_scale": None}, {}, f"{NAME}.weight has no {NAME}.weight_scale; convert"),
        (
            {f"{NAME}.weight_scale": np.array([np.nan], np.float32)},
            {},
            f"{NAME}: scale must be finite float32, not nan in row 0",
        ),
        (
            {f"{NAME}.weight_scale": np.zeros(1, np.float32)},
            {"linear_class": "bitlinear"},
            f"{NAME}: scale must not be 0 where it divides",
        ),
        (
            {f"{NAME}.weight_scale": np.ones(3, np.float32), f"{NAME}.bias": np.ones(8)},
            {},
            f"{NAME}: scale must have shape () or (8,), not (3,)",
        ),
        (
            {f"{NAME}.bias": np.ones(5, np.float32)},
            {},
            f"{NAME}: bias must have shape (8,), not (5,)",
        ),
        (
            {f"{NAME}.weight": np.eye(8, 6, -3, np.float32) * 2},
            {},
            f"{NAME}.weight has 2.0 at [3, 0], not -1, 0 or 1; set quantization_mode to online",
        ),
        (
            {f"{NAME}.weight": np.full((8, 6), np.nan, np.float32)},
            {"quantization_mode": "online"},
            f"{NAME}: weights must be finite float32, not nan at row 0, position 0",
        ),
        (
            {},
            {"quantization_mode": "online"},
            f"{NAME}.weight must be a float tensor, not uint8",
        ),
        (
            {},
            {"modules_to_not_convert": ["model.layers.0.mlp"]},
            f"{NAME}.weight must be a float tensor, not uint8",
        ),
        (
            {f"{NAME}.weight": None},
            {},
            "holds no ternary layer; check modules_to_not_convert",
        ),
        (
            {},
            {"linear_class": "gptlinear"},
            "quantization_config.linear_class must be bitlinear or autobitlinear, not 'gptlinear'",
        ),
        (
            {},
            {"quant_method": "gptq"},
            "quantization_config.quant_method must be bitnet, not 'gptq'",
        ),
        (
            {},
            {"quantization_mode": "sometimes"},
            "quantization_config.quantization_mode must be offline or online, not 'sometimes'",
        ),
        (
            {},
            {"quantization_mode": "online", "linear_class": "bitlinear"},
            "quantization_mode must be offline for linear_class bitlinear, not online",
        ),
    ],
)
def test_bad_tensors_and_classes(
    tmp_path: Path,
    changes: dict[str, np.ndarray | None],
    options: dict[str, Any],
    expected: str,
) -> None:
    tensors = {key: tensor for key, tensor in (good() | changes).items() if tensor is not None}
    folder = write(tmp_path, tensors, **options)
    assert expected in message(lambda: load_checkpoint(folder))


@pytest.mark.parametrize("keep", [0, 7, 8, 40, 400, -1])
def test_truncated_safetensors(tmp_path: Path, keep: int) -> None:
    file = write(tmp_path, good()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    text = message(lambda: load_checkpoint(tmp_path))
    assert text.startswith(f"{file} is truncated")
    assert text.endswith("copy it again" if keep in (400, -1) else "copy it")
    if keep == -1:
        size = file.stat().st_size
        assert f"ends at byte {size + 1} of {size};" in text


def test_missing_files(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert message(lambda: load_checkpoint(nowhere)) == (
        f"no model directory {nowhere}; give a folder with a config.json"
    )
    assert message(lambda: load_checkpoint(tmp_path)) == (
        f"no config.json in {tmp_path}; copy the whole model"
    )
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    assert message(lambda: load_checkpoint(tmp_path)) == (
        f"no model file {tmp_path / 'model.safetensors'}; copy the whole model directory"
    )
    for text, expected in {
        "{": f"{config} is not JSON; copy it again",
        "[]": f"{config} must hold a JSON object, not list",
        "{}": f"{config} has no quantization_config; the model is not a BitNet one",
    }.items():
        config.write_text(text)
        assert message(lambda: load_checkpoint(tmp_path)) == expected
