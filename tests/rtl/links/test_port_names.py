"""Names of an emitted design's pins: their dictionary form and its errors."""

import pytest

from tritloom.rtl.links.port_names import AXI, PLAIN, PortNames
from tritloom.rtl.spec.errors import InputError


@pytest.mark.parametrize("names", [PLAIN, AXI])
def test_round_trip(names: PortNames) -> None:
    assert PortNames.from_dict(names.to_dict()) == names


@pytest.mark.parametrize("beat_bytes", [1, 2, 8])
def test_widths(beat_bytes: int) -> None:
    widths = {"i_data": 8 * beat_bytes, "i_last": 1, "i_valid": 1, "i_ready": 1}
    assert PLAIN.commands.widths(beat_bytes) == widths
    assert AXI.responses.widths(beat_bytes)["m_axis_tkeep"] == beat_bytes


def test_only_wide_streams_have_keep() -> None:
    assert AXI.responses.keep == "m_axis_tkeep" and not AXI.commands.keep
    assert AXI.of_width(2) == AXI and PLAIN.of_width(1) == PLAIN == PLAIN.of_width(8)
    narrow = AXI.of_width(1)
    assert narrow.responses.keep == "" and "keep" not in narrow.to_dict()["responses"]
    assert PortNames.from_dict(narrow.to_dict()) == narrow != AXI


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clock": "a b"}, "interface.clock must be a name, not 'a b'"),
        ({"clock": 3}, "interface.clock must be a name, not 3"),
        ({"reset_active": "up"}, "interface.reset_active must be high or low, not 'up'"),
        ({"commands": None}, "interface.commands must be an object, not None"),
        (
            {"responses": {"data": "d"}},
            "interface.responses must have the keys data, last, valid, ready, not data",
        ),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        PortNames.from_dict(PLAIN.to_dict() | change)
    assert str(error.value) == f"{message}; run tritloom generate again"


def test_missing_key() -> None:
    values = PLAIN.to_dict()
    del values["reset"]
    with pytest.raises(InputError) as error:
        PortNames.from_dict(values)
    assert str(error.value) == (
        "interface must have the keys clock, reset, reset_active, not clock, reset_active; "
        "run tritloom generate again"
    )
