"""The command set and the configuration as a C header, for drivers that are not in Python."""

from collections.abc import Iterator
from typing import Any

__all__ = ["c_header"]


def c_header(manifest: dict[str, Any]) -> str:
    """C99 header of what `tritloom.gen.emit.manifest.describe` gave; macros only, in ASCII."""
    lines = [
        "/* Tritloom command set and configuration. Generated: do not edit.",
        " * Multi-byte fields are little end first; the rules are in manifest.json. */",
        "#ifndef TRITLOOM_H",
        "#define TRITLOOM_H",
        *_protocol(manifest["commands"]),
        *_configuration(manifest),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _protocol(commands: dict[str, Any]) -> Iterator[str]:
    yield from _section("Packets: header, payload, CRC-32 of both")
    for name in ("protocol_version", "header_bytes", "overhead_bytes"):
        yield _define(name, commands[name])
    yield _define("crc_bytes", commands["crc"]["bytes"])
    for key, prefix, title in (
        ("request", "request", "Header of a command"),
        ("response", "response", "Header of an answer"),
    ):
        yield from _section(f"{title}: where each field begins, and its size")
        yield from _fields(prefix, commands[key])
    for key, prefix, title in (
        ("opcodes", "op", "Commands"),
        ("status", "status", "Status of an answer"),
    ):
        yield from _section(title)
        for member in commands[key]:
            yield _define(f"{prefix}_{member['name']}", member["value"], member["meaning"])
    for key in ("layer", "identity"):
        yield from _section(commands[key]["meaning"])
        yield from _fields(key, commands[key]["fields"])
    yield _define("magic", _string(commands["identity"]["magic"]))
    counters = commands["counters"]
    yield from _section(counters["meaning"])
    yield _define("counter_bytes", counters["bytes"])
    yield _define("counters", len(counters["order"]), "how many; the next are their places")
    for index, name in enumerate(counters["order"]):
        yield _define(f"counter_{name}", index)


def _configuration(manifest: dict[str, Any]) -> Iterator[str]:
    yield from _section("Configuration")
    for name, value in manifest["config"].items():
        yield _define(name, _string(value) if isinstance(value, str) else value)
    yield from _section("What follows from it")
    for name, value in manifest["derived"].items():
        yield _define(name, value)
    yield _define("code_trits", manifest["weights"]["group"])
    yield _define("code_bits", manifest["weights"]["code_bits"])
    yield _define("code_stride", manifest["weights"]["code_stride"])
    yield _define("code_signed", int(manifest["weights"]["signed"]))
    for name, digest in manifest["digests"].items():
        values = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(digest))
        yield _define(f"{name}_digest", f"{{{values}}}")


def _section(title: str) -> Iterator[str]:
    yield ""
    yield f"/* {_ascii(title)} */"


def _fields(prefix: str, fields: list[dict[str, Any]]) -> Iterator[str]:
    for field in fields:
        yield _define(f"{prefix}_{field['name']}_offset", field["offset"])
        yield _define(f"{prefix}_{field['name']}_bytes", field["bytes"])


def _define(name: str, value: int | str, meaning: str = "") -> str:
    """A macro; its meaning stands behind it."""
    line = f"#define TRITLOOM_{name.upper()} {value}"
    return f"{line} /* {_ascii(meaning)} */" if meaning else line


def _string(text: str) -> str:
    return f'"{text}"'


def _ascii(text: str) -> str:
    for sign, plain in (("→", "->"), ("×", "x"), ("−", "-"), ("·", "*"), ("…", "...")):
        text = text.replace(sign, plain)
    return text.encode("ascii", "replace").decode().replace("*/", "* /")
