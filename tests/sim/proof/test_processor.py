"""Proof of the command processor, a simulation that reaches its covers, and bugs that both find."""

import random
import zlib
from dataclasses import replace

import pytest

from tests.support.broken import broken
from tests.support.plugins import Failing
from tritloom.rtl.control import acceptor, banks, processor, responder, result_floats, states
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.commands import CRC_BYTES, LAYER, Opcode, Request
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES, ScaleConfig
from tritloom.sim.proof.formal import PropertyError, verify
from tritloom.sim.proof.processor import processor_rules


def commands(config):
    """Header and payload of commands on a layer of one word, with random banks. Some come twice,
    and some are not in order."""
    rng = random.Random(7)
    load = bytes(config.fill)
    requests = [
        Request(Opcode.DEFINE, payload=LAYER.pack(0, 1, 1)),
        *[Request(Opcode.WRITE, payload=bytes(config.word_bytes))] * 4,
        Request(Opcode.COMMIT, address=zlib.crc32(bytes(config.word_bytes))),
    ]
    for bank in (0, config.banks - 1):
        requests += [
            Request(Opcode.RUN, count=1),
            Request(Opcode.LOAD, payload=load, activation_bank=bank),
        ]
        if config.scales_activations:
            scale = bytes(FLOAT_BYTES)
            requests.append(Request(Opcode.SCALES, payload=scale, activation_bank=bank))
    for _ in range(80):
        kinds = [Opcode.RUN, Opcode.LOAD, Opcode.RESULTS, Opcode.RESULTS]
        kind = rng.choice(kinds + [Opcode.SCALES] * config.scales_activations)
        banks = {
            "activation_bank": rng.randrange(config.banks),
            "result_bank": rng.randrange(config.banks),
        }
        payload = {Opcode.LOAD: load, Opcode.SCALES: bytes(FLOAT_BYTES)}.get(kind, b"")
        # A part of the layer's row group, or all of it.
        count = rng.choice([1, 1, 2]) if config.scale and kind == Opcode.RESULTS else 1
        requests.append(Request(kind, count=count, payload=payload, **banks))
    packets = []
    for number, request in enumerate(requests, 1):
        packet = replace(request, seq=number).pack()
        packets += [packet] * rng.choice([1, 1, 2])
        if rng.random() < 0.1:
            packets.append(Request(Opcode.RESET).pack())
        if rng.random() < 0.1:
            packets.append(replace(request, seq=number + 5).pack())
    return b"".join(packet[:-CRC_BYTES] for packet in packets)


def surroundings(component):
    """What drives a `CommandProcessor`: the commands, and a core that takes its time."""
    rng = random.Random(3)
    data, place, waiting, left = commands(component.config), 0, 0, 0
    scaled = component.config.scales_activations
    durations = iter([150, 150])
    while True:
        done = left == 1
        get = yield {
            "i__valid": place < len(data),
            "i__payload": data[place] if place < len(data) else 0,
            "i_word__valid": 1,
            "o_read__ready": rng.random() < 0.5,
            "o_write__ready": rng.random() < 0.5,
            "o_run__ready": left == 0 and rng.random() < 0.5,
            "o_load__ready": rng.random() < 0.5,
            **({"o_scale__ready": rng.random() < 0.5} if scaled else {}),
            "o_fetch__ready": waiting < 1 and rng.random() < 0.03,
            "i_result__valid": waiting > 0 and rng.random() < 0.1,
            "o_send__ready": rng.random() < 0.2,
            "done": done,
        }
        place += get(component.i.valid) & get(component.i.ready)
        waiting += get(component.o_fetch.valid) & get(component.o_fetch.ready)
        waiting -= get(component.i_result.valid) & get(component.i_result.ready)
        left -= left > 0
        if get(component.o_run.valid) & get(component.o_run.ready):
            left = next(durations, rng.choice([3, 30, 150]))


FLOAT = replace(TINY, scale=ScaleConfig(kind="float", group=10))
CONFIGS = {
    "2 banks, 2 slots": TINY,
    "2 banks, 4 slots, beats of 8 bytes": replace(TINY, slots=4, link=PacketStream(width=8)),
    "1 bank": replace(TINY, banks=1),
    "float scales": FLOAT,
    "a memory that may stall and fail": replace(TINY, memory=Failing(words=64)),
}


def simulate(component):
    bench = processor_rules(component)
    cycles = 6000 if component.config.scale is None else 18_000
    return bench.simulate(cycles, surroundings(component)), bench.covers


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_covers(name):
    reached, covers = simulate(CommandProcessor(CONFIGS[name]))
    assert reached == covers


@pytest.mark.formal
@pytest.mark.parametrize("name", CONFIGS)
def test_proof(name):
    proof = verify(processor_rules(CommandProcessor(CONFIGS[name])), depth=4, cover=None)
    assert proof.inductive
    print(f"CommandProcessor rules, {name}: {proof}")


# What is broken, and the check that fails.
BUGS = {
    "LOAD does not wait for the layer": (
        banks,
        ("~(self.busy & (of_run.activation_bank == self.activation_bank))", "1"),
        "check_loads",
    ),
    "LOAD waits for the layer of the other bank": (
        banks,
        ("(of_run.activation_bank == self.", "(of_run.activation_bank != self."),
        "check_loads",
    ),
    "RUN does not wait for RESULTS": (
        banks,
        (" & (uncopied[self.result_bank] == 0)", ""),
        "check_starts",
    ),
    "RESULTS does not wait for the layer": (
        banks,
        ("(self.busy & (of_run.result_bank == self.copy_bank))", "self.start"),
        "check_fetch",
    ),
    "a RESULTS is copied before the layer that it is of": (
        responder,
        ("with m.If((task.kind != Kind.RESULTS) | self.may_copy):", "with m.If(1):"),
        "check_fetch",
    ),
    "a RESULTS of the other bank is counted": (
        banks,
        ("less = self.copied & (self.copy_bank == number)", "less = self.copied & (number == 0)"),
        "check_uncopied_0",
    ),
    "a RESULTS is copied when its row groups are fetched": (
        responder,
        (
            "with m.If((task.items == 0) & splitter.empty):",
            "with m.If(((task.items == 0) | (unfetched == 0)) & splitter.empty):",
        ),
        "check_fetching",
    ),
    "more commands than slots": (
        states,
        ("with m.If(~order.full):", "with m.If(1):"),
        "check_room",
    ),
    "a task without a response is counted": (
        processor,
        ("                & has_response(config, acceptor.o_task.payload.kind)\n", ""),
        "check_unsent",
    ),
    "a response is sent again while others wait": (
        states,
        ("with m.If((ports.unsent == 0) & ~", "with m.If(~"),
        "check_alone",
    ),
}


OF_FLOATS = {
    "SCALES does not wait for the layer": (
        states,
        ("self._start(Opcode.SCALES, ports.may_load, ", "self._start(Opcode.SCALES, 1, "),
        "check_loads",
    ),
    "a total takes no place": (
        result_floats,
        ("m.d.sync += free.eq(free - 1)", "pass"),
        "check_floats_free",
    ),
    "a row group is left before its last row": (
        result_floats,
        ("self.i.ready.eq(enters & last)", "self.i.ready.eq(enters)"),
        "check_fetching",
    ),
}
"""Bugs of a device with scales of activations."""
BUGS |= OF_FLOATS


def component_with(monkeypatch, name):
    """A `CommandProcessor` with a bug."""
    module, change, _ = BUGS[name]
    config = FLOAT if name in OF_FLOATS else TINY
    copy = broken(module, *change)
    if module is processor:
        return copy.CommandProcessor(config)
    for part in module.__all__:
        for user in (processor, acceptor, responder):
            if hasattr(user, part):
                monkeypatch.setattr(user, part, getattr(copy, part))
    return CommandProcessor(config)


@pytest.mark.formal
@pytest.mark.parametrize("name", BUGS)
def test_bug_found(monkeypatch, name):
    with pytest.raises(PropertyError, match=r"^check_\w+.*: is not inductive\n"):
        verify(processor_rules(component_with(monkeypatch, name)), depth=4, cover=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_bug_shows(monkeypatch, name):
    *_, expected = BUGS[name]
    with pytest.raises(PropertyError) as error:
        simulate(component_with(monkeypatch, name))
    assert expected in error.value.names
