"""Two ternary models on the simulated FPGA: every integer exact, every cycle counted."""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tritloom.boards.board import load_board
from tritloom.gen.cli.text import Column, columns, fill, loading_bar, table
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
    """Prints a line for each layer, with what one token takes."""
    heads = [Column("layer", wraps=True), Column("shape", right=True)]
    heads += [Column(name, right=True) for name in ("cycles", "MAC/cycle", "of", "bytes")]
    rows = [
        (
            layer.name.removeprefix("model."),
            " × ".join(map(str, layer.shape)),
            f"{layer.cycles // layer.tokens:,}",
            f"{layer.mac_per_cycle:.1f}",
            possible,
            f"{layer.bytes // layer.tokens:,}",
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
    print_layers(result.layers, timing.mac_per_cycle_possible)

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
        bar = "█" * max(1, round((columns() - 56) * part / total))
        print(f"  {what:40}{part * 1e3:8.2f} ms  {bar}")
    return equal


def engines() -> None:
    """Prints the two engines side by side, as `tritloom measure engine` measured them."""
    print("\nEngines on a Lattice ECP5, placed and routed (docs/reference/engines.md):\n")
    heads = [Column("engine"), Column("encoding")]
    names = ("LUTs", "block RAM", "MAC/cycle", "MHz", "GMAC/s")
    heads += [*(Column(name, right=True) for name in names), Column("")]
    rows = []
    for file in ENGINES:
        result = json.loads((RESULTS / file).read_text(encoding="utf-8"))
        rate = result["mac_per_cycle"] * result["fmax_mhz_median"] / 1e3
        figures = result["luts"], result["block_rams"], result["mac_per_cycle"]
        clock = f"{result['fmax_mhz_median']:.1f}"
        bar = "█" * max(1, round(rate / 4))
        rows.append((result["engine"], result["encoding"], *figures, clock, f"{rate:.1f}", bar))
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
            f"{config.rows} rows = {config.macs_per_cycle} MAC/cycle, "
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
