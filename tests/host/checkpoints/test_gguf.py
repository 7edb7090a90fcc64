"""The GGUF reader: every layout exactly, and one line for every file that it cannot use."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest

from tests.support import ROOT, quick_first
from tests.support.checkpoints import message
from tests.support.gguf_files import BLOCKS, IDS, block_data, gguf_bytes, i2s_data, write_gguf
from tritloom.host.checkpoints.ggml_types import I2S_ORDERS, OTHER_TYPES
from tritloom.host.checkpoints.gguf import GgufFile, load_gguf
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import CheckpointError, InputError

NAME = "blk.0.ffn_up"
KEY = f"{NAME}.weight"
SHAPE = (6, 768)
TRITS = np.random.default_rng(3).integers(-1, 2, SHAPE).astype(np.int8)


def one(path: Path, layout: str, weights: np.ndarray, scales: Any, **metadata: Any) -> Path:
    """A file of one tensor; dots in the keys of `metadata` are written as two underscores."""
    tensor = BLOCKS[layout][0], weights.shape, block_data(layout, weights, scales)
    keys = {key.replace("__", "."): item for key, item in metadata.items()}
    return write_gguf(path / "m.gguf", {KEY: tensor}, keys)


def holds(layer: TernaryLayer, trits: np.ndarray, scale: float) -> bool:
    same = layer.trits.shape == trits.shape and bool((layer.trits == trits).all())
    return same and layer.scale.shape == () and float(layer.scale) == scale


@pytest.mark.parametrize("layout", BLOCKS)
class TestLayouts:
    """Each layout against a writer that places one weight after another."""

    def test_one_scale(self, tmp_path: Path, layout: str) -> None:
        layers = load_gguf(one(tmp_path, layout, TRITS, 0.0625))
        assert list(layers) == [NAME]
        assert holds(layers[NAME], TRITS, 0.0625)
        assert not layers[NAME].scale_divides and layers[NAME].bias is None

    @pytest.mark.parametrize("trit", [-1, 1])
    def test_extreme_blocks(self, tmp_path: Path, layout: str, trit: int) -> None:
        trits = np.full(SHAPE, trit, np.int8)
        for scale in (6.103515625e-05, 2**-24, 65504.0, -0.5):
            assert holds(load_gguf(one(tmp_path, layout, trits, scale))[NAME], trits, scale)

    def test_blocks_of_zeros_have_any_scale(self, tmp_path: Path, layout: str) -> None:
        group = BLOCKS[layout][1]
        trits, scales = TRITS.copy(), np.full((6, 768 // group), 0.25)
        trits[2, :group] = 0
        scales[2, 0] = 0
        trits[0, -group:] = 0
        scales[0, -1] = 3
        assert holds(load_gguf(one(tmp_path, layout, trits, scales))[NAME], trits, 0.25)

    def test_weights_with_scale_zero_are_zero(self, tmp_path: Path, layout: str) -> None:
        group = BLOCKS[layout][1]
        trits, scales = TRITS.copy(), np.full((6, 768 // group), 0.25)
        scales[5, 1] = 0
        trits[5, group : 2 * group] = 0
        assert holds(load_gguf(one(tmp_path, layout, TRITS, scales))[NAME], trits, 0.25)

    def test_all_zero(self, tmp_path: Path, layout: str) -> None:
        zeros = np.zeros(SHAPE, np.int8)
        assert holds(load_gguf(one(tmp_path, layout, zeros, 0))[NAME], zeros, 0)
        assert holds(load_gguf(one(tmp_path, layout, TRITS, 0))[NAME], zeros, 0)

    def test_scales_by_group(self, tmp_path: Path, layout: str) -> None:
        """They can be read, and are no layer."""
        group = BLOCKS[layout][1]
        scales = np.full((6, 768 // group), 0.25, np.float32)
        scales[4, 2] = 0.5
        file = GgufFile(one(tmp_path, layout, TRITS, scales))
        tensor = file.tensor(KEY)
        assert (tensor.weights == TRITS).all() and (tensor.scales == scales).all()
        assert tensor.group == group
        expected = (
            f"{KEY} has scales by groups of {group} (0.25, but 0.5 in row 4, group 2), and a "
            "device takes one scale a tensor; keep this layer on the host"
        )
        assert message(lambda: file.layer(NAME)) == expected
        assert message(file.shapes) == message(file.layers) == expected
        (facts,) = file.facts()
        assert (facts.group, facts.scales, facts.fits, facts.reason) == (group, 2, False, expected)

    @pytest.mark.parametrize("scale", [float("nan"), float("inf")])
    def test_scale_that_is_no_number(self, tmp_path: Path, layout: str, scale: float) -> None:
        group = BLOCKS[layout][1]
        scales = np.full((6, 768 // group), scale)
        file = GgufFile(one(tmp_path, layout, TRITS, scales))
        expected = f"{KEY} has the scale {scale} in row 0, group 0, not a finite number; copy "
        assert message(lambda: file.layer(NAME)) == f"{expected}{file.header.path} again"
        assert next(file.facts()).reason.startswith(expected)
        assert message(file.shapes).startswith(expected)

    def test_in_a_file_of_several(self, tmp_path: Path, layout: str) -> None:
        """The next tensor's place decides between layouts, and shapes and floats are kept."""
        type_id, _, _ = BLOCKS[layout]
        rng = np.random.default_rng(8)
        trits = {
            f"blk.{index}.attn_q": rng.integers(-1, 2, shape).astype(np.int8)
            for index, shape in enumerate([(1, 256), (9, 256), (5, 512)])
        }
        tensors = {
            f"{name}.weight": (type_id, each.shape, block_data(layout, each, 2.0))
            for name, each in trits.items()
        }
        norm = (0, (256,), np.ones(256, "<f4").tobytes())
        file = write_gguf(tmp_path / "m.gguf", {"norm.weight": norm} | tensors)
        layers = load_gguf(file)
        assert list(layers) == list(trits)
        for name, each in trits.items():
            assert holds(layers[name], each, 2.0)
        assert GgufFile(file).shapes() == {name: each.shape for name, each in trits.items()}
        facts = list(GgufFile(file).facts())
        assert [each.fits for each in facts] == [False, True, True, True]
        assert facts[0].group is None and facts[0].reason == ""
        assert [(each.type, each.scales) for each in facts[1:]] == [
            (layout.removesuffix(" of 128"), 1)
        ] * 3


class TestAgainstTheGgufPackage:
    """PyPI's `gguf` is by other people: its quantizers and writer make the files."""

    @pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
    def test_quantized(self, tmp_path: Path, name: str) -> None:
        kind = gguf.GGMLQuantizationType[name]
        trits = TRITS.copy()
        trits[1, 256:512] = 0
        weights = trits.astype(np.float32) * np.float32(0.0371)
        raw = gguf.quants.quantize(weights, kind)
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bitnet")
        writer.add_context_length(64)
        writer.add_token_list(["a", "bc", "é"])
        writer.add_array("some.numbers", [1.5, 2.5])
        writer.add_tensor("output_norm.weight", np.ones(7, np.float16))
        writer.add_tensor(KEY, raw, raw_dtype=kind)
        writer.add_tensor(f"{NAME}.bias", np.arange(6, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        file = GgufFile(tmp_path / "m.gguf")
        layer = file.layer(NAME)
        assert holds(layer, trits, float(np.float16(0.0371)))
        assert layer.bias is not None and layer.bias.tolist() == list(range(6))
        assert file.header.metadata["general.architecture"] == "bitnet"
        assert str(file.header.metadata["tokenizer.ggml.tokens"]) == "an array of 3"
        assert (layer.trits * layer.scale == gguf.quants.dequantize(raw, kind)).all()

    @pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
    def test_random_bytes(self, tmp_path: Path, name: str) -> None:
        """Every byte means what it means to ggml, those that no quantizer writes too."""
        kind = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[kind]
        raw = np.random.default_rng(5).integers(0, 256, (64, size)).astype(np.uint8)
        if name == "TQ2_0":
            raw &= ~(raw >> 1 & 0x55)  # no code 3
        raw[:, -2:] = np.frombuffer(struct.pack("<e", 0.75), np.uint8)
        file = write_gguf(tmp_path / "m.gguf", {KEY: (int(kind), (64, 256), raw.tobytes())})
        layer = load_gguf(file)[NAME]
        assert (layer.trits * layer.scale == gguf.quants.dequantize(raw, kind)).all()

    def test_sizes_of_types(self) -> None:
        sizes = {
            int(kind): (kind.name, *size)
            for kind, size in gguf.GGML_QUANT_SIZES.items()
            if kind.name not in BLOCKS
        }
        wrong = {each: size for each, size in OTHER_TYPES.items() if sizes.get(each) != size}
        # gguf 0.19 gives Q8_1 two float32; ggml has two half-precision floats.
        assert set(wrong) <= {9} and set(sizes) <= set(OTHER_TYPES)


class TestI2s:
    @pytest.mark.parametrize("order", I2S_ORDERS)
    def test_orders(self, tmp_path: Path, order: str) -> None:
        trits = np.random.default_rng(6).integers(-1, 2, (8, 256)).astype(np.int8)
        scale = float(np.float32(0.0371))
        tensor = IDS["I2_S"], trits.shape, i2s_data(trits, scale, order)
        file = write_gguf(tmp_path / "m.gguf", {KEY: tensor, "blk.1.ffn_up.weight": tensor})
        layers = load_gguf(file, order)
        assert holds(layers[NAME], trits, scale) and holds(layers["blk.1.ffn_up"], trits, scale)
        facts = list(GgufFile(file).facts())
        assert [(each.type, each.group, each.scales, each.fits) for each in facts] == [
            ("I2_S", 0, 1, True)
        ] * 2
        assert GgufFile(file).shapes() == {NAME: (8, 256), "blk.1.ffn_up": (8, 256)}
        other = load_gguf(file, I2S_ORDERS[I2S_ORDERS.index(order) - 1])
        assert not holds(other[NAME], trits, scale)
        assert message(lambda: load_gguf(file)) == (
            f"{KEY} is I2_S, and the file does not say in which order its codes lie; name the "
            "computer that wrote it: x86, arm, x86-rows (--i2s-order)"
        )

    def test_unknown_order(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            GgufFile(tmp_path / "m.gguf", "mips")
        assert str(caught.value) == "the order of I2_S must be x86, arm, x86-rows, not 'mips'"

    @pytest.mark.parametrize(
        ("shape", "order", "expected"),
        [
            ((4, 64), "x86", "64 inputs, the order x86 takes multiples of 128"),
            ((6, 128), "x86-rows", "6 rows, the order x86-rows takes multiples of 4"),
        ],
    )
    def test_impossible_order(
        self, tmp_path: Path, shape: tuple[int, int], order: str, expected: str
    ) -> None:
        trits = np.ones(shape, np.int8)
        tensor = IDS["I2_S"], shape, i2s_data(trits, 1.0, "arm")
        file = write_gguf(tmp_path / "m.gguf", {KEY: tensor})
        assert holds(load_gguf(file, "arm")[NAME], trits, 1.0)
        assert message(lambda: load_gguf(file, order)) == (
            f"{KEY} has {expected}; give another order of I2_S"
        )

    def test_code_3_and_scale(self, tmp_path: Path) -> None:
        trits = TRITS[:4, :128]
        for data, expected in (
            (i2s_data(np.where(trits == 0, 2, trits), 1.0, "arm"), f"{KEY} has code 3 in byte "),
            (i2s_data(trits, float("nan"), "arm"), f"{KEY} has the scale nan, not a finite number"),
        ):
            file = write_gguf(tmp_path / "m.gguf", {KEY: (IDS["I2_S"], trits.shape, data)})
            assert message(lambda file=file: load_gguf(file, "arm")).startswith(expected)
            assert next(GgufFile(file).facts()).reason.startswith(expected)

    @pytest.mark.parametrize("order", I2S_ORDERS)
    def test_wrong_order_of_a_trained_model(self, tmp_path: Path, order: str) -> None:
        """tinylm's neurons tell the orders apart; random weights do not, and are not refused."""
        layers = load_checkpoint(ROOT / "models" / "tinylm").layers
        names = {"down_proj": "ffn_down", "gate_proj": "ffn_gate", "up_proj": "ffn_up"}
        trits = {
            f"blk.{index}.{ours}": layers[f"model.layers.{index}.mlp.{name}"].trits
            for index in range(2)
            for name, ours in names.items()
        }

        def write(trits: dict[str, np.ndarray]) -> Path:
            tensors = {
                f"{name}.weight": (IDS["I2_S"], each.shape, i2s_data(each, 0.5, order))
                for name, each in trits.items()
            }
            return write_gguf(tmp_path / "m.gguf", tensors)

        file = write(trits)
        right = load_gguf(file, order)
        assert all(holds(right[name], each, 0.5) for name, each in trits.items())
        for other in set(I2S_ORDERS) - {order}:
            text = message(lambda other=other: GgufFile(file, other).layer("blk.0.ffn_up"))
            assert text.startswith(f"{file} is not in the order {other} of I2_S: rows of ffn_up ")
            assert text.endswith(f"; give --i2s-order {order}")
        rng = np.random.default_rng(2)
        file = write({name: rng.permuted(each, axis=1) for name, each in trits.items()})
        for each in I2S_ORDERS:
            load_gguf(file, each)


class TestContents:
    """Tensors that are whole, and no layer all the same."""

    def test_code_3(self, tmp_path: Path) -> None:
        weights = TRITS.copy()
        weights[3, 300] = 2
        file = GgufFile(one(tmp_path, "TQ2_0", weights, 0.5))
        expected = f"{KEY} has code 3 at [3, 300], codes are 0, 1 or 2; get the file again"
        assert message(lambda: file.layer(NAME)) == message(lambda: file.tensor(KEY)) == expected
        facts = next(file.facts())
        assert (facts.fits, facts.scales, facts.reason) == (False, None, expected)

    @pytest.mark.parametrize("layout", ["Q2_0", "Q2_0 of 128", "PQ2_0"])
    def test_weight_2(self, tmp_path: Path, layout: str) -> None:
        weights = TRITS.copy()
        weights[3, 300] = 2
        file = GgufFile(one(tmp_path, layout, weights, 0.5))
        assert (file.tensor(KEY).weights == weights).all()
        expected = (
            f"{KEY} has the weight 2 at [3, 300], and a device takes -1, 0 and 1; "
            "keep this layer on the host"
        )
        assert message(lambda: file.layer(NAME)) == message(file.shapes) == expected
        assert next(file.facts()).reason == expected

    @pytest.mark.parametrize(
        ("item", "shown"), [(1024, "1024"), ("x", "'x'"), (["a", "b"], "an array of 2")]
    )
    def test_rotation(self, tmp_path: Path, item: Any, shown: str) -> None:
        file = GgufFile(one(tmp_path, "PQ2_0", TRITS, 0.5, prism__hadamard__block_size=item))
        expected = (
            f"{KEY}: the file declares prism.hadamard.block_size = {shown}, a rotation of the "
            "activations that is not applied here; take a file without it"
        )
        assert message(lambda: file.layer(NAME)) == message(file.shapes) == expected
        assert next(file.facts()).reason == expected
        assert (file.tensor(KEY).weights == TRITS).all()

    @pytest.mark.parametrize(
        ("type_id", "bias"),
        [
            (0, np.arange(6, dtype="<f4")),
            (1, np.arange(6, dtype="<f2")),
            (30, (np.arange(6, dtype="<f4").view("<u4") >> 16).astype("<u2")),
        ],
    )
    def test_bias(self, tmp_path: Path, type_id: int, bias: np.ndarray) -> None:
        tensors = {
            f"{NAME}.bias": (type_id, (6,), bias.tobytes()),
            KEY: (34, SHAPE, block_data("TQ1_0", TRITS, 1.0)),
        }
        layer = load_gguf(write_gguf(tmp_path / "m.gguf", tensors))[NAME]
        assert layer.bias is not None and layer.bias.tolist() == list(range(6))

    def test_wrong_bias(self, tmp_path: Path) -> None:
        for tensor, expected in (
            ((24, (6,), bytes(6)), f"{NAME}.bias is I8, not one of F32, F16, BF16; convert it"),
            ((0, (5,), bytes(20)), f"{NAME}: bias must have shape (6,), not (5,); one value a row"),
        ):
            tensors = {
                f"{NAME}.bias": tensor,
                KEY: (34, SHAPE, block_data("TQ1_0", TRITS, 1.0)),
            }
            file = write_gguf(tmp_path / "m.gguf", tensors)
            assert message(lambda file=file: load_gguf(file)).startswith(expected)

    def test_scale_in_a_tensor_of_its_own(self, tmp_path: Path) -> None:
        """Older converters of BitNet models write trits with the scale 1, and the scale beside."""

        def file(scale: float, shape: tuple[int, ...] = (1,)) -> GgufFile:
            factors = np.full(shape, 0.0371, "<f4")
            tensors = {
                KEY: (34, SHAPE, block_data("TQ1_0", TRITS, scale)),
                f"{NAME}.scale": (0, shape, factors.tobytes()),
            }
            return GgufFile(write_gguf(tmp_path / f"{scale}{len(factors)}.gguf", tensors))

        assert holds(file(1.0).layer(NAME), TRITS, float(np.float32(0.0371)))
        for wrong in (file(0.5), file(1.0, (6,))):
            text = message(lambda wrong=wrong: wrong.layer(NAME))
            assert text.startswith(f"{KEY} has the scale ") and "takes one scale a tensor" in text
            assert next(wrong.facts()).reason == text == message(wrong.shapes)

    def test_no_layer(self, tmp_path: Path) -> None:
        data = block_data("TQ1_0", TRITS, 1.0)
        tensors = {
            "token_embd.weight": (34, SHAPE, data),
            "blk.0.ffn_up_exps.weight": (34, (2, 3, 768), data),
            "blk.0.other": (34, SHAPE, data),
            "output.weight": (8, (1, 32), bytes(34)),
        }
        file = GgufFile(write_gguf(tmp_path / "m.gguf", tensors))
        assert file.layer_names == []
        expected = f"{file.header.path} holds no ternary layer, only TQ1_0, Q8_0; convert the model"
        assert message(file.layers) == message(file.shapes) == f"{expected} to TQ2_0"
        facts = {each.name: each.reason for each in file.facts()}
        assert facts == {
            "token_embd.weight": "token_embd.weight is not the weight of a linear layer",
            "blk.0.ffn_up_exps.weight": "",
            "blk.0.other": "blk.0.other is not the weight of a linear layer",
            "output.weight": "",
        }
        text = message(lambda: file.tensor("output.weight"))
        assert text == "output.weight is Q8_0 [1, 32], not a ternary matrix; see tritloom info"
        text = message(lambda: file.layer("x"))
        assert text == f"{file.header.path} has no tensor x.weight; see tritloom info"

    def test_empty(self, tmp_path: Path) -> None:
        file = write_gguf(tmp_path / "m.gguf", {})
        assert message(lambda: load_gguf(file)).startswith(
            f"{file} holds no ternary layer, only no"
        )


class TestHeader:
    @pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
    @pytest.mark.parametrize("version", [2, 3])
    def test_alignment(self, tmp_path: Path, alignment: int, version: int) -> None:
        tensor = 34, SHAPE, block_data("TQ1_0", TRITS, 0.5)
        content = gguf_bytes(
            {KEY: tensor, "blk.1.ffn_up.weight": tensor},
            {"general.alignment": alignment, "a": True, "b": 1.5, "c": ["x", "yz"], "d": "e"},
            version,
        )
        file = tmp_path / "m.gguf"
        file.write_bytes(content)
        assert holds(load_gguf(file)[NAME], TRITS, 0.5)
        metadata = GgufFile(file).header.metadata
        assert (metadata["a"], metadata["b"], metadata["d"]) == (True, 1.5, "e")
        # Some writers leave out the padding at the end.
        padding = -len(tensor[2]) % alignment
        file.write_bytes(content[: len(content) - padding])
        assert holds(load_gguf(file)["blk.1.ffn_up"], TRITS, 0.5)

    @pytest.mark.parametrize("alignment", [0, 1, 48, 1 << 25, "32", True])
    def test_wrong_alignment(self, tmp_path: Path, alignment: Any) -> None:
        content = bytearray(gguf_bytes({}, {"general.xxxxxxxxx": alignment}))
        content[content.index(b"xxxxxxxxx") :][:0] = b""
        file = tmp_path / "m.gguf"
        file.write_bytes(bytes(content).replace(b"xxxxxxxxx", b"alignment"))
        assert message(lambda: load_gguf(file)) == (
            f"{file} has general.alignment {alignment!r}, not a power of two from 8 to 16777216; "
            "copy it again"
        )

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "is truncated, its 0 bytes end in the header; copy it again"),
            (b"GGML" + bytes(20), "begins with b'GGML', not GGUF; give a GGUF file"),
            (gguf_bytes({}, {}, 1), "has version 1 of GGUF, not 2 or 3; convert the model again"),
            (
                struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
                "has version 50331648 of GGUF, not 2 or 3; it may have its big end first; convert",
            ),
            (
                gguf_bytes({}, {"split.count": 3}),
                "is one of 3 parts (split.count); join them with llama-gguf-split --merge",
            ),
            (
                gguf_bytes({}, {"a": 1}).replace(
                    struct.pack("<II", 4, 1), struct.pack("<II", 77, 1)
                ),
                "has a value of kind 77 for a, kinds are 0 to 12; copy it again",
            ),
            (gguf_bytes({}, {"a\n": 1}), "has a key with the name b'a\\n'; copy it again"),
            (
                gguf_bytes({}, {"ax": 1, "bx": 2}).replace(b"bx", b"ax"),
                "has the key ax twice; copy",
            ),
            (
                gguf_bytes({"ax": (24, (1,), b"1"), "bx": (24, (1,), b"2")}).replace(b"bx", b"ax"),
                "has the tensor ax twice; copy it again",
            ),
        ],
    )
    def test_wrong_header(self, tmp_path: Path, content: bytes, expected: str) -> None:
        file = tmp_path / "m.gguf"
        file.write_bytes(content)
        assert message(lambda: load_gguf(file)).startswith(f"{file} {expected}")

    def test_missing(self, tmp_path: Path) -> None:
        file = tmp_path / "m.gguf"
        assert message(lambda: load_gguf(file)) == f"no model file {file}; give a GGUF file"

    @pytest.mark.parametrize(
        ("tensor", "expected"),
        [
            ((34, (4, 255), b""), "has 255 inputs, TQ1_0 takes multiples of 256; copy"),
            ((35, (4, 320), b""), "has 320 inputs, TQ2_0 takes multiples of 256; copy"),
            ((42, (4, 96), b""), "has 96 inputs, Q2_0 takes multiples of 64; copy"),
            ((142, (4, 64), b""), "has 64 inputs, PQ2_0 takes multiples of 128; copy"),
            ((143, (4, 192), b""), "has 192 inputs, PTQ1_0 takes multiples of 128; copy"),
            ((36, (4, 96), b""), "has 96 inputs, I2_S takes multiples of 64; copy"),
            ((34, (0, 256), b""), "has the impossible shape [0, 256]; copy"),
            ((34, (2**40, 256 << 24), b""), "has the impossible shape [1099511627776, 42949"),
            ((34, (2**64 - 1, 256), b""), "has the impossible shape [18446744073709551615, 256]"),
            ((34, (1, 1, 1, 1, 256), b""), "has 5 dimensions, not 1 to 4; copy"),
            ((34, (), b""), "has 0 dimensions, not 1 to 4; copy"),
        ],
    )
    def test_odd_sizes(self, tmp_path: Path, tensor: Any, expected: str) -> None:
        file = write_gguf(tmp_path / "m.gguf", {KEY: tensor})
        assert message(lambda: load_gguf(file)).startswith(f"{KEY} {expected}")

    @pytest.mark.parametrize("type_id", [34, 35, 36, 42, 142, 143])
    @pytest.mark.parametrize("extra", [-64, 64])
    def test_wrong_bytes(self, tmp_path: Path, type_id: int, extra: int) -> None:
        """Neither the last tensor nor another may have too few or too many bytes."""
        sizes = {34: 54, 35: 66, 36: 64 + 32 // 12, 42: 72, 142: 68, 143: 56}
        size = 12 * sizes[type_id] + (8 if type_id == 36 else 0) + extra
        wrong, norm = (type_id, (12, 256), bytes(size)), (0, (1,), bytes(4))
        for tensors in ({KEY: wrong}, {KEY: wrong, "norm": norm}):
            file = write_gguf(tmp_path / "m.gguf", tensors)
            text = message(lambda file=file: load_gguf(file))
            assert text.startswith((f"{KEY} has ", f"{file} is truncated, {KEY} needs "))
            assert str(len(bytes(size)) + -size % 32) in text

    def test_both_layouts_fit(self, tmp_path: Path) -> None:
        """36 and 34 bytes take the same room; a larger tensor decides for the file."""
        small = 42, (1, 128), block_data("Q2_0", TRITS[:1, :128], 1.0)
        large = 42, SHAPE, block_data("Q2_0", TRITS, 1.0)
        other = 42, SHAPE, block_data("Q2_0 of 128", TRITS, 1.0)
        file = tmp_path / "m.gguf"
        write_gguf(file, {KEY: small})
        assert message(lambda: load_gguf(file)) == (
            f"{KEY} may have Q2_0 groups of 64 and 128: both take the same room here; "
            "convert the model to TQ2_0"
        )
        write_gguf(file, {KEY: small, "blk.1.ffn_up.weight": large})
        assert holds(load_gguf(file)[NAME], TRITS[:1, :128], 1.0)
        write_gguf(file, {KEY: large, "blk.1.ffn_up.weight": other})
        assert message(lambda: load_gguf(file)) == (
            f"{KEY} has Q2_0 groups of 64, but other tensors of this type do not; "
            "convert the model to TQ2_0"
        )

    def test_only_one_layout_divides_the_row(self, tmp_path: Path) -> None:
        """108 and 102 bytes take the same room, but 192 inputs are no multiple of 128."""
        trits = TRITS[:2, :192]
        file = write_gguf(
            tmp_path / "m.gguf", {KEY: (42, (2, 192), block_data("Q2_0", trits, 1.0))}
        )
        assert holds(load_gguf(file)[NAME], trits, 1.0)

    def test_unknown_type(self, tmp_path: Path) -> None:
        """What ggml adds later is listed, and the rest of the file can be used."""
        tensors = {
            "new": (77, (3, 5), bytes(64)),
            KEY: (34, SHAPE, block_data("TQ1_0", TRITS, 1.0)),
        }
        file = write_gguf(tmp_path / "m.gguf", tensors)
        assert list(load_gguf(file)) == [NAME]
        facts = next(GgufFile(file).facts())
        assert (facts.type, facts.bytes, facts.group, facts.fits) == ("type 77", 64, None, False)


class TestDamage:
    """A small file of each layout, damaged in every byte: an error line or exact layers."""

    METADATA = MappingProxyType({"general.architecture": "bitnet", "n": 2, "t": ["a", "bc"]})

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.file = tmp_path / "m.gguf"

    def small(self, layout: str) -> tuple[bytes, int]:
        """A file and the first byte of its data."""
        trits = np.random.default_rng(1).integers(-1, 2, (6, 256)).astype(np.int8)
        data = block_data(layout, trits, 0.5)
        tensors = {
            KEY: (BLOCKS[layout][0], trits.shape, data),
            "n": (0, (2,), np.ones(2, "<f4").tobytes()),
        }
        content = gguf_bytes(tensors, self.METADATA)
        return content, content.index(data)

    def load(self, content: bytes | bytearray) -> dict[str, TernaryLayer] | None:
        """The layers of a file; None if it is refused in one line. Anything else is a crash."""
        # To truncate a file and write it again waits for the disk on some file systems.
        self.file.unlink(missing_ok=True)
        self.file.write_bytes(content)
        try:
            return load_gguf(self.file)
        except CheckpointError as error:
            text = str(error)
        assert "\n" not in text and text.isprintable()
        return None

    @quick_first("layout", BLOCKS)
    def test_cut(self, layout: str) -> None:
        content, _ = self.small(layout)
        # The last 24 bytes are padding.
        whole = [size for size in range(len(content)) if self.load(content[:size])]
        assert whole == list(range(len(content) - 24, len(content)))
        assert self.load(content + b"0") is None

    def check_flipped_header(self, layout: str, masks_of: Callable[[int], Iterable[int]]) -> None:
        """Whatever still loads has the same trits and scale, under whatever name."""
        content, begin = self.small(layout)
        layers = self.load(content)
        assert layers is not None
        trits = layers[NAME].trits
        loaded = 0
        for place in range(begin):
            for mask in masks_of(place):
                broken = bytearray(content)
                broken[place] ^= mask
                layers = self.load(broken)
                if layers is not None:
                    loaded += 1
                    assert [holds(each, trits, 0.5) for each in layers.values()] == [True]
        assert loaded

    @quick_first("layout", BLOCKS)
    def test_flipped_header(self, layout: str) -> None:
        self.check_flipped_header(layout, lambda place: [(0x01, 0xFF, 0x80, 0x20)[place % 4]])

    @pytest.mark.slow
    @pytest.mark.parametrize("layout", BLOCKS)
    def test_every_header_byte(self, layout: str) -> None:
        self.check_flipped_header(layout, lambda place: range(1, 256))

    @quick_first("layout", BLOCKS)
    def test_flipped_data(self, layout: str) -> None:
        """GGUF has no checksum, so a flipped code is another trit; never anything else."""
        content, begin = self.small(layout)
        layers = self.load(content)
        assert layers is not None
        trits = layers[NAME].trits
        for place in range(begin, len(content)):
            broken = bytearray(content)
            broken[place] ^= 1 << place % 8
            layers = self.load(broken)
            if layers is not None:
                assert (layers[NAME].trits != trits).sum() <= 5 and layers[NAME].scale == 0.5

    @pytest.mark.parametrize("seed", range(4))
    def test_random_bytes(self, seed: int) -> None:
        content, begin = self.small("Q2_0")
        rng = np.random.default_rng(seed)
        for _ in range(100):
            broken = bytearray(content)
            for place in rng.integers(0, begin, 3):
                broken[place] = rng.integers(256)
            self.load(broken)
