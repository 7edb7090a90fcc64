import io
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT, quick_first
from tritloom.boards.board import load_board
from tritloom.gen.cli.figures import seconds
from tritloom.gen.plan.models import known_layers
from tritloom.gen.plan.programs import execution_cycles
from tritloom.gen.plan.timing import Times, layer_times, token_times
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.blocks import decoder_program
from tritloom.rtl.spec.errors import ConfigError, DeviceError
from tritloom.rtl.spec.vector_facts import VectorConfig

TINYLM = ROOT / "models" / "tinylm"
REMEDY = "give the path of a folder with config.json, model.safetensors and tokenizer.json"
ULX3S = load_board("ulx3s-85f").config


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


class TestRun:
    def test_json(self, run):
        """The ids that transformers computed; the text; every layer; on one line."""
        reference = np.load(ROOT / "models" / "tinylm_reference.npz")
        status, out, err = run(
            *("run", "tinylm", "--device", "golden", "--prompt", reference["p0.prompt"]),
            *("--max-tokens", 12, "--json"),
        )
        assert (status, err) == (0, "")
        assert out.count("\n") == 1
        output = json.loads(out)
        prompt = reference["p0.ids"].tolist()
        assert output["prompt_ids"] == prompt
        assert output["ids"] == reference["p0.greedy_bitlinear"].tolist()[len(prompt) :][:12]
        assert output["text"] == " in the same, and then returned"
        assert len(output["layers"]) == 8
        layer = output["layers"][0]
        assert output["placement"]["fit"] == "all"
        assert (layer["name"], layer["shape"]) == ("model.layers.0.self_attn.qkv_proj", [512, 256])
        assert (layer["tokens"], layer["runs"]) == (15, 15)
        assert layer["mac_per_cycle_run"] == 15 * 512 * 256 / layer["run_cycles"]
        assert 160 <= layer["mac_per_cycle_run"] <= ULX3S.macs_per_cycle
        assert layer["bytes"] > 15 * (512 * 3 + 256)
        timing = output["timing"]
        assert timing["run_cycles"] == sum(layer["run_cycles"] for layer in output["layers"])
        assert timing["run_s"] == timing["run_cycles"] / timing["clock_hz"]
        assert 0 < timing["first_token_s"] <= timing["generate_s"]
        # By the time model, on the board whose hardware the device is.
        config = load_board("ulx3s-85f").build_config
        assert output["link"] == {"kind": "uart", "baud": 3_000_000}
        assert output["end_to_end"] == token_times(config, known_layers("tinylm")).to_dict()
        assert output["end_to_end"]["run_cycles"] == timing["run_cycles"] / 15

    def test_text(self, run):
        status, out, err = run(
            *("run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 12)
        )
        assert (status, out) == (0, " in the same, and then returned\n")
        lines = err.splitlines()
        assert lines[1].startswith("End to end: 12 tokens in ")
        times = token_times(load_board("ulx3s-85f").build_config, known_layers("tinylm"))
        assert " ".join(lines[2:4]) == (
            f"With UART at 3 Mbaud the device's layers take {seconds(times.total_s)} a token by "
            "the time model, end to end; link out binds."
        )
        heads = ["layer", "shape", "bytes", "runs", "RUN:", "cycles", "MAC/cycle"]
        assert lines[5].split() == heads
        assert lines[6].split()[:4] == ["layers.0.self_attn.qkv_proj", "512", "×", "256"]
        assert lines[6].split()[5] == "15"
        assert lines[-1].startswith("RUN alone: ")
        assert lines[-1].endswith(f"of {ULX3S.macs_per_cycle} MAC/cycle")

    def test_vector_unit(self, run, monkeypatch):
        """Which floats the device computed, and what each routine took."""
        from tritloom.host.models import run as module

        connect = module.connect
        config = replace(load_board("ulx3s-85f").build_config, vector=VectorConfig(words=4128))
        monkeypatch.setattr(module, "known_config", lambda url: None)
        monkeypatch.setattr(module, "connect", lambda url: connect(url, config=config))
        arguments = ["run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 2]
        status, out, err = run(*arguments)
        assert (status, out) == (0, " in the\n")
        lines = err.splitlines()
        assert "device's layers take" in err
        layer = next(line for line in lines if line.startswith("layers.0.self_attn.qkv_proj"))
        assert layer.split()[4:] == ["-", "5", "-", "-"]
        place = next(i for i, line in enumerate(lines) if line.startswith("Floats on the device"))
        summary = " ".join(lines[place : place + 2])
        assert summary.startswith("Floats on the device: norms, codes and scales, residuals, ")
        output = json.loads(run(*arguments, "--json")[1])
        cycles = output["blocks"]["token_cycles"]
        time = seconds((8872 * 270 + cycles) / 80e6)
        place = next(i for i, line in enumerate(lines) if line.startswith("A token takes"))
        assert " ".join(lines[place:-4]) == (
            f"A token takes 8,872 bytes and {cycles:,} cycles, one after the other {time} with "
            "UART at 3 Mbaud, beside the host."
        )
        assert lines[-4].split() == ["routine", "bytes", "executions", "cycles"]
        assert [line.split()[0] for line in lines[-3:]] == ["begin", "block", "block"]
        times = output["end_to_end"]
        assert (times["bytes_in"] + times["bytes_out"], times["bound"]) == (8872, "link out")
        program = decoder_program(config.vector, BitNetModel(load_checkpoint(TINYLM)).decoder())
        took = [
            execution_cycles(config, program.steps_of(name), program.layers)
            for name in program.routines
        ]
        assert round(times["engine_s"] * 80e6) == sum(cycles for cycles, _ in took)
        assert times["run_cycles"] == sum(engine for _, engine in took)
        layers = [math.prod(layer["shape"]) for layer in output["layers"] if layer["runs"]]
        assert times["macs"] == sum(layers)
        assert times["total_s"] > times["link_out_s"] > times["engine_s"]
        (begin, *_) = output["blocks"]["routines"]
        assert lines[-3].split() == [
            "begin",
            f"{begin['bytes']:,}",
            str(begin["executions"]),
            f"{begin['cycles']:,}",
        ]
        assert output["timing"]["bytes"] == sum(
            routine["bytes"] for routine in output["blocks"]["routines"]
        )

    def test_tokens_that_the_host_computed_again(self, run, monkeypatch):
        from tritloom.host.models import run as module
        from tritloom.host.models.placed_blocks import PlacedBlocks
        from tritloom.rtl.spec.errors import NotFiniteError

        def refuse(*arguments):
            raise NotFiniteError("too large")

        connect = module.connect
        config = replace(load_board("ulx3s-85f").build_config, vector=VectorConfig(words=4128))
        monkeypatch.setattr(module, "known_config", lambda url: None)
        monkeypatch.setattr(module, "connect", lambda url: connect(url, config=config))
        monkeypatch.setattr(PlacedBlocks, "run", refuse)
        arguments = ["run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 2]
        status, out, err = run(*arguments)
        assert (status, out) == (0, " in the\n")
        message = "The host computed 5 tokens again: a number was not finite or 2^126 or more."
        assert message in " ".join(err.split())
        assert "A token takes" not in err

    def test_part_on_the_device(self, run):
        """What the host computes is not in the model's figure; other boards have other figures."""
        arguments = ["run", TINYLM, "--prompt", "Emma was", "--max-tokens", 1, "--json", "--device"]
        output = json.loads(run(*arguments, "golden?board=icebreaker")[1])
        config = load_board("icebreaker").build_config
        parts = [part for layer in output["placement"]["layers"] for part in layer["on_device"]]
        times = sum((layer_times(config, part["rows"], part["columns"]) for part in parts), Times())
        assert output["end_to_end"] == replace(times, tokens=1).to_dict()
        weights = sum(layer["device_weights"] for layer in output["layers"])
        assert output["end_to_end"]["macs"] == weights

    def test_without_figures(self, run, monkeypatch):
        """A memory that gives no bound on a run."""

        def refuse(*arguments):
            raise ConfigError("no formula")

        monkeypatch.setattr("tritloom.gen.plan.timing.layer_times", refuse)
        arguments = ["run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 1]
        assert json.loads(run(*arguments, "--json")[1])["end_to_end"] is None
        assert "time model" not in run(*arguments)[2]

    def test_streams(self, run, monkeypatch):
        """Each piece is written when it is there, before the next token is computed."""
        from tritloom.host.models.bitnet import BitNetModel

        seen, generate = [], BitNetModel.generate

        def slow(self, *arguments, **options):
            for token in generate(self, *arguments, **options):
                seen.append(len(written))
                yield token

        written = []
        monkeypatch.setattr(BitNetModel, "generate", slow)
        monkeypatch.setattr(sys.stdout, "write", written.append)
        run("run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 5)
        assert seen == [0, 1, 2, 3, 4]

    def test_temperature(self, run):
        """Drawn tokens: the same for a seed, others for another one."""
        texts = [
            run(
                *("run", TINYLM, "--device", "golden", "--prompt", "Emma was"),
                *("--max-tokens", 20, "--temperature", 1.0, "--seed", seed),
            )[1]
            for seed in (1, 1, 2)
        ]
        assert texts[0] == texts[1] != texts[2]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope", "--prompt", "a"], f"no model directory nope or models/nope; {REMEDY}"),
            (["./nope", "--prompt", "a"], f"no model directory nope; {REMEDY}"),
            (["a/nope", "--prompt", "a"], f"no model directory a/nope; {REMEDY}"),
            (["models", "--prompt", "a"], "no config.json in models; copy the whole model"),
            (
                ["tinylm", "--prompt", ""],
                "the prompt must have at least one token, not none; give some text",
            ),
            (
                ["tinylm", "--prompt", "a\udcff"],
                "the prompt is not text at character 1; give it in UTF-8",
            ),
            (
                ["tinylm", "--prompt", "a", "--max-tokens", "512"],
                (
                    "1 + 512 tokens exceed the model's context of 512; "
                    "shorten the prompt or the output"
                ),
            ),
            (
                ["tinylm", "--prompt", "a", "--temperature", "nan"],
                "temperature must be 0 or more, not nan",
            ),
        ],
    )
    def test_bad_input(self, run, monkeypatch, arguments, message):
        """Told before a device is opened."""
        monkeypatch.setattr("tritloom.host.models.run.connect", None)
        assert run("run", *arguments) == failed(message)

    @pytest.mark.torch
    @pytest.mark.filterwarnings("default")
    def test_transformers(self, run, monkeypatch):
        """The same words, the layers one by one."""
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
        arguments = ["run", "tinylm", "--device", "golden", "--prompt", "Emma was"]
        arguments += ["--max-tokens", "12"]
        output = json.loads(run(*arguments, "--json")[1])
        status, out, err = run(*arguments, "--json", "--runtime", "transformers")
        other = json.loads(out)
        assert (status, err) == (0, "")
        for key in ("prompt_ids", "ids", "text", "device"):
            assert other[key] == output[key]
        assert list(other) == list(output) and list(other["timing"]) == list(output["timing"])
        assert set(other["layers"][0]) == set(output["layers"][0])
        layer = other["layers"][0]
        assert other["placement"]["fit"] == "all"
        assert (layer["name"], layer["shape"]) == ("model.layers.0.self_attn.q_proj", [256, 256])
        assert layer["mac_per_cycle_run"] == 15 * 256 * 256 / layer["run_cycles"]
        arguments += ["--runtime", "transformers", "--temperature", "1"]
        drawn = [run(*arguments, "--seed", seed)[1] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    @pytest.mark.torch
    @pytest.mark.filterwarnings("default")
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--prompt", ""],
                "the prompt must have at least one token, not none; give some text",
            ),
            (
                ["--prompt", "a\udcff"],
                "the prompt is not text at character 1; give it in UTF-8",
            ),
            (
                ["--prompt", "a", "--max-tokens", "512"],
                (
                    "1 + 512 tokens exceed the model's context of 512; "
                    "shorten the prompt or the output"
                ),
            ),
            (
                ["--prompt", "a", "--temperature", "nan"],
                "temperature must be 0 or more, not nan",
            ),
            (
                ["--prompt", "a", "--packed", "a"],
                "--packed goes with the runtime numpy, not with transformers",
            ),
        ],
    )
    def test_transformers_bad_input(self, run, monkeypatch, arguments, message):
        monkeypatch.setattr("tritloom.host.device.connect", None)
        assert run("run", "tinylm", "--runtime", "transformers", *arguments) == failed(message)

    @pytest.mark.parametrize("prompt", ["-x", "--json", "-"])
    def test_prompt_with_a_dash(self, run, prompt):
        status, out, err = run(
            *("run", "tinylm", "--device", "golden", "--max-tokens", 1, "--json"),
            *("--prompt", prompt),
        )
        assert (status, err) == (0, "") and json.loads(out)["prompt"] == prompt

    @pytest.mark.parametrize(
        "board", ["icebreaker", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f"]
    )
    def test_every_board(self, run, board):
        """The same text on each: what does not fit stays on the host, and the command says so."""
        arguments = ["run", "tinylm", "--device", f"golden?board={board}", "--prompt", "Emma was"]
        status, out, err = run(*arguments, "--max-tokens", 12)
        assert (status, out) == (0, " in the same, and then returned\n")
        assert ("the host computes the rest" in " ".join(err.split())) == (board != "ulx3s-85f")
        status, out, err = run(*arguments, "--max-tokens", 12, "--json")
        assert (status, err) == (0, "")
        result = json.loads(out)
        assert result["text"] == " in the same, and then returned"
        assert result["placement"]["fit"] == ("all" if board == "ulx3s-85f" else "part")
        for layer in result["layers"]:
            assert (layer["runs"] > 0) == (layer["where"] != "host") == (layer["run_cycles"] > 0)

    @quick_first("device", ["golden", "sim"])
    def test_spram(self, run, device):
        """The iCEBreaker's SPRAM holds a whole block of tinylm, and the ids are transformers'."""
        reference = np.load(ROOT / "models" / "tinylm_reference.npz")
        status, out, _ = run(
            *("run", "tinylm", "--device", f"{device}?board=icebreaker&preset=spram"),
            *("--prompt", reference["p0.prompt"], "--max-tokens", 4, "--json"),
        )
        assert status == 0
        result = json.loads(out)
        prompt = reference["p0.ids"].tolist()
        assert result["ids"] == reference["p0.greedy_bitlinear"].tolist()[len(prompt) :][:4]
        for layer in result["layers"]:
            where = "device" if ".layers.0." in layer["name"] else "host"
            assert layer["where"] == where
        on_device = [layer for layer in result["layers"] if layer["where"] == "device"]
        assert sum(np.prod(layer["shape"]) for layer in on_device) == 589_824

    def test_what_runs_where_is_written_before_the_device_is_built(self, run, monkeypatch):
        def connect(url):
            assert "the host computes the rest" in " ".join(sys.stderr.getvalue().split())
            raise DeviceError("connected")

        monkeypatch.setattr("tritloom.host.models.run.connect", connect)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        status, _, _ = run(
            *("run", "tinylm", "--device", "sim?board=icebreaker", "--prompt", "a"),
        )
        assert status == 1
        assert sys.stderr.getvalue().endswith("tritloom: error: connected\n")

    def test_a_model_that_must_fit(self, run, monkeypatch):
        """Refused before the device is built, with the remedy."""
        monkeypatch.setattr("tritloom.host.models.run.connect", None)
        assert run(
            *("run", "tinylm", "--device", "sim?board=icebreaker", "--prompt", "a"),
            *("--fit", "all"),
        ) == failed(
            "the model does not fit the device, model.layers.0.self_attn.qkv_proj (512 × 256) is "
            'too much for its 1,536 words and 8 layer slots; give fit="layers" (--fit layers) to '
            "leave the rest on the host, or use a larger device"
        )
