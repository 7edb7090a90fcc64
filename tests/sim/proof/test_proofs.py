"""The proofs, and for each a broken line that it finds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.broken import broken
from tritloom.rtl import top
from tritloom.rtl.control import packets as framing
from tritloom.rtl.core import core, layer_runner, partial_sums
from tritloom.rtl.core.core import Core
from tritloom.rtl.engines import base3x5 as decoder
from tritloom.rtl.engines import select
from tritloom.rtl.lib import streams
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories import bram as memory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.proof import engine, packets, results
from tritloom.sim.proof.formal import PropertyError, verify
from tritloom.sim.proof.layer_runner import runner_contract
from tritloom.sim.proof.memory import memory_contract
from tritloom.sim.proof.streams import (
    accelerator_rules,
    core_rules,
    register_contract,
    stream_rules,
    switch_contract,
)

SMALL = AcceleratorConfig(
    lanes=5,
    rows=1,
    memory=BlockRam(words=6),
    max_in_features=20,
    max_out_features=6,
    max_layers=2,
    packet_bytes=128,
    slots=2,
)
WIDE = AcceleratorConfig.from_dict(SMALL.to_dict() | {"fill": 5})
ONE_BANK = AcceleratorConfig.from_dict(SMALL.to_dict() | {"banks": 1})
PAIRS = AcceleratorConfig.from_dict(SMALL.to_dict() | {"lanes": 6, "fill": 3, "encoding": "diff2"})
RUNNER = AcceleratorConfig(
    lanes=4,
    rows=2,
    fill=2,
    encoding="diff2",
    memory=BlockRam(words=6),
    max_in_features=8,
    max_out_features=6,
    max_layers=2,
    packet_bytes=128,
    slots=2,
    vector=VectorConfig(words=64),
)
TWO_LANES = replace(RUNNER, vector=VectorConfig(words=64, lanes=2))
# Less than a configuration may have: the code is the same, and the proof takes seconds.
FRAMES = SimpleNamespace(packet_bytes=32, slots=1)
BEATS = {
    size: SimpleNamespace(packet_bytes=32, slots=2, link=PacketStream(width=size))
    for size in (1, 2, 4, 8)
}

PROOFS = {
    "StreamRegister rules": (
        lambda: stream_rules(streams.StreamRegister(8)),
        {"depth": 3, "cover": 6},
    ),
    "PacketReceiver rules": (
        lambda: stream_rules(framing.PacketReceiver(TINY)),
        {"depth": 3, "cover": 30},
    ),
    "PacketSender rules": (
        lambda: stream_rules(framing.PacketSender(TINY)),
        {"depth": 3, "cover": 10},
    ),
    "BlockRamMemory rules": (
        lambda: stream_rules(memory.BlockRamMemory(TINY)),
        {"depth": 3, "cover": 10},
    ),
    "Core rules": (
        lambda: core_rules(Core(WIDE)),
        {"depth": 24, "cover": 20, "induction": False},
    ),
    "Core rules, one bank": (
        lambda: core_rules(Core(replace(WIDE, banks=1))),
        {"depth": 30, "cover": 20, "induction": False},
    ),
    "Accelerator rules": (
        lambda: accelerator_rules(Accelerator(TINY)),
        {"depth": 3, "cover": 4},
    ),
    "StreamRegister contract": (
        lambda: register_contract(streams.StreamRegister(8)),
        {"depth": 3, "cover": 6},
    ),
    "StreamSwitch contract": (
        lambda: switch_contract(streams.StreamSwitch(8)),
        {"depth": 2, "cover": 4},
    ),
    "BlockRamMemory contract": (
        lambda: memory_contract(memory.BlockRamMemory(SMALL)),
        {"depth": 4, "cover": 14},
    ),
    "Base3x5Decoder inverse": (
        lambda: engine.decoder_inverse(decoder.Base3x5Decoder(BASE3X5)),
        {"depth": 5, "cover": 5},
    ),
    "SelectEngine product, fill 5": (
        lambda: engine.engine_product(select.SelectEngine(WIDE)),
        {"depth": 9, "cover": 18},
    ),
    "SelectEngine product, fill 1": (
        lambda: engine.engine_product(select.SelectEngine(SMALL)),
        {"depth": 9, "cover": 24},
    ),
    "SelectEngine product, diff2": (
        lambda: engine.engine_product(select.SelectEngine(PAIRS)),
        {"depth": 7, "cover": 18},
    ),
    "PartialSums total": (
        lambda: results.partial_sums_total(partial_sums.PartialSums(SMALL)),
        {"depth": 12, "cover": 28},
    ),
    "PartialSums total, one bank": (
        lambda: results.partial_sums_total(partial_sums.PartialSums(ONE_BANK)),
        {"depth": 12, "cover": 24},
    ),
    "LayerRunner contract": (
        lambda: runner_contract(layer_runner.LayerRunner(RUNNER)),
        {"depth": 22, "cover": 20, "induction": False},
    ),
    "LayerRunner contract, two lanes": (
        lambda: runner_contract(layer_runner.LayerRunner(TWO_LANES)),
        {"depth": 18, "cover": 20, "induction": False},
    ),
    "PacketReceiver contract": (
        lambda: packets.receiver_contract(framing.PacketReceiver(FRAMES)),
        {"depth": 2, "cover": 30},
    ),
    **{
        f"PacketNarrower contract, {size} bytes": (
            lambda size=size: packets.narrower_contract(framing.PacketNarrower(size)),
            {"depth": 2, "cover": 20},
        )
        for size in (2, 4, 8)
    },
    **{
        f"PacketSender contract, {size} bytes": (
            lambda beats=beats: packets.sender_contract(framing.PacketSender(beats)),
            {"depth": 2, "cover": 10},
        )
        for size, beats in BEATS.items()
    },
}


@pytest.mark.formal
@pytest.mark.parametrize("name", PROOFS)
def test_proof(name):
    bench, options = PROOFS[name]
    proof = verify(bench(), **options)
    assert proof.inductive == options.get("induction", True)
    assert proof.covers
    print(f"{name}: {proof}")  # pytest -rP shows it


BUGS = {
    "register drops a word": (
        streams,
        ("self.i.ready.eq(~full.all())", "self.i.ready.eq(1)"),
        lambda m: register_contract(m.StreamRegister(8)),
        "check_",
    ),
    "register repeats a word": (
        streams,
        ("[full.bit_select(sending, 1).eq(0), sending.eq(~sending)]", "[]"),
        lambda m: register_contract(m.StreamRegister(8)),
        "check_",
    ),
    "switch takes a word that no one took": (
        streams,
        ("Mux(self.second, self.o_second.ready,", "Mux(self.second, 1,"),
        lambda m: switch_contract(m.StreamSwitch(8)),
        "check_passes",
    ),
    "switch sends a word twice": (
        streams,
        (
            "self.o_first.valid.eq(self.i.valid & ~self.second)",
            "self.o_first.valid.eq(self.i.valid)",
        ),
        lambda m: switch_contract(m.StreamSwitch(8)),
        "check_one",
    ),
    "sender goes on without ready": (
        framing,
        (
            "with m.If(self.o.ready):\n                    m.d.sync += tail",
            "with m.If(1):\n                    m.d.sync += tail",
        ),
        lambda m: stream_rules(m.PacketSender(TINY)),
        "check_o_payload",
    ),
    "a range begins one word late": (
        memory,
        ("address.eq(self.i_read.payload.address)", "address.eq(self.i_read.payload.address + 1)"),
        lambda m: memory_contract(m.BlockRamMemory(SMALL)),
        "check_",
    ),
    "the next range cuts the last one": (
        memory,
        ("~more | ((left == 1) & fetch)", "(left <= 1)"),
        lambda m: memory_contract(m.BlockRamMemory(SMALL)),
        "check_none_lost",
    ),
    "decoder compares with > for >=": (
        decoder,
        ("rest >= 2 * weight", "rest > 2 * weight"),
        lambda m: engine.decoder_inverse(m.Base3x5Decoder(BASE3X5)),
        "check_inverse",
    ),
    "a sum of two does not fit": (
        select,
        ('Signal(config.act_bits + 1, name="pair"', 'Signal(config.act_bits, name="pair"'),
        lambda m: engine.engine_product(m.SelectEngine(WIDE)),
        "check_sum_0",
    ),
    "signs relative to the first one": (
        select,
        ("negative[n & (n - 1)]", "negative[0]"),
        lambda m: engine.engine_product(m.SelectEngine(WIDE)),
        "check_decoded_3",
    ),
    "no sign is differential in a pair": (
        select,
        ("for bit in pair]", "for bit in (pair[0], pair[0])]"),
        lambda m: engine.engine_product(m.SelectEngine(PAIRS)),
        "check_",
    ),
    "a tile is ready before its last word": (
        select,
        (" & ~arriving.any()", ""),
        lambda m: engine.engine_product(m.SelectEngine(SMALL)),
        "check_ready",
    ),
    "a layer goes on where the last one ended": (
        select,
        ("self.act_address.eq(0)", "self.act_address.eq(self.act_address)"),
        lambda m: engine.engine_product(m.SelectEngine(WIDE)),
        "check_address",
    ),
    "tiles swap a cycle early": (
        select,
        ("encoding.decoder_cycles - 1)", "encoding.decoder_cycles - 2)"),
        lambda m: engine.engine_product(m.SelectEngine(WIDE)),
        "check_",
    ),
    "the first tile is added to what was there": (
        partial_sums,
        ("self.i_first, PARTIAL_SUM_READ_CYCLES - 1", "self.i_last, PARTIAL_SUM_READ_CYCLES - 1"),
        lambda m: results.partial_sums_total(m.PartialSums(SMALL)),
        "check_",
    ),
    "sums are written to the other bank": (
        partial_sums,
        ("write.connect(m, totals, runs)", "write.connect(m, totals, ~runs)"),
        lambda m: results.partial_sums_total(m.PartialSums(SMALL)),
        "check_memory",
    ),
    "totals come from the bank that is named last": (
        partial_sums,
        ("Mux(bank, totals_out[1]", "Mux(self.i_fetch.bank, totals_out[1]"),
        lambda m: results.partial_sums_total(m.PartialSums(SMALL)),
        "check_",
    ),
    "a row group is not kept while it waits": (
        core,
        ("advance.eq(~self.o.valid | self.o.ready)", "advance.eq(1)"),
        lambda m: core_rules(m.Core(WIDE)),
        "check_",
    ),
    "a packet of wrong length is taken": (
        framing,
        (" & (length == count)", ""),
        lambda m: packets.receiver_contract(m.PacketReceiver(FRAMES)),
        "check_bad",
    ),
    "a packet of wrong checksum is taken": (
        framing,
        ("crc.match_detected & ", ""),
        lambda m: packets.receiver_contract(m.PacketReceiver(FRAMES)),
        "check_bad",
    ),
    "a byte after the packet's length comes": (
        framing,
        ("(place + 1 >= left)", "(place >= left)"),
        lambda m: packets.narrower_contract(m.PacketNarrower(2)),
        "check_",
    ),
    "every beat ends the packet": (
        framing,
        ("self.o.payload.last.eq(beat.last & ends)", "self.o.payload.last.eq(ends)"),
        lambda m: packets.narrower_contract(m.PacketNarrower(2)),
        "check_last",
    ),
    "an abort comes with each byte": (
        framing,
        ("self.o_abort.eq(self.i_abort & ends)", "self.o_abort.eq(self.i_abort)"),
        lambda m: packets.narrower_contract(m.PacketNarrower(2)),
        "check_abort",
    ),
}
# Cycles in which a bug shows, where it is not the few of most.
BUG_CYCLES = {
    "a sum of two does not fit": 14,
    "signs relative to the first one": 14,
    "a layer goes on where the last one ended": 12,
    "tiles swap a cycle early": 14,
    "the first tile is added to what was there": 14,
    "sums are written to the other bank": 14,
    "totals come from the bank that is named last": 14,
    "a packet of wrong length is taken": 24,
    "a packet of wrong checksum is taken": 24,
}


@pytest.mark.formal
@pytest.mark.parametrize("name", BUGS)
def test_bug_found(name):
    module, change, bench, expected = BUGS[name]
    with pytest.raises(PropertyError) as error:
        verify(bench(broken(module, *change)), depth=BUG_CYCLES.get(name, 8), cover=1)
    assert any(name.startswith(expected) for name in error.value.names)
    assert str(error.value).splitlines()[0].endswith(": fails")
    assert error.value.trace


RUNNER_BUGS = {
    "zeros end a tile early": ("(tile > self.last_tile)", "(tile >= self.last_tile)", "padded"),
    "codes of another program stay": ("clear.eq(~self.active | changes)", "clear.eq(0)", ""),
    "codes go on beyond the bank": ("room.eq(tile != config.max_tiles)", "room.eq(1)", "load_"),
    "a result comes twice": ("row.eq(Mux(ends, 0, row + 1))", "row.eq(0)", "sum"),
    "zeros come before the last results": (
        "~more & empty)\n        else",
        "~more)\n        else",
        "sum",
    ),
    "results of the layer before come": (
        "takes.eq(self.active & current)",
        "takes.eq(current)",
        "",
    ),
}


@pytest.mark.formal
@pytest.mark.parametrize("name", RUNNER_BUGS)
def test_runner_bug_found(name):
    old, new, expected = RUNNER_BUGS[name]
    bench = runner_contract(broken(layer_runner, old, new).LayerRunner(RUNNER))
    with pytest.raises(PropertyError, match=": fails\n") as error:
        verify(bench, depth=20, cover=None, induction=False)
    assert any(failed.startswith(f"check_{expected}") for failed in error.value.names)


LANES_BUGS = {
    "a word is of other codes": ("range(lanes))[after]", "range(lanes))[0]", "code"),
    "two results for one": ("taken.eq(self.sum_last + 1)", "taken.eq(lanes)", "sum_"),
    "fewer results than wanted": ("(count > self.sum_last) |", "(count != 0) |", "sum_"),
    "results at another place": ("placed[left[: (lanes - 1).bit_length()]]", "placed[0]", "sum_"),
}


@pytest.mark.formal
@pytest.mark.parametrize("name", LANES_BUGS)
def test_runner_of_two_lanes_bug_found(name):
    old, new, expected = LANES_BUGS[name]
    bench = runner_contract(broken(layer_runner, old, new).LayerRunner(TWO_LANES))
    with pytest.raises(PropertyError, match=": fails\n") as error:
        verify(bench, depth=18, cover=None, induction=False)
    assert any(failed.startswith(f"check_{expected}") for failed in error.value.names)


SENDER_BUGS = {
    "the last beat counts as a whole one": (
        ("crc.size.eq(Mux(last, size, beat_bytes))", "crc.size.eq(beat_bytes)"),
        "check_checksum_size",
    ),
    "the checksum is a beat late": (
        ("crc.data.eq(body.o.payload)", "crc.data.eq(rest)"),
        "check_checksum_data",
    ),
    "the checksum begins a byte late": (
        ("end.eq(Cat(rest[: 8 * n], crc.crc))", "end.eq(Cat(rest[: 8 * n], crc.crc[8:]))"),
        "check_checksum_0",
    ),
    "the packet ends a beat early": (
        (">= size + CRC_BYTES)", "> size)"),
        "check_last",
    ),
    "the bytes of a masked beat are stored": (
        ("write.en.eq(self.mask & self.write", "write.en.eq(self.write"),
        "check_stores",
    ),
}


@pytest.mark.formal
@pytest.mark.parametrize("name", SENDER_BUGS)
def test_sender_bug_found(name):
    """A response is too long for a trace from reset, so the induction finds the bug."""
    change, expected = SENDER_BUGS[name]
    bench = packets.sender_contract(broken(framing, *change).PacketSender(BEATS[2]))
    with pytest.raises(PropertyError, match=r"(: is not inductive|: fails)\n") as error:
        verify(bench, depth=2, cover=None)
    assert expected in error.value.names


@pytest.mark.formal
def test_memory_stream_bug_found(monkeypatch):
    copy = broken(streams, "fetch.eq(more & (~o.valid | o.ready))", "fetch.eq(more)")
    monkeypatch.setattr(framing, "stream_from_memory", copy.stream_from_memory)
    bench = stream_rules(framing.PacketReceiver(TINY))
    with pytest.raises(PropertyError, match=r"^check_\w+.*: fails\n"):
        verify(bench, depth=28, cover=1, induction=False)


@pytest.mark.formal
def test_results_bug_found_in_core():
    copy = broken(core, "with m.If(taken | free):", "with m.If(1):")
    with pytest.raises(PropertyError, match=r"^check_o_\w+.*: fails\n"):
        verify(core_rules(copy.Core(replace(WIDE, banks=1))), depth=20, cover=1, induction=False)


@pytest.mark.formal
def test_sender_bug_found_in_top(monkeypatch):
    copy = broken(framing, "with m.If(self.o.ready):", "with m.If(1):")
    monkeypatch.setattr(top, "PacketSender", copy.PacketSender)
    with pytest.raises(PropertyError, match=r"^check_o_\w+: is not inductive\n"):
        verify(accelerator_rules(Accelerator(TINY)), depth=3, cover=1)


def test_packer_inverse():
    codes = np.arange(243, dtype=np.uint32)
    trits = BASE3X5.decode(codes)
    assert (((trits + 1) * 3 ** np.arange(5)).sum(axis=1) == codes).all()
    assert (BASE3X5.encode(trits) == codes).all()
    for code in range(243, 256):
        with pytest.raises(InputError):
            BASE3X5.decode(np.array([code], np.uint32))
