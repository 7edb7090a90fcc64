"""Runs a language model with its ternary layers on a device: the work of `tritloom run`."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.gguf_header import is_gguf
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.device import connect, require_linear
from tritloom.host.layer import TernaryLayer
from tritloom.host.links.contract import DeviceUrl, known_config
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.placed_blocks import PlacedBlocks, Verify, plan_blocks
from tritloom.host.models.result import BlocksUse, LayerUse, RunResult, RunTimes
from tritloom.host.models.tokenizer import encode_prompt, load_tokenizer, stream_text
from tritloom.host.packed_file import PackedFile, Packing, write_packed
from tritloom.host.placement import Fit, PlacedLayer, Placement, load_placed, place_layers
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError
from tritloom.rtl.spec.packing import check_trits

__all__ = ["find_model", "run_model"]

MODELS = Path("models")
"""The folder in which a model's bare name is looked up."""


def find_model(name: str, files: str = "config.json, model.safetensors and tokenizer.json") -> Path:
    """The folder `name`, or else the folder of that name in `models`.

    Parameters
    ----------
    name : what the user gave
    files : what the folder must have, for the error's remedy

    Raises
    ------
    CheckpointError : there is no such folder, or it is a GGUF file
    """
    if is_gguf(name):
        raise CheckpointError(
            f"{name} is a GGUF file, whose tokenizer and norms are not read yet; give the path of "
            f"a folder with {files}"
        )
    places = [Path(name)] + ([MODELS / name] if Path(name).name == name else [])
    for place in places:
        if place.is_dir():
            return place
    tried = " or ".join(str(place) for place in places)
    raise CheckpointError(f"no model directory {tried}; give the path of a folder with {files}")


def run_model(
    path: Path,
    url: str,
    prompt: str,
    max_tokens: int,
    *,
    fit: Fit = "layers",
    temperature: float = 0.0,
    seed: int = 0,
    write: Callable[[str], object] = lambda text: None,
    loading: Callable[[int, int], object] = lambda done, total: None,
    placed: Callable[[Placement], object] = lambda placement: None,
    verify: Verify = "off",
    packed: Path | None = None,
    packing: Packing = lambda done, total: None,
) -> RunResult:
    """Continue a prompt; the device computes the ternary layers, NumPy the rest.

    A device with a vector unit computes norms, scales, activations and residuals too, as far as
    they fit. The floats are the same, bit for bit.

    Parameters
    ----------
    path : the model's folder
    url : the device
    prompt : the text to continue
    max_tokens : most new tokens
    fit : `layers` leaves on the host what does not fit the device; `all` refuses such a model
    temperature : 0 takes the most likely token, above 0 tokens are drawn with `seed`
    seed : of the drawing
    write : receives the text piece by piece
    loading : receives the number of layers written to the device, and of all
    placed : receives what runs where, before a simulated device is built and before any is loaded
    verify : which outputs of the vector unit are compared with the golden model: those of the first
        pass, all or none

    packed : file of packed weights; it is written if it is not there, and used if it is, so that
        the model is packed once. What stays on the host is not in it
    packing : receives the weights that are packed so far, and all

    Raises
    ------
    CheckpointError, InputError, CapacityError : of the model and the prompt, and for a model that
        does not fit; before a simulated device is built
    DeviceError : of the device; also if a compared float differs
    """
    placements: dict[str, PlacedLayer] = {}
    linear_s = 0.0

    def linear(
        name: str, layer: TernaryLayer, x: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        nonlocal linear_s
        begin = time.perf_counter()
        y = placements[name].linear(x)
        if placements[name].placement.on_device:
            linear_s += time.perf_counter() - begin
        return y

    # Errors in the model or the prompt must show before the device is opened.
    model = BitNetModel(load_checkpoint(path), linear)
    tokenizer = load_tokenizer(path)
    prompt_ids = encode_prompt(tokenizer, prompt)
    tokens = model.generate(prompt_ids, max_tokens, temperature=temperature, seed=seed)

    def decide(config: AcceleratorConfig) -> Placement:
        require_linear(config)
        for layer in model.layers.values():
            check_trits(config, layer.trits)
        shapes = {name: layer.trits.shape for name, layer in model.layers.items()}
        placement = place_layers(config, shapes)
        placement.require(fit)
        placed(placement)
        return placement

    config = known_config(DeviceUrl.parse(url))
    placement = None if config is None else decide(config)
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
        placement = placement or decide(device.info.config)
        order = placement.load_order
        images = None
        if packed is not None:
            whole = {each.name: model.layers[each.name] for each in order if each.where == "device"}
            if not packed.exists():
                write_packed(packed, device.info.config, whole, packing)
            images = PackedFile(packed, device.info.config).images
        for done, layer in enumerate(order, 1):
            placements[layer.name] = load_placed(device, model.layers[layer.name], layer, images)
            loading(done, len(order))
        for layer in placement.layers:
            if not layer.on_device:
                placements[layer.name] = load_placed(device, model.layers[layer.name], layer)
        plan = plan_blocks(device.info.config, model, placement)
        blocks = None
        if plan.program is not None:
            handles = {name: each.handle for name, each in placements.items() if each.handle}
            blocks = PlacedBlocks.load(device, model, plan, handles, verify)
        before = device.counters()
        loaded = time.perf_counter()
        pieces = []
        for piece in stream_text(tokenizer, noted(), prompt_ids):
            pieces.append(piece)
            write(piece)
        ended = time.perf_counter()
        config = device.info.config
        run_cycles = device.counters().run_cycles - before.run_cycles
    executions = {} if blocks is None else blocks.executions
    return RunResult.of(
        model=path.name,
        device=url,
        prompt=prompt,
        prompt_ids=prompt_ids,
        ids=ids,
        text="".join(pieces),
        placement=placement,
        layers=[
            LayerUse.of(
                layer.name, placements[layer.name].stats, layer, executions.get(layer.name, 0)
            )
            for layer in placement.layers
        ],
        blocks=BlocksUse.of(plan, blocks),
        run_cycles=None if blocks is None else run_cycles,
        times=RunTimes(
            connect_s=connected - started,
            load_s=loaded - connected,
            first_token_s=first_token[0] - loaded,
            generate_s=ended - loaded,
            linear_s=linear_s + (0.0 if blocks is None else blocks.seconds),
        ),
        config=config,
        plan=plan,
    )
