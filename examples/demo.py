"""Two ternary models on the simulated FPGA: every integer exact, every cycle counted."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.host import Device, Handle, TernaryLayer, connect
from tritloom.host.checkpoint import load_checkpoint, load_npz
from tritloom.host.decoder import Decoder, load_tokenizer, stream_text
from tritloom.sim import golden

MODELS = Path(__file__).resolve().parent.parent / "models"
UART_BITS = 10
"""Bits on the line for a byte: start, eight, stop."""


def progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        bar = "█" * (30 * done // total)
        print(f"\r  {bar:<30} {done}/{total} ", end="", file=sys.stderr)
        if done == total:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def table(handles: dict[str, Handle], possible: int) -> None:
    """A line a layer, of one token."""
    print(f"\n  {'layer':26}{'shape':>12}{'cycles':>8}{'MAC/cycle':>11}{'of':>5}{'bytes':>7}")
    for name, handle in handles.items():
        stats = handle.stats
        shape = f"{stats.out_features} × {stats.in_features}"
        sent = (stats.bytes_tx + stats.bytes_rx) // stats.tokens
        print(
            f"  {name.removeprefix('model.'):26}{shape:>12}{stats.cycles // stats.tokens:>8}"
            f"{stats.macs / stats.cycles:>11.1f}{possible:>5}{sent:>7}"
        )


def digits(device: Device) -> bool:
    """Classify the test digits; each layer's integers must be the golden model's."""
    layers, data = load_npz(MODELS / "digits_ternary.npz")
    x, labels = data["x_test"], data["y_test"]
    print(f"\nDigits: {len(x)} handwritten digits, a ternary network of {len(layers)} layers")
    handles = {name: device.load(layer) for name, layer in layers.items()}
    right, exact = 0, True
    for start in range(0, len(x), 25):
        h = x[start : start + 25]
        for number, (name, handle) in enumerate(handles.items()):
            codes, s = golden.absmax_quantize(h)
            sums = device.matmul(handle, codes)
            exact &= np.array_equal(sums, golden.matmul(handle.layer.trits, codes))
            h = golden.rescale(sums, s, handle.layer.scale, handle.layer.scale_divides)
            if number < len(handles) - 1:
                h = np.maximum(h, 0)
        right += int((h[:, :10].argmax(axis=1) == labels[start : start + 25]).sum())
        progress(min(start + 25, len(x)), len(x))
    print(f"  {right} of {len(x)} right ({right / len(x):.2%})")
    print(f"  integers of every layer equal the golden model's: {'yes' if exact else 'NO'}")
    table(handles, device.info.config.macs_per_cycle)
    for handle in handles.values():
        device.unload(handle)
    return exact


def novel(device: Device, tokens: int) -> bool:
    """Write a text; the ids must be those that transformers computed."""
    reference = np.load(MODELS / "tinylm_reference.npz")
    prompt = reference["p0.ids"].tolist()
    expected = reference["p0.greedy_bitlinear"].tolist()[len(prompt) :][:tokens]
    handles: dict[str, Handle] = {}
    on_device = 0.0

    def linear(name: str, layer: TernaryLayer, x: np.ndarray) -> np.ndarray:
        nonlocal on_device
        begin = time.perf_counter()
        y = device.linear(handles[name], x)
        on_device += time.perf_counter() - begin
        return y

    decoder = Decoder(load_checkpoint(MODELS / "tinylm"), linear)
    for name, layer in decoder.layers.items():
        handles[name] = device.load(layer)
    trits = sum(layer.trits.size for layer in decoder.layers.values())
    print(f"\ntinylm: {trits:,} ternary weights, all in the device's block RAM\n")
    tokenizer = load_tokenizer(MODELS / "tinylm")
    print(f"  {reference['p0.prompt']}", end="", flush=True)
    ids: list[int] = []

    def taken():
        for token in decoder.generate(prompt, len(expected)):
            ids.append(token)
            yield token

    begin = time.perf_counter()
    for text in stream_text(tokenizer, taken(), prompt):
        print(text.replace("\n", "\n  "), end="", flush=True)
    seconds = time.perf_counter() - begin
    equal = ids == expected
    print(
        f"\n\n  {len(ids)} ids equal those that transformers computed: {'yes' if equal else 'NO'}"
    )
    config = device.info.config
    table(handles, config.macs_per_cycle)

    passes = next(iter(handles.values())).stats.tokens
    cycles = sum(handle.stats.cycles for handle in handles.values()) / passes
    sent = sum(h.stats.bytes_tx + h.stats.bytes_rx for h in handles.values()) / passes
    board = ULX3S_85F.build_config
    parts = {
        f"device, {cycles:,.0f} cycles at {board.clock_hz / 1e6:.0f} MHz": cycles / board.clock_hz,
        f"link, {sent:,.0f} bytes at {board.baud / 1e6:g} Mbaud": sent * UART_BITS / board.baud,
        "host, this computer's NumPy": (seconds - on_device) / passes,
    }
    print(f"\n  A token on {ULX3S_85F.title} would take {sum(parts.values()) * 1e3:.1f} ms:")
    for what, part in parts.items():
        share = part / sum(parts.values())
        print(f"  {what:42}{part * 1e3:8.2f} ms  {'█' * round(30 * share)}")
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="sim", help="device URL (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens to write, at most 64")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with connect(arguments.device) as device:
        config = device.info.config
        print(
            f"Tritloom on {arguments.device}: {config.engine} engine, {config.lanes} lanes × "
            f"{config.rows} rows = {config.macs_per_cycle} MAC/cycle, "
            f"{config.memory_words * config.word_bytes // 1024} KiB of weights in the chip"
        )
        ok = digits(device) & novel(device, arguments.tokens)
    print(f"\n{'All exact' if ok else 'NOT EXACT'}, in {time.perf_counter() - begin:.0f} s.")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
