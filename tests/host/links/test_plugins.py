"""Kinds of devices that other packages add: broken ones stop only those who ask for them."""

import pytest

from tritloom.host import connect
from tritloom.host.links.contract import devices
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError


@pytest.fixture
def broken(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "broken_links-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-links\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tritloom.devices]\ncut = broken_links:open_device\n")
    (tmp_path / "broken_links.py").write_text("open_device = 3\n")
    monkeypatch.setattr(devices, "_entries", None)
    yield
    monkeypatch.setattr(devices, "_entries", None)


def test_device_of_a_broken_package(broken):
    with pytest.raises(ConfigError) as raised:
        connect("cut://x")
    assert str(raised.value) == (
        "device 'cut' of the package broken-links: it is 3, not a function that opens a device; "
        "repair or uninstall broken-links"
    )
    with connect("golden", config=TINY) as device:
        assert device.info.config == TINY
