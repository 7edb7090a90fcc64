"""The command set and the configuration as a C header, for drivers that are not in Python."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tritloom.gen.emit.driver_code import FRAME_MACROS, driver_code

__all__ = ["c_header"]


@dataclass(frozen=True, slots=True)
class _Section:
    """A comment above the macros that follow it."""

    title: str


@dataclass(frozen=True, slots=True)
class _Macro:
    """A macro without the design's prefix; its meaning stands behind it."""

    name: str
    value: int | str | bytes
    meaning: str = ""


_Part = _Section | _Macro


def c_header(manifest: dict[str, Any]) -> str:
    """Header of a design for C99 and C++, in ASCII: macros, and the functions that a driver needs.

    Every macro begins with the design's name in capitals and every function with the name itself,
    so headers of designs with different names can be included together.

    Parameters
    ----------
    manifest : what `tritloom.gen.emit.manifest.describe` returns
    """
    name = manifest["top"]
    prefix = name.upper()
    lines = [
        "/* Tritloom command set and configuration. Generated: do not edit.",
        " * Multi-byte fields are little end first; the rules are in manifest.json. */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#include <string.h>",
        *(_line(part, prefix) for part in _protocol(manifest["commands"])),
        *(_line(part, prefix) for part in _flow_control(manifest["flow_control"])),
        *(_line(part, prefix) for part in _vector(manifest.get("vector"))),
        *(_line(part, prefix) for part in _configuration(manifest)),
        *(_line(part, prefix) for part in _scales(manifest["activations"].get("scales"))),
        driver_code(name, "scale" in manifest["config"], "scales" in manifest["activations"]),
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _line(part: _Part, prefix: str) -> str:
    if isinstance(part, _Section):
        return f"\n/* {_ascii(part.title)} */"
    line = f"#define {prefix}_{part.name.upper()} {_literal(part.value)}"
    return f"{line} /* {_ascii(part.meaning)} */" if part.meaning else line


def _literal(value: int | str | bytes) -> str:
    if isinstance(value, bytes):
        return "{" + ", ".join(f"0x{byte:02x}" for byte in value) + "}"
    return f'"{value}"' if isinstance(value, str) else str(int(value))


def _protocol(commands: dict[str, Any]) -> Iterator[_Part]:
    yield _Section("Packets: header, payload, CRC-32 of both")
    for name in ("protocol_version", "header_bytes", "overhead_bytes"):
        yield _Macro(name, commands[name])
    yield _Macro("crc_bytes", commands["crc"]["bytes"])
    for macro in FRAME_MACROS:
        yield _Macro(*macro)
    for key, title in (("request", "Header of a command"), ("response", "Header of a response")):
        yield _Section(f"{title}: the bytes of each field, its first bit in them, and its bits")
        yield from _fields(key, commands[key], ("offset", "bytes", "shift", "bits"))
    for key, prefix, title in (
        ("opcodes", "op", "Commands"),
        ("status", "status", "Status of a response"),
    ):
        yield _Section(title)
        for member in commands[key]:
            yield _Macro(f"{prefix}_{member['name']}", member["value"], member["meaning"])
    for key in ("layer", "identity"):
        yield _Section(commands[key]["meaning"])
        fields = commands[key]["fields"]
        yield from _fields(key, fields)
        yield _Macro(f"{key}_bytes", fields[-1]["offset"] + fields[-1]["bytes"], "all of it")
    yield _Macro("magic", commands["identity"]["magic"])
    counters = commands["counters"]
    yield _Section(counters["meaning"])
    yield _Macro("counter_bytes", counters["bytes"])
    yield _Macro("counters", len(counters["order"]), "their number; below, the place of each")
    for index, name in enumerate(counters["order"]):
        yield _Macro(f"counter_{name}", index)


def _flow_control(rules: dict[str, Any]) -> Iterator[_Part]:
    yield _Section("The seq of the first command after RESET")
    yield _Macro("first_seq", rules["first_seq"])


def _vector(vector: dict[str, Any] | None) -> Iterator[_Part]:
    """Steps of the vector unit, if there is one."""
    if vector is None:
        return
    yield _Section("Vector unit: float32 words of PUT and GET, steps of PROGRAM")
    for name in ("word_bytes", "program_steps", "step_bytes"):
        yield _Macro(f"vector_{name}", vector[name])
    yield _Section("A step: the bytes of each field, its first bit in them, and its bits")
    yield from _fields("step", vector["step"], ("offset", "bytes", "shift", "bits"))
    for key, prefix in (("operations", "operation"), ("factors", "factor"), ("seconds", "second")):
        yield _Section(f"Values of the field {prefix} of a step")
        for member in vector[key]:
            yield _Macro(f"{prefix}_{member['name']}", member["value"], member["meaning"])


def _scales(scales: dict[str, Any] | None) -> Iterator[_Part]:
    """Scales of activations, if the device takes them."""
    if scales is None:
        return
    yield _Section("Scales of activations: payload of SCALES")
    yield _Macro("scale_bytes", scales["bytes"], "of each scale")


def _configuration(manifest: dict[str, Any]) -> Iterator[_Part]:
    yield _Section("Configuration")
    for name, value in _flat(manifest["config"]):
        yield _Macro(name, value)
    yield _Section("Numbers that follow from the configuration")
    for name, value in manifest["derived"].items():
        yield _Macro(name, value)
    weights = manifest["weights"]
    yield _Macro("code_trits", weights["trits_per_code"])
    yield _Macro("code_bits", weights["code_bits"])
    yield _Macro("code_stride", weights["code_stride"])
    yield _Macro("code_signed", int(weights["signed"]))
    yield _Section("Digests, as initializers of byte arrays; a driver compares the first one")
    for name, digest in manifest["digests"].items():
        yield _Macro(f"{name}_digest", bytes.fromhex(digest))


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, int | str]]:
    """Keys and values; those of a plug-in's record behind its own name, `kind` under that name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            for part, item in value.items():
                name = key if part == "kind" else f"{key}_{part}"
                if isinstance(item, list | tuple):
                    yield from ((f"{name}_{number}", each) for number, each in enumerate(item))
                else:
                    yield name, item
        else:
            yield key, value


def _fields(
    prefix: str, fields: list[dict[str, Any]], keys: tuple[str, ...] = ("offset", "bytes")
) -> Iterator[_Part]:
    for field in fields:
        for key in keys:
            yield _Macro(f"{prefix}_{field['name']}_{key}", field[key])


def _ascii(text: str) -> str:
    for sign, plain in (
        ("→", "->"),
        ("√", "sqrt "),
        ("×", "x"),
        ("−", "-"),
        ("·", "*"),
        ("…", "..."),
    ):
        text = text.replace(sign, plain)
    return text.encode("ascii", "replace").decode().replace("*/", "* /")
