"""Writes the reference pages that are made from the source: `python docs/make_reference.py`.

The texts are the docstrings, so that pages and code cannot differ; a test compares both.
"""

import argparse
import ast

import inspect
import re
import sys
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType

from tritloom.gen.emit.manifest import attribute_docs, describe
from tritloom.rtl.spec import commands, config, encodings, frames, packing, plugins

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Made by docs/make_reference.py from the docstrings. Change those, then run it. -->"
API = {
    "Driver": ("tritloom.host",),
    "Offload from transformers": ("tritloom.host.torch",),
    "Arithmetic and packing": ("tritloom.rtl.spec.numerics", "tritloom.rtl.spec.packing"),
    "Boards": ("tritloom.boards.board",),
    "Verification": ("tritloom.sim.verify.run",),
    "Plug-ins": (
        "tritloom.rtl.spec.plugins",
        "tritloom.rtl.spec.encodings",
        "tritloom.rtl.engines.contract",
        "tritloom.rtl.memories.contract",
        "tritloom.rtl.links.contract",
    ),
}
"""Modules of the Python API, by chapter."""


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists, two back-ticks become one."""
    lines = inspect.cleandoc(docstring or "").replace("``", "`").splitlines()
    made: list[str] = []
    section = False
    position = 0
    while position < len(lines):
        line = lines[position]
        below = lines[position + 1] if position + 1 < len(lines) else ""
        if line and re.fullmatch("-{3,}", below):
            section = True
            made += [f"*{line}*", ""]
            position += 2
            continue
        entry = re.fullmatch(r"(\S[^:]*?) : (.*)", line) if section else None
        if entry:
            names = ", ".join(f"`{name.strip()}`" for name in entry[1].split(","))
            made.append(f"* {names}: {entry[2]}")
        elif section and line.startswith(" "):
            made.append(f"  {line.strip()}")
        else:
            made.append(line)
        position += 1
    return "\n".join(made).strip()


def one_line(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


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
        if isinstance(member, property) and member.__doc__
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


def layout_rows(layout: list[dict[str, object]]) -> list[list[object]]:
    return [[f"`{field['name']}`", field["offset"], field["bytes"]] for field in layout]


def enum_rows(kind: type[commands.Opcode] | type[commands.Status]) -> list[list[object]]:
    texts = {
        name: one_line(text)
        for name, text in zip(
            (member.name for member in kind), _member_texts(kind), strict=True
        )
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
    fields_head = ["field", "offset", "bytes"]
    counters = ", ".join(f"`{name}`" for name in described["counters"]["order"])
    return f"""{MADE}

# Protocol

{markdown(commands.__doc__)}

[Why it is made this way](../explanation/packets.md). `manifest.json` of a generated design has the
same as data, the C header the same as macros.

## Header of a command

{table(fields_head, layout_rows(described["request"]))}

## Header of a response

{table(fields_head, layout_rows(described["response"]))}

## Checksum

{table(["", ""], crc_rows)}

## Opcodes

{table(["value", "name", "meaning"], enum_rows(commands.Opcode))}

## Status

{table(["value", "name", "meaning"], enum_rows(commands.Status))}

## Checks

A command is refused with the status of the first check in its list that fails.

{commands.check_table()}
## Payload of DEFINE

{docs["LAYER"]}

{table(fields_head, layout_rows(described["layer"]["fields"]))}

## Identity

{docs["IDENTITY"]} The magic is `{described["identity"]["magic"]}`, the protocol version
{described["protocol_version"]}.

{table(fields_head, layout_rows(described["identity"]["fields"]))}

## Counters

In this order: {counters}. {docs["COUNTERS"]}

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
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    raise SystemExit("a module of the Python API has no __all__")


def definition(module: str, name: str) -> ast.stmt | None:
    """Where a name is defined: in the module, or in the one that it is imported from."""
    tree = module_tree(module)
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and statement.name == name:
            return statement
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("tritloom"):
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
    return f"{head}\n\n{textwrap.indent(markdown(ast.get_docstring(function)), '> ')}"


def class_text(kind: ast.ClassDef) -> str:
    parts = [markdown(ast.get_docstring(kind))]
    members = [
        f"`{ast.unparse(statement)}`"
        for statement in kind.body
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.target).startswith("_")
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


PAGES = {
    "configuration.md": configuration_page,
    "protocol.md": protocol_page,
    "python.md": python_page,
}
"""Each page of `docs/reference` that is made, and what makes it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare; status 1 if a page differs")
    options = parser.parse_args()
    differ = []
    for name, make in PAGES.items():
        path = REFERENCE / name
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differ.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    for name in differ:
        print(f"docs/reference/{name}: {'differs' if options.check else 'written'}")
    return int(options.check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
