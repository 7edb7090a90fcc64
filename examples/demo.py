"""Two ternary models on the simulated FPGA: every integer exact, every cycle counted."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tritloom.boards.board import load_board
from tritloom.host import TritloomError, connect, load_npz
from tritloom.host.models.result import LayerUse
from tritloom.host.models.run import run_model
from tritloom.rtl.links.uart_facts import BITS_PER_BYTE, Uart
from tritloom.rtl.spec import numerics

MODELS = Path(__file__).resolve().parent.parent / "models"
BOARD = load_board("ulx3s-85f")
PROMPT = "p4"
"""Which of the reference's prompts is gone on with."""
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "reference" / "engines"
ENGINES = ("ecp5-table-sym6x10.json", "ecp5-select-diff2-small.json")
"""With about as many LUTs."""
BATCH = 25
"""Bits on the line for a byte: start, eight, stop."""


def progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\r\x1b[K" if done == total else ""
        print(f"\r  {'█' * (30 * done // total):<30} {done}/{total}{end}", end="", file=sys.stderr)


def table(layers: Sequence[LayerUse], possible: int) -> None:
    """A line a layer, of one token."""
    print(f"\n  {'layer':26}{'shape':>12}{'cycles':>8}{'MAC/cycle':>11}{'of':>5}{'bytes':>7}")
    for layer in layers:
        rows, columns = layer.shape
        print(
            f"  {layer.name.removeprefix('model.'):26}{f'{rows} × {columns}':>12}"
            f"{layer.cycles // layer.tokens:>8}{layer.mac_per_cycle:>11.1f}{possible:>5}"
            f"{layer.bytes // layer.tokens:>7}"
        )


def digits(url: str) -> bool:
    """Classify the test digits; each layer's integers must be the golden model's."""
    layers, data = load_npz(MODELS / "digits_ternary.npz")
    x, labels = data["x_test"], data["y_test"]
    print(f"\nDigits: {len(x)} handwritten digits, a ternary network of {len(layers)} layers")
    right, exact = 0, True
    with connect(url) as device:
        handles = {name: device.load(layer) for name, layer in layers.items()}
        for start in range(0, len(x), BATCH):
            h = x[start : start + BATCH]
            for handle in handles.values():
                codes, s = numerics.absmax_quantize(np.maximum(h, 0))
                sums = device.matmul(handle, codes)
                exact &= np.array_equal(sums, numerics.matmul(handle.layer.trits, codes))
                h = numerics.rescale(sums, s, handle.layer.scale, handle.layer.scale_divides)
            right += int((h[:, :10].argmax(axis=1) == labels[start : start + BATCH]).sum())
            progress(min(start + BATCH, len(x)), len(x))
        possible = device.info.config.macs_per_cycle
    print(f"  {right} of {len(x)} right ({right / len(x):.2%})")
    print(f"  integers of every layer equal the golden model's: {'yes' if exact else 'NO'}")
    table([LayerUse.of(name, handle.stats) for name, handle in handles.items()], possible)
    return exact


def novel(url: str, tokens: int) -> bool:
    """Write a text; the ids must be those that transformers computed."""
    reference = np.load(MODELS / "tinylm_reference.npz")
    prompt = str(reference[f"{PROMPT}.prompt"])
    print(
        f"\ntinylm: a language model, its ternary layers in the chip's block RAM\n\n  {prompt}",
        end="",
    )

    def write(text: str) -> None:
        print(text.replace("\n", "\n  "), end="", flush=True)

    result = run_model(MODELS / "tinylm", url, prompt, tokens, write=write, loading=progress)
    timing = result.timing
    written = [*result.prompt_ids, *result.ids]
    equal = written == reference[f"{PROMPT}.greedy_bitlinear"].tolist()[: len(written)]
    print(
        f"\n\n  {len(result.ids)} ids equal those that transformers computed: "
        f"{'yes' if equal else 'NO'}"
    )
    table(result.layers, timing.mac_per_cycle_possible)

    passes = result.layers[0].tokens
    cycles, sent = timing.device_cycles / passes, timing.bytes / passes
    config = BOARD.build_config
    assert isinstance(config.link, Uart)
    baud = config.link.baud
    parts = {
        f"device, {cycles:,.0f} cycles at {config.clock_hz / 1e6:g} MHz": cycles / config.clock_hz,
        f"link, {sent:,.0f} bytes at {baud / 1e6:g} Mbaud": sent * BITS_PER_BYTE / baud,
        "host, this computer's NumPy": (timing.generate_s - timing.linear_s) / passes,
    }
    total = sum(parts.values())
    print(f"\n  A token on {BOARD.title} would take {total * 1e3:.1f} ms:")
    for what, part in parts.items():
        print(f"  {what:42}{part * 1e3:8.2f} ms  {'█' * max(1, round(30 * part / total))}")
    return equal


def engines() -> None:
    """The two engines in about as many LUTs, as ``tritloom measure engine`` measured them."""
    print("\nEngines on a Lattice ECP5, placed and routed (docs/reference/engines.md):\n")
    for file in ENGINES:
        found = json.loads((RESULTS / file).read_text(encoding="utf-8"))
        rate = found["mac_per_cycle"] * found["fmax_mhz_median"] / 1e3
        bar = "█" * max(1, round(rate / 2))
        print(
            f"  {found['engine']:7}{found['encoding']:9}{found['luts']:>6} LUT"
            f"{found['block_rams']:>4} block RAM{found['mac_per_cycle']:>5} MAC/cycle"
            f"{found['fmax_mhz_median']:>7.1f} MHz{rate:>6.1f} GMAC/s  {bar}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="sim", help="device URL (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens to write, 1 to 64")
    options = parser.parse_args()
    if not 1 <= options.tokens <= 64:
        parser.error(f"--tokens must be 1 to 64, not {options.tokens}")
    begin = time.perf_counter()
    try:
        with connect(options.device) as device:
            config = device.info.config
        print(
            f"Tritloom on {options.device}: {config.engine} engine, {config.lanes} lanes × "
            f"{config.rows} rows = {config.macs_per_cycle} MAC/cycle, "
            f"{config.memory_words * config.word_bytes // 1024} KiB of weights in the chip"
        )
        exact = digits(options.device) & novel(options.device, options.tokens)
        engines()
    except TritloomError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    print(f"\n{'All exact' if exact else 'NOT EXACT'}, in {time.perf_counter() - begin:.0f} s.")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
