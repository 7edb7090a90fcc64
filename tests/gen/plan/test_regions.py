"""Where the regions of several ports lie."""

import pytest

from tritloom.gen.plan.regions import EQUAL, ROTATION_BYTES, SPREAD, with_offsets
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError


def config_of(words, ports=4, width=128):
    return AcceleratorConfig(
        lanes=5 * width * ports // 8,
        rows=1,
        memory=Axi(words=words, width=width, ports=ports),
        max_in_features=320,
        max_out_features=8,
    )


@pytest.mark.parametrize("words", [1, 4096, 5000, 123_456])
@pytest.mark.parametrize(
    ("choice", "places"),
    [
        (EQUAL, (0, 0, 0, 0)),
        (SPREAD, (0, 16, 32, 48)),
        ((0, 0, 48, 24), (0, 0, 48, 24)),
        ((64, 68, 4, 0), (0, 4, 4, 0)),
    ],
)
def test_places(words, choice, places):
    """Each port begins at its place of the rotation, as soon as the region before it has ended."""
    config = with_offsets(config_of(words), choice)
    record = config.memory
    size = record.region_bytes(config)
    assert tuple(offset // 1024 % 64 for offset in record.offsets) == places
    for before, after in zip(record.offsets, record.offsets[1:], strict=False):
        assert 0 <= after - (before + size) < ROTATION_BYTES
    assert record.bases(config) == record.offsets


def test_fewer_ports_and_another_rotation():
    assert with_offsets(config_of(512, ports=2)).memory.offsets == (0, 32 * 1024)
    config = with_offsets(config_of(512), SPREAD, rotation_bytes=1 << 14)
    assert [offset % (1 << 14) for offset in config.memory.offsets] == [0, 4096, 8192, 12288]


def test_refused():
    for choice, message in (
        ("near", "offsets must be equal, spread or KiB, not 'near'"),
        ((0, 16), "offsets must be one for each of 4 ports, not 2 of them"),
    ):
        with pytest.raises(InputError) as raised:
            with_offsets(config_of(512), choice)
        assert str(raised.value) == message
    with pytest.raises(ConfigError, match=r"^memory bram has no offsets; they go with axi$"):
        with_offsets(TINY)
    with pytest.raises(ConfigError, match="base and offsets must be multiples of 4096"):
        with_offsets(config_of(512), (0, 1, 2, 3))
