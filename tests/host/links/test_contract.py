"""URLs of devices, and what `connect` checks."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points

import pytest

from tests.support.layers import SMALL
from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.host import (
    Device,
    DeviceError,
    InputError,
    ProtocolError,
    connect,
)
from tritloom.host.links import contract
from tritloom.host.links.contract import DeviceUrl
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.commands import IDENTITY, PROTOCOL_VERSION, Response, identity
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.device.reference import ReferenceTransport


class TestConnect:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("nothing", "unknown device 'nothing'; known are "),
            ("golden?board=nothing", "unknown board 'nothing'; known are "),
            ("golden?bord=x", "unknown key 'bord' for device 'golden'; known are board, preset"),
            ("golden?preset=x", "ulx3s-85f has no preset 'x'; it has bitlinear"),
            ("golden?board=icebreaker&preset=x", "icebreaker has no preset 'x'; it has spram"),
            ("golden://x", "device 'golden' takes no path, not 'x'"),
            ("", "device URL must be like"),
            ("?board=x", "device URL must be like"),
            ("golden?board", "must have key=value pairs"),
            ("golden?board=a&board=b", "must give each key once"),
            (None, 'device URL must be text such as "sim", not None'),
        ],
    )
    def test_urls(self, url, message):
        with pytest.raises(InputError, match=re.escape(message)):
            connect(url)

    def test_unknown_names_list_the_known(self):
        for group, url in (("devices", "x"), ("boards", "golden?board=x")):
            known = ", ".join(
                sorted(entry.name for entry in entry_points(group=f"tritloom.{group}"))
            )
            with pytest.raises(InputError, match=f"known are {known}$"):
                connect(url)

    def test_board_and_config(self):
        with pytest.raises(InputError, match=r"^give either board= or config=, not both$"):
            connect("golden?board=ulx3s-85f", config=TINY)
        with pytest.raises(InputError, match=r"^give either preset= or config=, not both$"):
            connect("golden?preset=bitlinear", config=TINY)

    def test_preset(self):
        with connect("golden?preset=bitlinear") as device:
            preset = ULX3S_85F.presets["bitlinear"]
            assert device.info.config == replace(preset, link=PacketStream(width=4))

    def test_url_parts(self):
        url = DeviceUrl.parse("serial:///dev/ttyUSB0?baud=1000000&x=")
        assert (url.scheme, url.path) == ("serial", "/dev/ttyUSB0")
        assert url.query == {"baud": "1000000", "x": ""}
        assert DeviceUrl.parse("udp://10.0.0.2:99").path == "10.0.0.2:99"

    def test_a_missing_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tritloom.sim.device.reference", None)
        monkeypatch.setattr(contract.devices, "_loaded", {})
        with pytest.raises(ToolError, match=r"needs the module .*; run pip install "):
            connect("golden", config=TINY)

    def test_the_driver_alone_loads_neither_simulator_nor_amaranth(self):
        code = (
            "import sys, tritloom.host\n"
            "sim = 'tritloom.sim.device.simulated', 'tritloom.sim.device.reference'\n"
            "names = 'amaranth', 'torch', *sim\n"
            "sys.exit(any(name in sys.modules for name in names))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_the_device_tells_its_configuration(self):
        assert Device(ReferenceTransport(SMALL), url="test").info.config == SMALL

    def test_another_layout_than_asked_for(self):
        with pytest.raises(ProtocolError) as caught:
            Device(ReferenceTransport(TINY), url="test", config=replace(TINY, rows=3, max_layers=8))
        assert str(caught.value) == (
            "test has another layout digest than config=: rows 2 instead of 3, max_layers 4 "
            "instead of 8; leave config= out or build its bitstream from it"
        )

    def test_another_clock_than_asked_for_is_the_same_layout(self):
        device = Device(
            ReferenceTransport(TINY), url="test", config=replace(TINY, clock_hz=12_000_000)
        )
        assert device.info.config == TINY

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            (0, "test is not a tritloom device: its identity is "),
            (4, "test has protocol version 3, this driver 2; build its bitstream"),
            (8, "test has layout digest "),
            (16, "test has build digest "),
            (25, "test has a configuration that this driver cannot read (unknown key "),
        ],
    )
    def test_identities_that_do_not_match(self, place, message):
        transport = ReferenceTransport(TINY)
        changed = bytearray(identity(TINY))
        assert changed[4] == PROTOCOL_VERSION
        changed[place + (place >= IDENTITY.size)] ^= 1
        transport.device._identity = bytes(changed)
        with pytest.raises(ProtocolError, match=r"^" + re.escape(message)):
            Device(transport, url="test")
        with pytest.raises(DeviceError, match="closed"):
            transport.receive(0)

    def test_another_protocol(self):
        class Newer(ReferenceTransport):
            def receive(self, timeout_s: float) -> bytes | None:
                packet = super().receive(timeout_s)
                return packet and replace(Response.parse(packet), value=7).pack()

        with pytest.raises(ProtocolError, match=r"^test speaks protocol 7, this driver 2; build"):
            Device(Newer(TINY), url="test")
