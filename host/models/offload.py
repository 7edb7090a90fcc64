"""Runs a language model in transformers, with its ternary layers on a device."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritloom.host.checkpoints.values import read_json
from tritloom.host.device import connect, require_linear
from tritloom.host.links.contract import DeviceUrl, known_config
from tritloom.host.models.generation import end_of_sequence_ids
from tritloom.host.models.result import BlocksUse, LayerUse, RoutineUse, RunResult, RunTimes
from tritloom.host.models.tokenizer import check_text
from tritloom.host.placement import Fit, LayerPlacement, Placement
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["run_offloaded"]

PARTS = ("gate_proj", "up_proj", "down_proj")
"""Layers of a feed-forward."""
LONGEST_REASON = 200
"""Characters of transformers' own message that an error shows."""


def run_offloaded(
    path: Path,
    url: str,
    prompt: str,
    max_tokens: int,
    *,
    fit: Fit = "layers",
    temperature: float = 0.0,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
    placed: Callable[[Placement], object] = lambda placement: None,
) -> RunResult:
    """Continue a prompt; the device computes each ternary layer, transformers the rest.

    Parameters and results are those of `run_model`. transformers does not fuse layers, so there are
    more of them.

    Raises
    ------
    CheckpointError, InputError : of the model and the prompt, before the device is opened
    DeviceError : of the device
    """
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from tritloom.host.torch import offload, plan_offload  # its error says how to install torch

    import torch  # isort: skip
    from transformers import GenerationConfig, TextStreamer

    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature must be 0 or more, not {temperature}")
    check_text(prompt)
    generation = path / "generation_config.json"
    end_ids = end_of_sequence_ids(
        read_json(path / "config.json"), read_json(generation) if generation.is_file() else None
    )
    model, tokenizer = _load(path)
    prompt_ids: list[int] = tokenizer.encode(prompt)
    if not prompt_ids:
        raise InputError("the prompt must have at least one token, not none; give some text")
    vocabulary = model.get_input_embeddings().num_embeddings
    if max(prompt_ids) >= vocabulary:
        raise InputError(
            f"token ids must be below {vocabulary}, not {max(prompt_ids)}; "
            "use the model's own tokenizer"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and len(prompt_ids) + max_tokens > context:
        raise InputError(
            f"{len(prompt_ids)} + {max_tokens} tokens exceed the model's context of {context}; "
            "shorten the prompt or the output"
        )
    ids: list[int] = []
    pieces: list[str] = []
    first_token: list[float] = []

    class Streamer(TextStreamer):
        """Passes the text on piece by piece, and records the ids."""

        def put(self, value: Any) -> None:
            if not self.next_tokens_are_prompt:
                first_token[:] = first_token or [time.perf_counter()]
                ids.extend(value.tolist())
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)
            write(text)

    def decide(config: AcceleratorConfig) -> Placement:
        require_linear(config)
        placement = plan_offload(config, model)
        placement.require(fit)
        placed(placement)
        return placement

    config = known_config(DeviceUrl.parse(url))
    placement = None if config is None else decide(config)
    # Only what the other runtime uses as well; the rest of the model's file would take part too.
    model.generation_config = GenerationConfig(eos_token_id=list(end_ids) or None, pad_token_id=0)
    drawing = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    started = time.perf_counter()
    with connect(url) as device:
        connected = time.perf_counter()
        placement = placement or decide(device.info.config)
        with offload(model, device, fit=fit) as plan, torch.no_grad():
            loaded = time.perf_counter()
            before = device.counters().run_cycles
            torch.manual_seed(seed)
            inputs = torch.tensor([prompt_ids])
            model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=max_tokens,
                do_sample=bool(temperature),
                streamer=Streamer(
                    tokenizer,
                    skip_prompt=True,
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=False,
                ),
                **drawing,
            )
            ended = time.perf_counter()
            run_cycles = device.counters().run_cycles - before
        config = device.info.config
    report = plan.report()
    used = {layer.name: layer for layer in report.layers}
    executions = {
        f"{program.name}.{part}": program.tokens for program in report.programs for part in PARTS
    }
    return RunResult.of(
        model=path.name,
        device=url,
        prompt=prompt,
        prompt_ids=prompt_ids,
        ids=ids,
        text="".join(pieces),
        placement=placement,
        layers=[
            _layer_use(layer, used.get(layer.name), executions.get(layer.name, 0))
            for layer in placement.layers
        ],
        blocks=_blocks_use(config, report),
        run_cycles=run_cycles if report.programs else None,
        times=RunTimes(
            connect_s=connected - started,
            load_s=loaded - connected,
            first_token_s=first_token[0] - loaded,
            generate_s=ended - loaded,
            linear_s=report.total.seconds,
        ),
        config=config,
    )


def _blocks_use(config: AcceleratorConfig, report: Any) -> BlocksUse:
    """What programs of the vector unit did."""
    computed = "feed-forward between its norm and residual"
    if report.programs:
        names = ", ".join(program.name for program in report.programs)
        summary = f"Floats on the device: {computed} of {names}; transformers computes the others"
    else:
        summary = "Transformers computes all floats"
    reason = "; ".join(f"{name}: {why}" for name, why in report.without_program)
    if config.vector is None:
        reason = "the device has no vector unit"
    return BlocksUse(
        form="feed_forward" if report.programs else "none",
        on_device=(computed,) if report.programs else (),
        on_host=("all other floats",),
        reason=reason,
        summary=f"{summary} ({reason})." if reason else f"{summary}.",
        routines=tuple(
            RoutineUse(
                name=program.name,
                executions=program.tokens,
                cycles=program.cycles,
                bytes=program.bytes_tx + program.bytes_rx,
            )
            for program in report.programs
        ),
    )


def _layer_use(layer: LayerPlacement, report: Any, executions: int) -> LayerUse:
    """What the device did for a layer; `report` is None for one that was left to torch.

    `executions` are those of programs that name the layer.
    """
    return LayerUse(
        name=layer.name,
        shape=(layer.out_features, layer.in_features),
        where=layer.where,
        device_weights=layer.device_weights,
        tokens=(report.tokens if report else 0) + executions,
        runs=(report.calls if report else 0) + executions,
        run_cycles=report.cycles if report else 0,
        bytes=report.bytes_tx + report.bytes_rx if report else 0,
    )


def _load(path: Path) -> tuple[Any, Any]:
    """The model and its tokenizer as transformers loads them; `CheckpointError` if it does not."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # any of torch, safetensors, tokenizers and of the configuration
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise CheckpointError(f"transformers cannot load {path}: {reason}") from error
    return model, tokenizer
