"""Writes the pages that are made from the source: `python docs/make_reference.py`.

Reference pages are the docstrings, first-light pages the boards' records, and the figures of speed
the files that the measurements wrote. So pages and sources cannot differ; a test compares them.
"""

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tritloom.boards.board import Board, load_board
from tritloom.gen.emit.manifest import attribute_docs, describe, vector_layout
from tritloom.rtl.spec import (
    checks,
    commands,
    config,
    encodings,
    frames,
    packing,
    plugins,
    vector_program,
)
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUR_BOARDS = ("icebreaker", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f")
"""Boards with a first-light page: those of this project, not of plug-ins."""
MADE = "<!-- Made by docs/make_reference.py from the docstrings. Change those, then run it. -->"
MEASURED = "<!-- Made by docs/make_reference.py from the files in speed/. -->"
API = {
    "Driver": ("tritloom.host",),
    "Programs of the vector unit": (
        "tritloom.host.program",
        "tritloom.host.models.decoder",
        "tritloom.host.models.blocks",
        "tritloom.host.linear_program",
    ),
    "Offload from transformers": ("tritloom.host.torch",),
    "Arithmetic and packing": ("tritloom.rtl.spec.numerics", "tritloom.rtl.spec.packing"),
    "Boards and families": ("tritloom.boards.board", "tritloom.boards.families.family"),
    "Verification": ("tritloom.sim.verify.run",),
    "Plug-ins": (
        "tritloom.rtl.spec.plugins",
        "tritloom.rtl.spec.encodings",
        "tritloom.rtl.engines.contract",
        "tritloom.rtl.memories.contract",
        "tritloom.rtl.memories.line_facts",
        "tritloom.rtl.memories.line_contract",
        "tritloom.rtl.memories.lines",
        "tritloom.rtl.links.contract",
    ),
}
"""Modules of the Python API, by chapter."""


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists, two back-ticks become one."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    output: list[str] = []
    section = False
    position = 0
    while position < len(lines):
        line = lines[position]
        below = lines[position + 1] if position + 1 < len(lines) else ""
        if line and re.fullmatch("-{3,}", below):
            section = True
            output += [f"*{line}*", ""]
            position += 2
            continue
        entry = re.fullmatch(r"(\S[^:]*?) : (.*)", line) if section else None
        if entry:
            names = ", ".join(f"`{name.strip()}`" for name in entry[1].split(","))
            output.append(f"* {names}: {entry[2]}")
        elif section and line.startswith(" "):
            output.append(f"  {line.strip()}")
        else:
            output.append(line)
        position += 1
    return "\n".join(output).strip()


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def first_paragraph(docstring: str | None) -> str:
    return one_line(inspect.cleandoc(docstring or "").split("\n\n")[0])


def cell(text: object) -> str:
    """A table's cell: `|` would end it."""
    return str(text).replace("|", "\\|")


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def parameters(docstring: str | None) -> dict[str, str]:
    """Name → meaning of a docstring's section "Parameters"."""
    text = inspect.cleandoc(docstring or "").partition("Parameters\n----------\n")[2]
    text = re.split(r"\n\n\w+\n-{3,}\n", text)[0]
    meanings = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        names, colon, meaning = entry.partition(" : ")
        if colon:
            meanings.update({name.strip(): one_line(meaning) for name in names.split(",")})
    return meanings


def record_keys(record: type[plugins.Record]) -> str:
    """The JSON keys of a memory or link, with their meanings."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(record.__mro__):
        meanings |= parameters(ancestor.__dict__.get("__doc__"))
    return "; ".join(f"`{key.name}`: {meanings.get(key.name, '')}" for key in fields(record))


def configuration_page() -> str:
    meanings = parameters(config.AcceleratorConfig.__doc__)
    keys: list[list[object]] = []
    for key in fields(config.AcceleratorConfig):
        if key.default is not MISSING:
            default = f"`{key.default}`"
        elif key.default_factory is not MISSING:
            default = f'`{{"kind": "{key.default_factory().name}"}}`'
        else:
            default = "must be given"
        low, high = config.RANGES.get(key.name, (None, None))
        limits = "" if low is None else f"{low:,} to {high:,}"
        layout = "yes" if key.metadata.get("layout") else ""
        keys.append([f"`{key.name}`", meanings[key.name], limits, default, layout])
    derived: list[list[object]] = [
        [f"`{name}`", first_paragraph(member.__doc__)]
        for name, member in inspect.getmembers(config.AcceleratorConfig)
        if isinstance(member, property | cached_property) and member.__doc__
    ]
    engine_rows: list[list[object]] = [
        [f"`{name}`", ", ".join(f"`{e}`" for e in plugins.engines[name].encodings)]
        for name in plugins.engines
    ]
    encoding_rows: list[list[object]] = []
    for name in encodings.encodings:
        encoding = encodings.encodings[name]
        encoding_rows.append(
            [
                f"`{name}`",
                encoding.alphabet,
                f"{encoding.trits_per_code} in {encoding.code_bits}",
                f"{encoding.code_bits / encoding.trits_per_code:.2f}",
            ]
        )
    record_rows: list[list[object]] = [
        [f"`{kind}`", f"`{name}`", first_paragraph(registry[name].__doc__)]
        + [record_keys(registry[name])]
        for kind, registry in (("memory", plugins.memories), ("link", plugins.links))
        for name in registry
    ]
    of_unit = parameters(VectorConfig.__doc__)
    unit_rows: list[list[object]] = [
        [f"`{key.name}`", of_unit[key.name], f"`{json.dumps(key.default)}`"]
        for key in fields(VectorConfig)
    ]
    of_scale = parameters(ScaleConfig.__doc__)
    scale_rows: list[list[object]] = [
        [f"`{key.name}`", of_scale[key.name], f"`{json.dumps(key.default)}`"]
        for key in fields(ScaleConfig)
    ]
    example = config.TINY.to_json()
    return f"""{MADE}

# Configuration keys

{first_paragraph(config.AcceleratorConfig.__doc__)} It is the Python record
`tritloom.rtl.spec.config.AcceleratorConfig`; as a file it is JSON, for `tritloom generate --config`
and `tritloom build --config`:

```json
{{
  "lanes": 20,
  "rows": 2,
  "memory": {{"kind": "bram", "words": 1024}},
  "max_in_features": 256,
  "max_out_features": 256
}}
```

A key in the column "layout" is part of the layout digest, which must be equal in driver and device.
[The glossary](glossary.md) explains the terms.

{table(["key", "meaning", "range", "default", "layout"], keys)}

## Memories and links

Each is an object with its `kind` and the keys of that kind.

{table(["key", "kind", "what it is", "its keys"], record_rows)}

## Vector unit

`vector` is an object, such as `{VectorConfig.example}`. A key that is left out has its default.

{table(["key", "meaning", "default"], unit_rows)}

[What it does](../explanation/vector-unit.md).

## Scales

`scale` is an object, such as `{ScaleConfig.example}`. A key that is left out has its default.

{table(["key", "meaning", "default"], scale_rows)}

[What they do](../explanation/groups.md#scales-on-the-device).

## Engines

{table(["engine", "encodings that it takes"], engine_rows)}

[How they work](../explanation/engines.md), [what they reach](engines.md).

## Encodings

{table(["encoding", "alphabet", "trits in bits", "bits a weight"], encoding_rows)}

## Numbers that follow

Properties of `AcceleratorConfig`; a manifest has them under `derived`.

{table(["property", "meaning"], derived)}

## The whole form

Every key, sorted and without spaces, is the form that a device carries and that the build digest
is made of. The preset `TINY`, which the proofs use:

```json
{example}
```
"""


def layout_table(layout: list[dict[str, int]]) -> str:
    """Where each field lies; with its bits if some field is no whole number of bytes."""
    split = any(field["shift"] or field["bits"] != 8 * field["bytes"] for field in layout)
    rows: list[list[object]] = []
    for field in layout:
        first, last = field["shift"], field["shift"] + field["bits"] - 1
        rows.append([f"`{field['name']}`", field["offset"], field["bytes"]])
        if split:
            rows[-1].append(first if first == last else f"{first} to {last}")
    return table(["field", "offset", "bytes", *(["bits"] if split else [])], rows)


def enum_rows(kind: type[commands.Opcode] | type[commands.Status]) -> list[list[object]]:
    texts = {
        name: one_line(text)
        for name, text in zip((member.name for member in kind), _member_texts(kind), strict=True)
    }
    return [[member.value, f"`{member.name}`", texts[member.name]] for member in kind]


def _member_texts(kind: type) -> list[str]:
    """The text below each member in the source, with its code marks; empty where there is none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            texts.append("")
        elif texts and isinstance(statement, ast.Expr):
            texts[-1] = str(ast.literal_eval(statement.value))
    return texts


def protocol_page() -> str:
    described = describe(config.TINY)["commands"]
    docs = attribute_docs(commands)
    crc = described["crc"]
    crc_rows: list[list[object]] = [[key, f"`{value}`"] for key, value in crc.items()]
    counters = ", ".join(f"`{name}`" for name in described["counters"]["order"])
    further = " and ".join(f"`{name}`" for name in commands.VECTOR_COUNTERS)
    unit = vector_layout(VectorConfig())
    return f"""{MADE}

# Protocol

{markdown(commands.__doc__)}

[Why it is made this way](../explanation/packets.md). `manifest.json` of a generated design has the
same as data, the C header the same as macros.

## Header of a command

{layout_table(described["request"])}

## Header of a response

{layout_table(described["response"])}

## Checksum

{table(["", ""], crc_rows)}

## Opcodes

{table(["value", "name", "meaning"], enum_rows(commands.Opcode))}

## Status

{table(["value", "name", "meaning"], enum_rows(commands.Status))}

## Checks

A command is refused with the status of the first check in its list that fails.

{checks.check_table()}
## Payload of DEFINE

{docs["LAYER"]}

{layout_table(described["layer"]["fields"])}

## Identity

{docs["IDENTITY"]} The magic is `{described["identity"]["magic"]}`, the protocol version
{described["protocol_version"]}.

{layout_table(described["identity"]["fields"])}

## Counters

In this order: {counters}. {docs["COUNTERS"]}

A device with a vector unit has two more, {further}. {docs["VECTOR_COUNTERS"]}

## Steps of a program

The payload of PROGRAM holds steps of {unit["step_bytes"]} bytes. The program memory holds as many
as `steps` of the vector unit's configuration says. [Vector unit](../explanation/vector-unit.md)
has their rules.

{layout_table(unit["step"])}

{table(["operation", "name", "meaning"], enum_rows(vector_program.Operation))}

{table(["factor", "name", "meaning"], enum_rows(vector_program.Factor))}

{table(["second", "name", "meaning"], enum_rows(vector_program.Second))}

## Weights in memory

{markdown(packing.__doc__)}

## Frames on a byte link

{markdown(frames.__doc__)}
"""


def module_tree(name: str) -> ast.Module:
    """The source of a module, which is not imported: it may need what is not installed."""
    path = ROOT.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def public_names(tree: ast.Module) -> list[str]:
    """What `__all__` lists; every public definition if there is no `__all__`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    return [
        statement.name
        for statement in tree.body
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef))
        and not statement.name.startswith("_")
    ]


def definition(module: str, name: str) -> ast.stmt | None:
    """Where a name is defined: in the module, or in the one that it is imported from."""
    tree = module_tree(module)
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and statement.name == name:
            return statement
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(
            "tritloom"
        ):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return definition(str(statement.module), alias.name)
    return None


def function_text(function: ast.FunctionDef, owner: str = "") -> str:
    arguments = ast.unparse(function.args)
    if owner:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    name = f"{owner}.{function.name}" if owner else function.name
    returns = f" → {ast.unparse(function.returns)}" if function.returns else ""
    head = f"`{name}{returns}`" if "property" in decorators else f"`{name}({arguments}){returns}`"
    lines = markdown(ast.get_docstring(function)).splitlines()
    return "\n".join([head, "", *(f"> {line}".rstrip() for line in lines)])


def class_text(kind: ast.ClassDef) -> str:
    parts = [markdown(ast.get_docstring(kind))]
    members = [
        f"`{ast.unparse(statement)}`"
        for statement in kind.body
        if isinstance(statement, ast.AnnAssign)
        and not ast.unparse(statement.target).startswith("_")
    ]
    if members:
        parts.append("Fields: " + " · ".join(members))
    for statement in kind.body:
        if (
            isinstance(statement, ast.FunctionDef)
            and not statement.name.startswith("_")
            and ast.get_docstring(statement)
        ):
            parts.append(function_text(statement, kind.name))
    return "\n\n".join(parts)


def python_page() -> str:
    chapters = []
    for chapter, modules in API.items():
        parts = [f"## {chapter}"]
        for module in modules:
            tree = module_tree(module)
            parts.append(f"### `{module}`\n\n{markdown(ast.get_docstring(tree))}")
            for name in public_names(tree):
                match definition(module, name):
                    case ast.FunctionDef() as function:
                        parts.append(f"#### `{name}`\n\n{function_text(function)}")
                    case ast.ClassDef() as kind:
                        parts.append(f"#### `{name}`\n\n{class_text(kind)}")
        chapters.append("\n\n".join(parts))
    body = "\n\n".join(chapters)
    return f"""{MADE}

# Python API

{body}
"""


@dataclass(frozen=True)
class Bench:
    """What only a look at the board tells: where its cable goes, its ports and lights."""

    cable: str
    port: str
    ports: str
    lights: tuple[str, ...]
    trouble: tuple[tuple[str, str], ...]


ULX3S = Bench(
    cable="the USB connector US1, which leads to the FTDI chip",
    port="/dev/ttyUSB0",
    ports="The board has one serial port.",
    lights=("LED 0", "LED 1", "LED 2", "LED 3"),
    trouble=(
        (
            "the lights die a second or two after the bitstream was written",
            "The ESP32 loaded another bitstream. Build with this version, which prevents it.",
        ),
        (
            "`flash` finds no board",
            "Use US1. On US2 the DFU boot loader works: hold BTN1 while power comes.",
        ),
    ),
)
ICEBREAKER = Bench(
    cable="its only USB connector",
    port="/dev/ttyUSB1",
    ports="The USB chip has two ports: the first programs the flash, the second is the UART.",
    lights=("red light", "green light"),
    trouble=(
        (
            "`tritloom devices` lists two ports",
            "Take the second one. The first does not respond.",
        ),
    ),
)
BENCHES = {"ulx3s": ULX3S, "icebreaker": ICEBREAKER}
"""By the beginning of a board's name."""
STATES = (
    ("blinks, on for half a second and off for half a second", "the clock runs"),
    ("lit", "a product is computed"),
    ("flashes", "a sound packet came"),
    ("flashes", "a damaged packet came"),
)
"""What each light shows, in the order of `BoardTop`."""


def first_light_page(board: Board) -> str:
    bench = next(bench for start, bench in BENCHES.items() if board.name.startswith(start))
    build = board.build_config
    lights: list[list[object]] = [
        [light, state, meaning]
        for light, (state, meaning) in zip(bench.lights, STATES[: board.leds], strict=False)
    ]
    trouble: list[list[object]] = [[f"{what}", cure] for what, cure in bench.trouble]
    url = f"serial://{bench.port}"
    status = (
        "It has been run on hardware."
        if board.run_on_hardware
        else "Nobody has run this board on hardware yet: if you do, please report it (step 5)."
    )
    return f"""{MADE}

# First light: {board.title}

{board.part} with at most {build.macs_per_cycle} MAC/cycle at {build.clock_hz / 1e6:g} MHz. {status}

1. **Build** the bitstream; it takes some minutes:

   <!-- not run: minutes -->
   ```sh
   tritloom build --board {board.name} -o bitstream
   ```

   The line about timing must say that the clock was reached.

2. **Connect** {bench.cable}, and write the bitstream:

   <!-- not run: needs a board -->
   ```sh
   tritloom flash bitstream
   ```

3. **Look at the lights.** The first one must blink at once, without any program:

{textwrap.indent(table(["light", "shows", "meaning"], lights), "   ")}

4. **Test it.** {bench.ports}

   <!-- not run: needs a board -->
   ```sh
   tritloom devices
   tritloom info --device {url} --selftest
   ```

   Each line of the self-test begins with `ok`: identity, weight memory, known layer, link, clock.
   `FAIL` says what was expected and what came.

5. **Report it**: open an issue with `selftest.txt`, the build's `report.json` and the revision that
   is printed on the board:

   <!-- not run: needs a board -->
   ```sh
   tritloom info --device {url} --selftest --report selftest.txt
   ```

6. **Use it**:

   <!-- not run: needs a board -->
   ```sh
   tritloom run models/tinylm --device {url} --prompt "Emma was"
   ```

## If something is wrong

{table(["what you see", "what to do"], [*map(list, TROUBLE), *trouble])}

[Build a bitstream and write it to a board](../build-and-flash.md) ·
[the serial link](../../explanation/serial.md)
"""


TROUBLE = (
    (
        "no light blinks",
        "The bitstream is not in the FPGA, or the PLL did not lock. Write it again.",
    ),
    (
        "the first light is lit or dark all the time",
        "The clock does not run. Report it, with the board's revision.",
    ),
    (
        "`cannot open …`: no permission",
        "Add yourself to the group of the port (on Debian `dialout`) and log in again.",
    ),
    ("`cannot open …`: in use", "Another program has the port open. Close it."),
    (
        "the device does not respond",
        "Check the port. A bitstream with another rate needs `?baud=` in the URL.",
    ),
    (
        "another protocol version or layout digest",
        "The bitstream is of another version of Tritloom. Build and write it again.",
    ),
    (
        "`FAIL weight memory` or `FAIL known layer`",
        "A timing fault or a bad supply. Look at `timing_met` in `report.json`; report it.",
    ),
    ("`FAIL link`", "Bytes are lost. Results stay exact, only slower. Try a shorter cable."),
    ("`FAIL clock`", "The clock is not the one of the configuration. Report it."),
)


SPEED = """# Speed: measured figures

What a device reaches token after token, and what the driver takes of the host. Each file in
[`speed/`](speed/) has the command that made it, so anyone can repeat it.
[How to measure](../howto/measure.md#measure-a-stream-of-tokens) · [engines alone](engines.md)

## A stream of tokens

`tritloom measure stream` computes one layer for 64 tokens, each in a RUN of its own, on the
simulated FPGA. The link is always ready; it moves 1, 2 or 8 bytes a cycle in each direction. The
packet buffers hold 16 packets of 512 bytes, as much memory as the ULX3S 25F has for them. Every
result was compared with the golden model.

* **End to end** counts all cycles, from the first byte of the first LOAD to the last byte of the
  last result. **RUN alone** counts the cycles in which the engine computes.
* **Bottleneck**: what needs most cycles alone: the engine, the bytes to the device or the bytes
  from it, the overhead of packets included. **Busy** is its share of all cycles; in the others it
  waits for something else. Behind a wide link the acceptor still takes a byte a cycle, so a fast
  engine waits for the inputs of a small layer.

{streams}

## Weights from outside the chip

`tritloom measure stream --memory …`: each shape is computed for one token, all RUNs queued, on the
whole simulated accelerator with a model of the memory's chip. Cycles go from the cycle after the
first RUN's check to the last result. **Share** is what weight bits without padding take of the
cycles × the memory's width. The formula is exact where the memory never stalls. Not every
shape is simulated at every latency, because a test asserts the formula for all. Four ports lie on
[one simulated DRAM](../explanation/outside-memories.md#axi), with the packer's offsets.

{outside}

## A model's blocks on a vector unit

`tritloom measure block` compares floats with transformers: what the blocks' programs leave, and
each output of each norm, BitLinear, activation and residual, which are computed alone with the
inputs that they have in the model. The scales are made to divide, as those of transformers'
packed layers do. Of a model whose weights are not here it computes random layers and norms of the
same shapes, with inputs that are hard to compute: ties, zeros, subnormal numbers, the hardest
quotients. The device `golden` is the twin of the hardware; tests compare the two bit for bit.

{floats}

On hardware it counts cycles, and bytes on the link:

{blocks}

## The vector unit alone

`tritloom measure vector`: without commands, placed and routed in the harness of the engines.

{vectors}

## The scaling units of group sums

`tritloom measure scale`: one sum of a [group](../explanation/groups.md) in each cycle, with the
memory of totals. `fixed` adds exactly, `convert` makes float32 of its totals, and `float` rounds
every operation.

{scales}

## The logic of a memory outside the chip

`tritloom measure memory`: without the pads' buffers, placed and routed in the harness of the
engines. The reader and the writer are those of one AXI port; the store of an SDRAM is its
controller. For 7-series parts there is no open router.

{memories}

## The driver

`tritloom measure host`: CPU time of one core, with a link that responds at once and whose own time
is taken off. A call is a product with a layer of 64 × 64 and one token: three commands. The last
line tells how fast the computer is.

{driver}

`tritloom measure host --udp`: a packet over UDP and its response, from the session down to the
system's calls and back, with a peer behind the loopback interface. A gigabit needs 8.7 µs for a
packet of 1,024 bytes and 12.3 µs for one of 1,472.

{udp}

`tritloom measure host --load`: a layer of 2560 × 2560 is packed, and loaded in packets of 1,012
bytes that hold words of 128 bits. *Before the link* are packing, the packets and their checksums,
and the checksum of COMMIT. The driver as a whole also keeps the window and reads the responses.
The CRC-32 of 1,024 bytes took {load_crc} µs at the time.

{loading}

`tritloom measure host --serve`: a product of one token through `tritloom serve` with the golden
device, whose time counts too. The layers have the sizes of tinylm's; those of one line share a
message, as gate and up do. The CRC-32 of 1024 bytes
took {serve_crc} µs.

{serve}
"""


def memories_table(folder: Path) -> str:
    """The sizes and clocks of the logic of memories outside the chip."""
    rows: list[tuple[object, list[object]]] = []
    for file in folder.glob("memory-*.json"):
        figures = json.loads(file.read_text(encoding="utf-8"))
        record = figures["memory"]
        name, width = record["kind"], record.get("width", 0)
        what = f"{name}, {width} bits" if width else f"{name} {record['part']}"
        row: list[object] = [
            what,
            figures["component"],
            figures["part"],
            *(f"{figures[key]:,}" for key in ("luts", "ffs", "block_rams")),
            ", ".join(f"{clock:.1f}" for clock in figures["fmax_mhz"]),
        ]
        rows.append(((name, width, figures["component"], figures["part"]), row))
    head = ["memory", "what", "part", "LUTs", "flip-flops", "block RAMs", "MHz, each seed"]
    return table(head, [row for _, row in sorted(rows)])


def outside_memory(figures: dict[str, Any]) -> str:
    """The memory of a stream from outside the chip, and how its model is not steady."""
    memory, model = figures["config"]["memory"], figures["model"]
    ports = memory.get("ports", 1)
    parts = [memory["kind"] + (f", {ports} ports" if ports > 1 else "")]
    if model.get("dram"):
        places = ", ".join(str(offset // 1024 % 64) for offset in memory["offsets"])
        mhz = figures["config"]["clock_hz"] / 1e6
        parts.append(f"DDR4-2133, {mhz:g} MHz, offsets {places} KiB")
    if model.get("stalls"):
        parts.append(f"pauses in {model['stalls']:.0%} of the cycles")
    return ", ".join(parts)


def outside_rows(folder: Path) -> list[list[object]]:
    """The rows of the streams from outside the chip, in the order of memory, width and layer."""
    rows: list[tuple[tuple[object, ...], list[object]]] = []
    for file in folder.glob("outside-*.json"):
        figures = json.loads(file.read_text(encoding="utf-8"))
        config, runs = figures["config"], figures["runs"]
        latency = figures["model"].get("latency", "")
        shapes = [f"{run['out_features']} × {run['in_features']}" for run in runs]
        same = len(set(shapes)) == 1
        what = shapes[0] if same else f"{len(runs)} layers of a block"
        if same and len(runs) > 1:
            what = f"{len(runs)} of {shapes[0]}; the last {runs[-1]['utilization']:.2%}"
        formula = figures["cycles_formula"]
        weights = figures["weight_bits"]
        memory = outside_memory(figures)
        encoding = "" if config["encoding"] == "base3x5" else f" {config['encoding']}"
        order = (memory, figures["width_bits"], latency or 0, encoding, len(runs), weights)
        row: list[object] = [
            memory,
            figures["width_bits"],
            latency,
            f"{config['engine']}{encoding} {config['lanes']} × {config['rows']}",
            what,
            f"{figures['cycles']:,}",
            "" if formula is None else f"{formula:,}",
            f"{figures['utilization']:.2%}",
            f"{figures['bits_per_weight']:.4f}",
        ]
        rows.append((order, row))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def speed_page() -> str:
    folder = DOCS / "reference" / "speed"
    streams: list[tuple[object, list[object]]] = []
    for file in folder.glob("stream-*.json"):
        figures = json.loads(file.read_text(encoding="utf-8"))
        key = figures["config"]
        peak = figures["mac_per_cycle_peak"]
        alone = figures["mac_per_cycle"] * figures["cycles"] / figures["run_cycles"]
        width = key["link"].get("width", 1)
        engine = f"{key['engine']} {key['encoding']} {key['lanes']} × {key['rows']}"
        layer = (figures["out_features"], figures["in_features"])
        row: list[object] = [
            engine,
            f"{layer[0]} × {layer[1]}",
            width,
            f"{figures['mac_per_cycle']:.1f} of {peak}",
            f"{alone:.1f}",
            figures["bottleneck"],
            f"{figures['busy_share_of_bottleneck']:.1%}",
        ]
        streams.append(((engine, *layer, width), row))
    head: list[str] = [
        "engine",
        "layer",
        "bytes a cycle",
        "MAC/cycle, end to end",
        "RUN alone",
        "bottleneck",
        "busy",
    ]
    host = json.loads((folder / "host.json").read_text(encoding="utf-8"))
    driver: list[list[object]] = [["a call", f"{host['cpu_us_per_call']:.1f}"]]
    driver += [
        [f"a command, {slots} slots", f"{value:.1f}"]
        for slots, value in host["cpu_us_per_command"].items()
    ]
    driver.append(["CRC-32 of 1024 bytes", f"{host['crc32_us_per_kb']:.2f}"])
    udp = json.loads((folder / "host_udp.json").read_text(encoding="utf-8"))
    packets: dict[str, dict[str, float]] = udp["host_cpu_us_per_packet"]
    load = json.loads((folder / "host_load.json").read_text(encoding="utf-8"))
    speeds = load["packed_mb_per_second"]
    loading: list[list[object]] = [
        ["packing", f"{speeds['packing']:.0f}"],
        ["packets and checksums", f"{speeds['packets']:.0f}"],
        ["both: before the link", f"{speeds['before_link']:.0f}"],
        ["the driver as a whole", f"{speeds['driver']:.0f}"],
    ]
    cases: list[list[object]] = [
        [case, *(f"{each[case]:.1f}" for each in packets.values())]
        for case in next(iter(packets.values()))
    ]
    serve = json.loads((folder / "host_serve.json").read_text(encoding="utf-8"))
    products: list[list[object]] = [
        [shape, *(f"{value:.0f}" for value in each.values())]
        for shape, each in serve["serve_us_per_product"].items()
    ]
    blocks: list[list[object]] = []
    floats: list[list[object]] = []
    for file in sorted(folder.glob("block-*.json")):
        block = json.loads(file.read_text(encoding="utf-8"))
        what = block["model"]
        if "layers" in block:
            what += f": random layers {', '.join(block['layers'])}"
        floats.append(
            [
                what,
                block["device"],
                "bfloat16" if block.get("bfloat16") else "float32",
                block["tokens"],
                f"{block['float_bits_different']:,} of {block['float_bits_compared']:,}",
            ]
        )
        if "cycles_layer" not in block or block["device"].startswith("golden"):
            continue  # the reference device counts no waits
        blocks.append(
            [
                f"{block['model']}, {block['device']}",
                f"{block['cycles_feed_forward']:,}",
                f"{block['cycles_layer']:,}",
                f"{block['engine_cycles']:,}",
                f"{block['vector_cycles']:,}",
                f"{block['link_bytes_per_token']:,}",
            ]
        )
    scales: list[list[object]] = []
    for file in sorted(folder.glob("scale-*.json")):
        unit = json.loads(file.read_text(encoding="utf-8"))
        scales.append(
            [
                f"{unit['unit']}, {unit['rows']:,} rows, {unit['groups']} groups",
                unit["part"],
                f"{unit['luts']:,}",
                f"{unit['ffs']:,}",
                unit["block_rams"],
                unit["dsps"],
                ", ".join(f"{clock:.1f}" for clock in unit["fmax_mhz"]),
            ]
        )
    vectors: list[list[object]] = []
    for file in sorted(folder.glob("vector-*.json")):
        unit = json.loads(file.read_text(encoding="utf-8"))
        vectors.append(
            [
                f"{unit['vector']['words']:,} words, multipliers {unit['vector']['multipliers']}"
                + ", bfloat16" * unit["vector"]["bfloat16"]
                + f", lanes {unit['vector']['lanes']}" * (unit["vector"]["lanes"] > 1),
                unit["part"],
                *(f"{unit[name]:,}" for name in ("luts", "ffs", "block_rams", "dsps")),
                ", ".join(f"{clock:.1f}" for clock in unit["fmax_mhz"]),
            ]
        )
    float_head = ["model", "device", "format", "tokens", "floats that differ"]
    block_head = ["model, device", "cycles of a feed-forward", "of a block"]
    block_head += ["of these the layers", "the unit's own", "bytes a token"]
    unit_head = [
        "unit",
        "part",
        "LUTs",
        "flip-flops",
        "block RAMs",
        "multipliers",
        "MHz, each seed",
    ]
    outside_head = ["memory", "bits", "latency", "engine", "layer", "cycles", "formula"]
    outside_head += ["share", "bits a weight"]
    return f"{MEASURED}\n" + SPEED.format(
        outside=table(outside_head, outside_rows(folder)),
        floats=table(float_head, floats),
        blocks=table(block_head, blocks),
        vectors=table(unit_head, vectors),
        scales=table(unit_head, scales),
        memories=memories_table(folder),
        streams=table(head, [row for _, row in sorted(streams)]),
        driver=table(["what", "µs"], driver),
        udp=table(["bytes", *(f"{slots} slots, µs" for slots in packets)], cases),
        load_crc=f"{load['crc32_us_per_kb']:.2f}",
        loading=table(["what", "MB of packed weights a second"], loading),
        serve_crc=f"{serve['crc32_us_per_kb']:.2f}",
        serve=table(["layers", "server's CPU, µs", "client's CPU, µs", "whole, µs"], products),
    )


def pages() -> dict[str, Callable[[], str]]:
    """Each page below `docs/` that is made, and what makes it."""
    pages: dict[str, Callable[[], str]] = {
        "reference/configuration.md": configuration_page,
        "reference/protocol.md": protocol_page,
        "reference/python.md": python_page,
        "reference/speed.md": speed_page,
    }
    for name in OUR_BOARDS:
        pages[f"howto/first-light/{name}.md"] = partial(first_light_page, load_board(name))
    return pages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare; status 1 if a page differs")
    options = parser.parse_args()
    differ = []
    for name, make in pages().items():
        path = DOCS / name
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differ.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in differ:
        print(f"docs/{name}: {'differs' if options.check else 'written'}")
    return int(options.check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
