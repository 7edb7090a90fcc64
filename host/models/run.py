"""Runs a language model with its ternary layers on a device: the work of `tritloom run`."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.device import Handle, connect, require_linear
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.result import LayerUse, RunResult, RunTimes
from tritloom.host.models.tokenizer import encode_prompt, load_tokenizer, stream_text
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["find_model", "run_model"]

MODELS = Path("models")
"""The folder in which a model's bare name is looked up."""


def find_model(name: str) -> Path:
    """The folder `name`, or else the folder of that name in `models`.

    Raises
    ------
    CheckpointError : there is no such folder
    """
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
) -> RunResult:
    """Continue a prompt; the device computes each ternary layer, NumPy the rest.

    Parameters
    ----------
    path : the model's folder
    url : the device
    prompt : the text to continue
    max_tokens : most new tokens
    temperature : 0 takes the most likely token, above 0 tokens are drawn with `seed`
    seed : of the drawing
    write : receives the text piece by piece
    loading : receives the number of layers written to the device, and of all

    Raises
    ------
    CheckpointError, InputError : of the model and the prompt, before the device is opened
    DeviceError : of the device
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

    # Errors in the model or the prompt must show before the device is opened.
    model = BitNetModel(load_checkpoint(path), linear)
    tokenizer = load_tokenizer(path)
    prompt_ids = encode_prompt(tokenizer, prompt)
    tokens = model.generate(prompt_ids, max_tokens, temperature=temperature, seed=seed)
    ids: list[int] = []
    first_token: list[float] = []

    def noted() -> Iterator[int]:
        for token in tokens:
            first_token[:] = first_token or [time.perf_counter()]
            ids.append(token)
            yield token

    started = time.perf_counter()
    with connect(url) as device:
        connected = time.perf_counter()
        require_linear(device.info.config)
        for name, layer in model.layers.items():
            handles[name] = device.load(layer)
            loading(len(handles), len(model.layers))
        loaded = time.perf_counter()
        pieces = []
        for piece in stream_text(tokenizer, noted(), prompt_ids):
            pieces.append(piece)
            write(piece)
        ended = time.perf_counter()
        config = device.info.config
    return RunResult.of(
        model=path.name,
        device=url,
        prompt=prompt,
        prompt_ids=prompt_ids,
        ids=ids,
        text="".join(pieces),
        layers=[LayerUse.of(name, handle) for name, handle in handles.items()],
        times=RunTimes(
            connect_s=connected - started,
            load_s=loaded - connected,
            first_token_s=first_token[0] - loaded,
            generate_s=ended - loaded,
            linear_s=linear_s,
        ),
        config=config,
    )
