"""Names of the pins of an emitted design: clock, reset and the two packet streams.

The Verilog, the manifest, the benches of `tritloom verify` and the docs all use these records. No
name here is a reserved word of Verilog or VHDL, and each is a plain identifier of both languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tritloom.rtl.spec.errors import InputError

__all__ = ["AXI", "DEFAULT_TOP", "PLAIN", "PortNames", "StreamNames"]

DEFAULT_TOP = "tritloom"
"""Name of the top module where the user gives none."""
RESET_LEVELS = ("high", "low")


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamNames:
    """Pins of one packet stream: a beat, the mark of a packet's last beat, and the handshake.

    `keep` marks the bytes of a beat that belong to the packet. If it is empty, there is no such
    pin.
    """

    data: str
    last: str
    valid: str
    ready: str
    keep: str = ""

    def widths(self, beat_bytes: int) -> dict[str, int]:
        """Bits of each pin by name, of a stream of `beat_bytes` bytes a beat."""
        bits = {self.data: 8 * beat_bytes, self.last: 1, self.valid: 1, self.ready: 1}
        return bits | ({self.keep: beat_bytes} if self.keep else {})

    def to_dict(self) -> dict[str, str]:
        """Names by meaning, of the pins that exist."""
        return {key: name for key, name in asdict(self).items() if name}


@dataclass(frozen=True, kw_only=True, slots=True)
class PortNames:
    """Pins that every design has, and those of the packet streams.

    Members
    -------
    clock : name of the clock; registers change at its rising edge
    reset : name of the synchronous reset
    reset_active : level that resets, `"high"` or `"low"`
    commands : the stream into the design
    responses : the stream out of it
    """

    clock: str
    reset: str
    reset_active: str
    commands: StreamNames
    responses: StreamNames

    def to_dict(self) -> dict[str, Any]:
        """The form that the manifest holds under `interface`."""
        streams = {"commands": self.commands.to_dict(), "responses": self.responses.to_dict()}
        return asdict(self) | streams

    @property
    def memory_clock(self) -> str:
        """The clock's name of a weight memory that has one of its own."""
        return f"memory_{self.clock}"

    def of_width(self, beat_bytes: int) -> PortNames:
        """The names of a design whose streams have `beat_bytes` bytes a beat.

        Every byte of a stream of bytes belongs to its packet, so `keep` is only for wider ones.
        """
        if beat_bytes > 1:
            return self
        return replace(
            self,
            commands=replace(self.commands, keep=""),
            responses=replace(self.responses, keep=""),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PortNames:
        """Inverse of `to_dict`.

        Raises
        ------
        InputError
            If a key is missing, or a name is not a plain identifier.
        """
        pins = ("clock", "reset", "reset_active")
        names = _strings({key: values[key] for key in values if key in pins}, pins, "interface")
        if names["reset_active"] not in RESET_LEVELS:
            raise InputError(
                f"interface.reset_active must be high or low, not {names['reset_active']!r}; "
                "run tritloom generate again"
            )
        return cls(
            clock=names["clock"],
            reset=names["reset"],
            reset_active=names["reset_active"],
            commands=_stream(values, "commands"),
            responses=_stream(values, "responses"),
        )


def _stream(values: Mapping[str, Any], key: str) -> StreamNames:
    value = values.get(key)
    if not isinstance(value, Mapping):
        raise InputError(
            f"interface.{key} must be an object, not {value!r}; run tritloom generate again"
        )
    pins = tuple(
        field.name for field in fields(StreamNames) if field.name != "keep" or "keep" in value
    )
    return StreamNames(**_strings(value, pins, f"interface.{key}"))


def _strings(values: Mapping[str, Any], keys: tuple[str, ...], place: str) -> dict[str, str]:
    """The values of exactly these keys, each a plain identifier."""
    if sorted(values) != sorted(keys):
        raise InputError(
            f"{place} must have the keys {', '.join(keys)}, not {', '.join(map(str, values))}; "
            "run tritloom generate again"
        )
    for key, name in values.items():
        if not isinstance(name, str) or not (name.isascii() and name.isidentifier()):
            raise InputError(
                f"{place}.{key} must be a name, not {name!r}; run tritloom generate again"
            )
    return dict(values)


PLAIN = PortNames(
    clock="clk",
    reset="rst",
    reset_active="high",
    commands=StreamNames(data="i_data", last="i_last", valid="i_valid", ready="i_ready"),
    responses=StreamNames(data="o_data", last="o_last", valid="o_valid", ready="o_ready"),
)
"""Short names; the reset is high."""
AXI = PortNames(
    clock="aclk",
    reset="aresetn",
    reset_active="low",
    commands=StreamNames(
        data="s_axis_tdata", last="s_axis_tlast", valid="s_axis_tvalid", ready="s_axis_tready"
    ),
    responses=StreamNames(
        data="m_axis_tdata",
        last="m_axis_tlast",
        valid="m_axis_tvalid",
        ready="m_axis_tready",
        keep="m_axis_tkeep",
    ),
)
"""Names of AXI4-Stream, by which block-design tools recognise the streams; the reset is low.

Commands have no `keep`: a packet's length says which of its bytes count."""
