"""What a device says that it is."""

from __future__ import annotations

from tritloom.host.requests import identity_command
from tritloom.host.session import Session
from tritloom.rtl.spec.commands import IDENTITY, MAGIC, PROTOCOL_VERSION
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, ProtocolError

__all__ = ["config_of", "read_identity"]


def read_identity(session: Session, payload_bytes: int) -> bytes:
    """Read the whole identity, in pieces of at most `payload_bytes`.

    Raises
    ------
    ProtocolError : it is not that of a Tritloom device
    """
    head = _read(session, 0, IDENTITY.size)
    magic, _, json_bytes, _, _ = IDENTITY.unpack(head)
    if magic != MAGIC:
        raise ProtocolError(f"{session.name} is not a tritloom device: its identity is {head!r}")
    identity = bytearray(head)
    while (left := IDENTITY.size + json_bytes - len(identity)) > 0:
        identity += _read(session, len(identity), min(left, payload_bytes))
    return bytes(identity)


def _read(session: Session, start: int, count: int) -> bytes:
    return session.call(identity_command(start, count)).payload


def config_of(name: str, identity: bytes, expected: AcceleratorConfig | None) -> AcceleratorConfig:
    """The configuration in an identity.

    Parameters
    ----------
    name : what error messages call the device
    identity : of `read_identity`
    expected : a configuration that the device must agree with in layout, or None

    Raises
    ------
    ProtocolError : this driver cannot read it, its digests are wrong, or its layout differs
    """
    _, version, _, layout_digest, build_digest = IDENTITY.unpack_from(identity)
    remedy = "build its bitstream with this version of tritloom"
    try:
        config = AcceleratorConfig.from_json(identity[IDENTITY.size :])
    except (ConfigError, TypeError) as error:
        raise ProtocolError(
            f"{name} has a configuration that this driver cannot read ({error}); {remedy}"
        ) from None
    for fact, device_value, driver_value in (
        ("protocol version", version, PROTOCOL_VERSION),
        ("layout digest", layout_digest.hex(), config.layout_digest.hex()),
        ("build digest", build_digest.hex(), config.build_digest.hex()),
    ):
        if device_value != driver_value:
            raise ProtocolError(
                f"{name} has {fact} {device_value}, this driver {driver_value}; {remedy}"
            )
    if expected is not None and expected.layout_digest != config.layout_digest:
        values = config.to_dict()
        differences = ", ".join(
            f"{key} {values[key]} instead of {value}"
            for key, value in expected.to_dict().items()
            if values[key] != value
        )
        raise ProtocolError(
            f"{name} has another layout digest than config=: {differences}; "
            "leave config= out or build its bitstream from it"
        )
    return config
