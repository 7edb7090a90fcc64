"""Two ternary models on the simulated FPGA: every integer exact, everything counted."""

import argparse
import json
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tritloom.boards.board import load_board
from tritloom.gen.cli.figures import rate, seconds, verdict
from tritloom.gen.cli.text import Column, columns, fill, loading_bar, table
from tritloom.gen.plan.cpu import measure_cpu
from tritloom.gen.plan.timing import layer_times, token_times
from tritloom.gen.workloads import Layer
from tritloom.host import TritloomError, connect, load_npz
from tritloom.host.models.result import LayerUse, RunResult
from tritloom.host.models.run import run_model
from tritloom.rtl.spec import numerics

MODELS = Path(__file__).resolve().parent.parent / "models"
BOARD = load_board("ulx3s-85f")
PROMPT = "p4"
"""Which of the reference's prompts is gone on with."""
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "reference" / "engines"
ENGINES = ("ecp5-table-sym6x10.json", "ecp5-select-diff2-small.json")
"""With about as many LUTs."""
BATCH = 25
INDENT = "  "


class Prose:
    """Prints a text that comes in pieces, indented, with lines that fit into the terminal."""

    def __init__(self, start: str) -> None:
        self._start = start
        self._used = 0

    def write(self, piece: str) -> None:
        """Prints a piece; the first one comes after `start`, which then stands on a line alone."""
        text = self._start + piece
        self._start = ""
        for word in re.findall(r"\n|\s*[^\s]+|\s+", text):
            if word == "\n" or self._used + len(word) > columns() - len(INDENT):
                print()
                self._used = 0
                word = word.lstrip()
            if word:
                print(word if self._used else INDENT + word, end="", flush=True)
                self._used += len(word)


def print_layers(layers: Sequence[LayerUse], possible: int) -> None:
    """Prints a line for each layer, with what one token takes: end to end, then RUN alone."""
    heads = [Column("layer", wraps=True), Column("shape", right=True)]
    heads += [Column(name, right=True) for name in ("end to end", "bytes")]
    heads += [Column(name, right=True) for name in ("RUN: cycles", "MAC/cycle", "of")]
    rows = [
        (
            layer.name.removeprefix("model."),
            " × ".join(map(str, layer.shape)),
            seconds(layer_times(BOARD.build_config, *layer.shape).total_s),
            f"{layer.bytes // layer.tokens:,}",
            f"{layer.run_cycles // layer.tokens:,}",
            f"{layer.mac_per_cycle_run:.1f}",
            possible,
        )
        for layer in layers
    ]
    print()
    print("\n".join(table(heads, rows, indent=INDENT)))


def digits(url: str) -> bool:
    """Classify the test digits; each layer's integers must be the golden model's."""
    layers, data = load_npz(MODELS / "digits_ternary.npz")
    x, labels = data["x_test"], data["y_test"]
    print(f"\nDigits: {len(x)} handwritten digits, a ternary network of {len(layers)} layers")
    right, exact = 0, True
    progress = loading_bar("digit")
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
    uses = [LayerUse.of(name, handle.stats) for name, handle in handles.items()]
    print_layers(uses, possible)
    return exact


def novel(url: str, tokens: int) -> bool:
    """Write a text; the ids must be those that transformers computed."""
    reference = np.load(MODELS / "tinylm_reference.npz")
    prompt = str(reference[f"{PROMPT}.prompt"])
    print("\ntinylm: a language model, its ternary layers in the chip's block RAM\n", flush=True)
    # The prompt is printed with the first word: the loading bar would overwrite it.
    result = run_model(
        *(MODELS / "tinylm", url, prompt, tokens),
        write=Prose(prompt).write,
        loading=loading_bar("loading layer"),
    )
    timing = result.timing
    written = [*result.prompt_ids, *result.ids]
    equal = written == reference[f"{PROMPT}.greedy_bitlinear"].tolist()[: len(written)]
    print(
        f"\n\n  {len(result.ids)} ids equal those that transformers computed: "
        f"{'yes' if equal else 'NO'}"
    )
    print_layers(result.layers, timing.mac_per_cycle_peak)

    print_token(result)
    return equal


def print_token(result: RunResult) -> None:
    """Prints what a token would take on the board, part by part, and on this computer alone."""
    layers = [Layer(layer.name, layer.shape[1], layer.shape[0]) for layer in result.layers]
    config = BOARD.build_config
    times = token_times(config, layers)
    timing = result.timing
    rest_s = (timing.generate_s - timing.linear_s) / result.layers[0].tokens
    link = config.link.title()
    parts = {
        "loading, all weights fit": times.loading_s,
        f"link in, {times.bytes_in:,} bytes, {link}": times.link_in_s,
        f"link out, {times.bytes_out:,} bytes, {link}": times.link_out_s,
        "front end": times.front_end_s,
        f"RUN alone, {times.run_cycles:,} cycles at {config.clock_hz / 1e6:g} MHz": times.engine_s,
        f"driver, {times.calls} calls": times.host_s,
        "rest of the model, this computer's NumPy": rest_s,
    }
    total = times.total_s + rest_s
    first = (
        f"End to end, a token on {BOARD.title} would take {seconds(total)}, "
        f"{rate(1 / total)} tokens/s; {times.bound} binds:"
    )
    print(f"\n{textwrap.indent(fill(first, columns() - len(INDENT)), INDENT)}")
    for what, part in parts.items():
        bar = "█" * max(1, round((columns() - 60) * part / total)) if part else ""
        print(f"  {what:42}{seconds(part):>9}  {bar}".rstrip())
    beside = fill(verdict(times, measure_cpu(layers)), columns() - len(INDENT))
    print(f"\n{textwrap.indent(beside, INDENT)}")


def engines() -> None:
    """Prints the two engines side by side, as `tritloom measure engine` measured them."""
    print("\nEngines on a Lattice ECP5, placed and routed; these rates are of RUN alone")
    print("(docs/reference/engines.md):\n")
    heads = [Column("engine"), Column("encoding")]
    names = ("LUTs", "block RAM", "MAC/cycle", "MHz", "GMAC/s")
    heads += [*(Column(name, right=True) for name in names), Column("")]
    rows = []
    for file in ENGINES:
        result = json.loads((RESULTS / file).read_text(encoding="utf-8"))
        gmac_per_s = result["mac_per_cycle"] * result["fmax_mhz_median"] / 1e3
        figures = result["luts"], result["block_rams"], result["mac_per_cycle"]
        clock = f"{result['fmax_mhz_median']:.1f}"
        bar = "█" * max(1, round(gmac_per_s / 4))
        rows.append(
            (result["engine"], result["encoding"], *figures, clock, f"{gmac_per_s:.1f}", bar)
        )
    print("\n".join(table(heads, rows, indent=INDENT)))


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
        first = (
            f"Tritloom on {options.device}: {config.engine} engine, {config.lanes} lanes × "
            f"{config.rows} rows = at most {config.macs_per_cycle} MAC/cycle, "
            f"{config.memory_words * config.word_bytes // 1024} KiB of weights in the chip"
        )
        print(fill(first, columns()))
        exact = digits(options.device) & novel(options.device, options.tokens)
        engines()
    except TritloomError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    print(f"\n{'All exact' if exact else 'NOT EXACT'}, in {time.perf_counter() - begin:.0f} s.")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
