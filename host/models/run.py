"""Runs a language model with its ternary layers on a device, and tells what each of them took."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.checkpoint import load_checkpoint
from tritloom.host.device import Handle, Stats, connect, require_linear
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.bitnet import Decoder, load_tokenizer, stream_text
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["encode_prompt", "find_model", "outcome", "run_model"]

MODELS = Path("models")
"""Where a model's bare name is looked for."""


def find_model(name: str) -> Path:
    """The folder that is `name`, else the one of that name in `models`."""
    places = [Path(name)] + ([MODELS / name] if Path(name).name == name else [])
    for place in places:
        if place.is_dir():
            return place
    tried = " or ".join(str(place) for place in places)
    raise CheckpointError(
        f"no model directory {tried}; give the path of a folder with config.json, "
        "model.safetensors and tokenizer.json"
    )


def run_model(
    path: Path,
    url: str,
    prompt: str,
    max_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
    loading: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Write up to `max_tokens` tokens after `prompt`, each ternary layer computed by the device.

    `write` gets the text piece by piece, `loading` the number of layers loaded and of all. Gives
    `prompt`, `prompt_ids`, `ids` and `text` (what was written), `layers` (what each took on the
    device) and `timing`.
    """
    handles: dict[str, Handle] = {}
    linear_s = 0.0

    def linear(
        name: str, layer: TernaryLayer, x: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        nonlocal linear_s
        begin = time.perf_counter()
        y = device.linear(handles[name], x)
        linear_s += time.perf_counter() - begin
        return y

    # What can be wrong with the model or the prompt shows before the device is opened.
    decoder = Decoder(load_checkpoint(path), linear)
    tokenizer = load_tokenizer(path)
    prompt_ids = encode_prompt(tokenizer, prompt)
    tokens = decoder.generate(prompt_ids, max_tokens, temperature=temperature, seed=seed)
    ids: list[int] = []
    first_token: list[float] = []

    def taken() -> Iterator[int]:
        for token in tokens:
            first_token[:] = first_token or [time.perf_counter()]
            ids.append(token)
            yield token

    started = time.perf_counter()
    with connect(url) as device:
        connected = time.perf_counter()
        require_linear(device.info.config)
        for name, layer in decoder.layers.items():
            handles[name] = device.load(layer)
            loading(len(handles), len(decoder.layers))
        loaded = time.perf_counter()
        pieces = []
        for piece in stream_text(tokenizer, taken(), prompt_ids):
            pieces.append(piece)
            write(piece)
        ended = time.perf_counter()
        config = device.info.config
    layers = [_layer(name, handle.stats) for name, handle in handles.items()]
    times = {
        "connect_s": connected - started,
        "load_s": loaded - connected,
        "first_token_s": first_token[0] - loaded,
        "generate_s": ended - loaded,
        "linear_s": linear_s,
    }
    told = {"model": path.name, "device": url, "prompt": prompt, "prompt_ids": prompt_ids}
    return outcome(told | {"ids": ids, "text": "".join(pieces)}, layers, times, config)


def outcome(
    told: dict[str, Any],
    layers: list[dict[str, Any]],
    times: dict[str, float],
    config: AcceleratorConfig,
) -> dict[str, Any]:
    """All that a run tells: the rates of each layer, whose `macs` go into them, and of all."""
    cycles = sum(layer["cycles"] for layer in layers)
    macs = sum(layer["macs"] for layer in layers)
    rated = [
        {name: value for name, value in layer.items() if name != "macs"}
        | {"mac_per_cycle": _rate(layer["macs"], layer["cycles"])}
        for layer in layers
    ]
    return {
        **told,
        "layers": rated,
        "timing": {
            **times,
            "tokens_per_s": len(told["ids"]) / times["generate_s"],
            "device_cycles": cycles,
            "device_s": cycles / config.clock_hz,
            "clock_hz": config.clock_hz,
            "mac_per_cycle": _rate(macs, cycles),
            "mac_per_cycle_possible": config.macs_per_cycle,
            "bytes": sum(layer["bytes"] for layer in layers),
        },
    }


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Ids of `prompt`; `InputError` if it is not text."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is not text at character {error.start}; give it in UTF-8"
        ) from None
    ids: list[int] = tokenizer.encode(prompt).ids
    return ids


def _rate(macs: int, cycles: int) -> float:
    """A golden device counts no cycles where no formula gives them."""
    return macs / cycles if cycles else 0.0


def _layer(name: str, stats: Stats) -> dict[str, Any]:
    """`shape` is out × in features; `macs` counts no padding; `bytes` went both ways."""
    return {
        "name": name,
        "shape": [stats.out_features, stats.in_features],
        "tokens": stats.tokens,
        "runs": stats.runs,
        "cycles": stats.cycles,
        "macs": stats.macs,
        "bytes": stats.bytes_tx + stats.bytes_rx,
    }
