"""Predictions: by hand, against a public design's published figures, and where the CPU wins."""

from dataclasses import replace

import pytest

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.gen.plan.cpu import Cpu
from tritloom.gen.plan.platform import platform_of, read_platform
from tritloom.gen.plan.prediction import predict
from tritloom.gen.plan.shapes import find_shape
from tritloom.gen.plan.timing import Host, token_times
from tritloom.gen.workloads import Layer
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

KV260 = read_platform(ROOT / "examples/platforms/kv260.toml")
MODEL = find_shape("bitnet-2b-4t")


def cpu_of(macs_per_s):
    """A CPU that takes its time by the number of multiply-accumulates alone."""

    def measure(layers, tokens):
        macs = tokens * sum(layer.weights for layer in layers)
        return Cpu(name="test", tokens=tokens, macs=macs, total_s=macs / macs_per_s)

    return measure


def plan(platform=KV260, model=MODEL, **options):
    return predict(platform, *model, measure=cpu_of(1e9), **options)


def near(value, published):
    return abs(value / published - 1) <= 0.1


class TestPublished:
    """bitnet-kv260, from its parameters; all that its host takes is an input."""

    def test_layers(self):
        """All ternary layers: 32.80 ms for 417.5 MB, 79.6 % of 16 GB/s."""
        prediction = plan()
        assert near(prediction.times.total_s, 32.80e-3)
        assert near(prediction.needed_bytes, 417.5e6)
        assert near(prediction.roofline, 0.796)
        assert prediction.binds == "memory" and prediction.fits == "all"

    def test_token(self):
        """59.6 ms a token; then 18.57 tokens/s with less glue and a faster attention."""
        assert near(plan().token_s, 59.6e-3)
        faster = replace(KV260, measured_s=KV260.measured_s | {"other": 0.0201 - 0.0033 - 0.0023})
        assert near(1 / plan(faster).token_s, 18.57)

    def test_chosen_offsets(self):
        """A layer of 2560 × 2560 at 15.0 GB/s, with the offsets that the design chose."""
        memory = replace(KV260.config.memory, efficiency=0.94)
        platform = replace(KV260, config=replace(KV260.config, memory=memory))
        layers = [Layer("o_proj", 2560, 2560)]
        (each,) = plan(platform, (None, layers, layers)).layers
        assert near(2560 * 2560 * 0.2 / each.times.total_s, 15.0e9)


class TestParts:
    def test_layers_by_hand(self):
        """Cycles of a memory that does not stall are the formula's; useful bits by the width."""
        config = replace(
            KV260.config, memory=replace(KV260.config.memory, efficiency=1.0, latency_cycles=0)
        )
        layers = [Layer("a", 2560, 640, 3)]
        platform = replace(KV260, config=config, host=Host(call_s=1e-3, command_s=0))
        prediction = plan(platform, (None, layers, layers))
        (each,) = prediction.layers
        run = config.planned_run_cycles(LayerShape(64, 80))
        assert each.cycles == 3 * run and 5120 < run < 5200
        assert each.words == 64 * 80 and each.resident == 3
        assert each.roofline == pytest.approx(5120 / run)
        assert prediction.times.total_s == pytest.approx(3 * (run / 250e6 + 1e-3))
        assert prediction.to_dict()["layers"][0]["bits_per_weight"] == 1.6
        assert prediction.to_dict()["model"] is None

    def test_after(self):
        """Attention and head: measured on the platform, or there by bytes, or on this computer."""
        shape, *_ = MODEL
        host = replace(KV260, measured_s={}, device_head=False, host_bytes_per_s=2e9)
        parts = plan(host, context=100).parts_s
        assert parts["head"] == 2 * 2560 * 128256 / 2e9
        assert parts["attention"] == 2 * 2 * 30 * 5 * 128 * 100 / 2e9
        here = replace(host, host_bytes_per_s=None)
        parts = plan(here, context=100).parts_s
        assert parts["head"] == 2560 * 128256 / 1e9
        assert parts["attention"] == shape.cache_values(100) / 1e9
        assert parts["other"] == 0
        device = plan(replace(here, device_head=True)).parts_s["head"]
        assert near(device, 65.7e6 / (16e9 * 0.786))
        for each in (host, here, KV260):
            prediction = plan(each)
            cpu_s = (2084044800 + 2560 * 128256 + shape.cache_values(64)) / 1e9
            assert prediction.cpu_s == pytest.approx(cpu_s)
            after = sum(prediction.parts_s[name] for name in ("attention", "head", "other"))
            assert prediction.token_s == prediction.times.total_s + after

    def test_batches(self):
        """A prompt needs the head once; several sequences need it for each."""
        host = replace(KV260, measured_s={"attention": 0.1, "head": 10.0, "other": 0.01})
        prediction = plan(host, context=64, prefill=8, sequences=3)
        layers = prediction.times.total_s
        count, prompt = prediction.batches["prefill"]
        assert count == 8 and prompt == pytest.approx(8 * (layers + 0.05 + 0.01) + 10)
        count, several = prediction.batches["sequences"]
        assert count == 3 and several == pytest.approx(3 * (layers + 0.1 + 0.01 + 10))


class TestBoards:
    def test_time_is_that_of_the_boards_list(self):
        board = load_board("ulx3s-85f")
        prediction = plan(platform_of(board), find_shape("tinylm"))
        assert prediction.fits == "all"
        times = token_times(board.build_config, find_shape("tinylm")[1])
        assert prediction.times.total_s == pytest.approx(times.total_s)
        assert prediction.binds == "link out"
        result = prediction.to_dict()
        assert result["faster"] == "cpu"
        assert result["tokens_per_second"] == pytest.approx(1 / prediction.token_s, rel=1e-5)

    def test_what_does_not_fit_is_loaded(self):
        prediction = plan(platform_of(load_board("ulx3s-85f")))
        assert prediction.fits == "none" and prediction.binds == "loading"
        assert prediction.needed_bytes > 1000 * prediction.platform.memory_bytes
        assert all(each.resident == 0 for each in prediction.layers)

    def test_the_rest_on_the_host(self):
        """Layers that stay take the platform's time, and the others this computer's."""
        words = LayerShape.of(KV260.config, 80, 200).words
        platform = replace(KV260, config=KV260.config.with_words(3 * words))
        layers = [Layer("up", 200, 80, 7)]
        prediction = plan(platform, (None, layers, layers))
        (each,) = prediction.layers
        assert (each.resident, prediction.fits) == (2, "part")  # beside room for one that is loaded
        (alone,) = plan(KV260, (None, layers, layers)).layers
        here = 5 * 200 * 80 / 1e9
        after = sum(prediction.parts_s[name] for name in ("attention", "head", "other"))
        assert prediction.on_host_s == pytest.approx(2 / 7 * alone.times.total_s + here + after)
        rest = prediction.to_dict()["rest_on_host"]
        assert (rest["layers"], rest["weights"]) == (5, 5 * 16000)
        assert rest["bytes"] == 5 * words * 64
        assert rest["tokens_per_second"] == pytest.approx(1 / prediction.on_host_s, rel=1e-5)
        assert plan().on_host_s is None and plan().to_dict()["rest_on_host"] is None

    def test_two_methods(self):
        """The faster one counts; both are told."""
        slow, fast = cpu_of(1e9), cpu_of(4e9)
        for first, second in ((slow, fast), (fast, slow)):
            prediction = predict(KV260, *MODEL, measure=first, also=second)
            assert prediction.cpu.total_s == pytest.approx(2084044800 / 4e9)
            assert [each.total_s for each in prediction.cpus] == [
                method(MODEL[1], 1).total_s for method in (first, second)
            ]

    def test_half_of_the_experts(self):
        """Of 16 experts 8 stay, beside room for one more; 2 of the 4 that compute are loaded."""
        words = LayerShape.of(KV260.config, 80, 200).words
        platform = replace(KV260, config=KV260.config.with_words(9 * words))
        model = (None, [Layer("up", 200, 80, 4)], [Layer("up", 200, 80, 16)])
        prediction = plan(platform, model)
        (each,) = prediction.layers
        assert (each.resident, prediction.fits) == (2, "part")
        assert prediction.needed_bytes == 16 * words * 64
        assert prediction.times.loading_s > 0

    def test_experts(self):
        """With half of the experts in the memory, half of those that compute a token are loaded."""
        model = find_shape("experts-30b-a3b")
        memory = replace(KV260.config.memory, words=KV260.config.memory_words)
        platform = replace(KV260, config=replace(KV260.config, memory=memory))
        prediction = plan(platform, model)
        assert prediction.fits == "part"
        for each, stored in zip(prediction.layers, model[2], strict=True):
            assert 0 <= each.resident <= each.layer.count <= stored.count

    def test_other_weights(self):
        config = replace(KV260.config, encoding="sign2", alphabet="binary")
        with pytest.raises(ConfigError, match=r"^Kria KV260: ternary layers with 8-bit "):
            plan(replace(KV260, config=config))
