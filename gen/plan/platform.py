"""Where a model is planned to run: a board of ours, or a short file that describes another one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

from tritloom.boards.board import Board
from tritloom.gen.plan.timing import HOST, Host
from tritloom.rtl.memories.line_facts import LineRecord
from tritloom.rtl.spec.config import FEATURES_LIMIT, OUT_FEATURES_LIMIT, AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import MAX_MEMORY_WORDS, Config, Memory, require

__all__ = [
    "PlannedMemory",
    "Platform",
    "memory_width",
    "platform_of",
    "read_platform",
    "stored_bytes",
    "weight_bits",
]

MEMORY_KEYS = ("bytes", "width_bits", "efficiency", "latency_cycles")
HOST_KEYS = ("call_s", "command_s", "bytes_per_s")
TABLES = ("name", "clock_hz", "head", "memory", "engine", "link", "host", "measured_s")
PARTS = ("attention", "head", "other")
"""What `measured_s` may state."""


@dataclass(frozen=True, kw_only=True)
class PlannedMemory(Memory):
    """A memory that is planned with and has no hardware.

    Parameters
    ----------
    words : weight words that it holds
    width_bits : bits that it brings in a cycle at most
    efficiency : share of the cycles in which it brings them while it streams
    latency_cycles : from a range to its first word
    """

    name: ClassVar[str] = "planned"
    component: ClassVar[str] = ""

    width_bits: int = 64
    efficiency: float = 1.0
    latency_cycles: int = 60

    def expected(self, config: Config) -> tuple[int, float]:
        share = self.efficiency * self.width_bits / config.word_bits
        return self.latency_cycles, min(1.0, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """An accelerator with its memory, link and host.

    Members
    -------
    name : what people call it
    config : the accelerator; its memory states `expected`
    memory_bits : bits that the memory brings in a cycle at most
    linked : activations and results cross the link of `config`; else they cost no time of their own
    host : what the driver takes
    host_bytes_per_s : rate at which the host reads the weights of the head and the cache, if it is
        another computer than this one
    device_head : the head is computed by the accelerator, with ternary weights
    measured_s : seconds a token of parts that were measured on the platform, by name: `attention`,
        `head` and `other`
    """

    name: str
    config: AcceleratorConfig
    memory_bits: float
    linked: bool = True
    host: Host = HOST
    host_bytes_per_s: float | None = None
    device_head: bool = False
    measured_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights that the memory holds."""
        return self.config.memory_words * self.config.word_bits // 8


def memory_width(config: AcceleratorConfig) -> float:
    """Bits that the memory brings in a cycle at most: a beat of all its ports, or a weight word.

    No whole number where the memory has a clock of its own.
    """
    memory = config.memory
    bits = memory.peak_bits(config) if isinstance(memory, LineRecord) else config.word_bits
    return int(bits) if bits == int(bits) else bits


def platform_of(board: Board) -> Platform:
    """A board with its own link and accelerator."""
    config = board.build_config
    return Platform(name=board.title, config=config, memory_bits=memory_width(config))


def read_platform(file: Path) -> Platform:
    """A platform from a TOML file; docs/howto/plan.md explains its keys.

    Raises
    ------
    ConfigError : it is not TOML, or a key is unknown, missing or refused; the message begins with
        the file's name
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
        return _platform(values)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: it is not TOML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _platform(values: dict[str, Any]) -> Platform:
    _known("", values, TABLES)
    for name in ("name", "clock_hz", "memory", "engine"):
        require(name in values, f"{name} is missing")
    memory = _table(values, "memory", MEMORY_KEYS)
    host = _table(values, "host", HOST_KEYS)
    measured = _table(values, "measured_s", PARTS)
    for name in ("bytes", "width_bits"):
        require(name in memory, f"{name} of memory is missing")
    for name, value in [*memory.items(), *host.items(), *measured.items()]:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and value >= 0, f"{name} must be a number from 0, not {value!r}")
    for name in ("bytes", "width_bits", "latency_cycles"):
        require(type(memory.get(name, 0)) is int, f"{name} must be an integer")
    require(memory["bytes"] > 0 and memory["width_bits"] > 0, "the memory must not be empty")
    efficiency = float(memory.get("efficiency", 1.0))
    require(0 < efficiency <= 1, f"efficiency must be above 0 and at most 1, not {efficiency:g}")
    head = values.get("head", "host")
    require(head in ("host", "device"), f"head must be host or device, not {head!r}")
    config = _config(values, memory, efficiency)
    return Platform(
        name=str(values["name"]),
        config=config,
        memory_bits=memory["width_bits"],
        linked="link" in values,
        host=Host(
            call_s=float(host.get("call_s", HOST.call_s)),
            command_s=float(host.get("command_s", HOST.command_s)),
        ),
        host_bytes_per_s=host.get("bytes_per_s"),
        device_head=head == "device",
        measured_s={name: float(value) for name, value in measured.items()},
    )


def _config(values: dict[str, Any], memory: dict[str, Any], efficiency: float) -> AcceleratorConfig:
    """The accelerator, whose memory takes as many words as there are bytes."""
    engine = _table(values, "engine", None)
    record = PlannedMemory(
        words=1,
        width_bits=memory["width_bits"],
        efficiency=efficiency,
        latency_cycles=memory.get("latency_cycles", PlannedMemory.latency_cycles),
    )
    defaults = {
        "max_in_features": FEATURES_LIMIT,
        "max_out_features": OUT_FEATURES_LIMIT,
        "max_layers": 256,
    }
    given = {"clock_hz": values["clock_hz"], "memory": record}
    if "link" in values:
        given["link"] = values["link"]
    config = AcceleratorConfig.from_dict({**defaults, **engine, **given})
    words = min(8 * memory["bytes"] // config.word_bits, MAX_MEMORY_WORDS)
    require(words > 0, "bytes of memory must hold a weight word")
    return replace(config, memory=replace(record, words=words))


def _table(values: dict[str, Any], name: str, known: tuple[str, ...] | None) -> dict[str, Any]:
    table = values.get(name, {})
    require(isinstance(table, dict), f"{name} must be a table, not {table!r}")
    if known is not None:
        _known(f" of {name}", table, known)
    return dict(table)


def _known(where: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in values:
        require(name in known, f"unknown key {name!r}{where}; known are {', '.join(known)}")


def stored_bytes(config: AcceleratorConfig, words: int) -> int:
    """Bytes of so many weight words."""
    return ceil(words * config.word_bits / 8)


def weight_bits(config: AcceleratorConfig, weights: int) -> float:
    """Bits of the codes of that many weights, without padding."""
    encoding = encodings[config.encoding]
    return weights * encoding.code_bits / encoding.trits_per_code
