"""The link of packet streams: its widths, and that it is only wires."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from tests.support.packets import beats_of
from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.stream import StreamLink
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.conformance.streams import plain


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_beats_pass_both_ways_at_once(width):
    config = replace(TINY, link=PacketStream(width=width))
    dut, rng = StreamLink(config), random.Random(width)
    layout = packet_layout(width)
    assert layout.size == 8 * width + 1
    ways = [(dut.i, dut.o_packet), (dut.i_packet, dut.o)]

    async def bench(ctx):
        for beat in beats_of(rng.randbytes(40), width, rng):
            for source, sink in ways:
                valid, ready = rng.getrandbits(1), rng.getrandbits(1)
                ctx.set(source.payload, beat)
                ctx.set(source.valid, valid)
                ctx.set(sink.ready, ready)
                assert plain(ctx.get(sink.payload)) == beat
                assert (ctx.get(sink.valid), ctx.get(source.ready)) == (valid, ready)
            assert not ctx.get(dut.o_abort)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("width", [0, 3, 16, 8.0, True, "8"])
def test_wrong_widths(width):
    with pytest.raises(ConfigError) as error:
        replace(TINY, link=PacketStream(width=width))
    assert str(error.value) == f"link: width must be 1, 2, 4 or 8 bytes, not {width!r}"


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_width_is_in_the_configuration(width):
    """And not in the layout: a driver does not care how wide the streams are."""
    config = replace(TINY, link=PacketStream(width=width))
    assert config.to_dict()["link"] == {"kind": "stream", "width": width}
    assert AcceleratorConfig.from_json(config.to_json()) == config
    assert config.link.beat_bytes == width
    assert config.layout_digest == TINY.layout_digest
    assert (config.build_digest == TINY.build_digest) == (width == 1)
