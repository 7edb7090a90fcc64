"""Runs a language model in transformers, its ternary layers on a device."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritloom.host.device import connect
from tritloom.host.models.result import LayerUse, RunResult, RunTimes
from tritloom.host.models.tokenizer import encode_prompt, load_tokenizer
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["run_offloaded"]


def run_offloaded(
    path: Path,
    url: str,
    prompt: str,
    max_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
) -> RunResult:
    """Write up to `max_tokens` tokens after `prompt` as transformers does; the rest as `run_model`.

    The layers are those of the model, not fused, so that there are more of them.
    """
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from tritloom.host.torch import offload  # tells how to get torch, where it is missing

    import torch  # isort: skip
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be 0 or more, not {temperature}")
    prompt_ids = encode_prompt(load_tokenizer(path), prompt)
    if not prompt_ids:
        raise InputError("the prompt must have at least one token, not none; give some text")
    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"transformers cannot load {path}: {reason}") from None
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
        """Hands on the text as it comes, and notes the ids."""

        def put(self, value: Any) -> None:
            if not self.next_tokens_are_prompt:
                first_token[:] = first_token or [time.perf_counter()]
                ids.extend(value.tolist())
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)
            write(text)

    drawing = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    started = time.perf_counter()
    with connect(url) as device:
        connected = time.perf_counter()
        with offload(model, device) as plan, torch.no_grad():
            loaded = time.perf_counter()
            torch.manual_seed(seed)
            given = torch.tensor([prompt_ids])
            model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=max_tokens,
                do_sample=bool(temperature),
                pad_token_id=0,
                streamer=Streamer(tokenizer, skip_prompt=True),
                **drawing,
            )
            ended = time.perf_counter()
        config = device.info.config
    report = plan.report()
    return RunResult.of(
        model=path.name,
        device=url,
        prompt=prompt,
        prompt_ids=prompt_ids,
        ids=ids,
        text="".join(pieces),
        layers=[
            LayerUse(
                name=layer.name,
                shape=(layer.out_features, layer.in_features),
                tokens=layer.tokens,
                runs=layer.calls,
                cycles=layer.cycles,
                bytes=layer.bytes_tx + layer.bytes_rx,
            )
            for layer in report.layers
        ],
        times=RunTimes(
            connect_s=connected - started,
            load_s=loaded - connected,
            first_token_s=first_token[0] - loaded,
            generate_s=ended - loaded,
            linear_s=report.total["seconds"],
        ),
        config=config,
    )
