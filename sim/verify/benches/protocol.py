"""Benches of what lies around commands: power-up, order, sessions, damage, overflow, restart.

Every bench writes each weight word and activation before the design reads it, because the reset pin
leaves the memories as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np

from tritloom.rtl.spec.commands import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    Opcode,
    Request,
    Status,
    identity,
    seal,
)
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.requests import run_layer
from tritloom.sim.verify.boundaries import order_requests
from tritloom.sim.verify.driver import PATTERNS, Driver, bench

ALIKE = [(name, name) for name in PATTERNS]
"""The same pauses on both streams."""
RUN_WORDS = 48
"""Words of a layer that takes longer to compute than a packet to come."""


@cocotb.test()
@bench
async def power_up(dut: Any) -> None:
    """Session 0 with 1 as the next seq, no layer, no results; first of all, in fresh memories."""
    t = Driver(dut, "power_up")
    await t.power()
    await t.send(Request(Opcode.IDENTIFY, 1, 77, count=4).pack())
    await t.send(Request(Opcode.IDENTIFY, 2, count=4).pack())
    response = await t.do(Opcode.COUNTERS, Status.OK)
    assert response.expected == 2
    for bank in range(t.config.banks):
        await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1, result_bank=bank)
    for index in {0, t.config.max_layers - 1}:
        await t.do(Opcode.RUN, Status.BAD_STATE, index=index, count=1)
        await t.do(Opcode.READ, Status.BAD_STATE, index=index, count=1)
    await t.send(Request(Opcode.RESET).pack())
    await t.do(Opcode.IDENTIFY, Status.OK, count=1)
    await t.renew()
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.quiet(50)


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def identify(dut: Any, idle: str, stall: str) -> None:
    """The identity that the design carries is its configuration's."""
    t = Driver(dut, "identify", idle, stall)
    await t.begin()
    size = len(identity(t.config))
    step = t.config.max_payload
    if idle != stall:  # whole and in order where both streams are alike; else a piece
        first = t.random.randrange(size)
        await t.do(Opcode.IDENTIFY, address=first, count=min(step, size - first))
        return
    read = b""
    for at in range(0, size, step):
        count = min(step, size - at)
        read += (await t.do(Opcode.IDENTIFY, Status.OK, address=at, count=count)).payload
    assert read == identity(t.config)
    await t.do(Opcode.IDENTIFY, Status.OUT_OF_RANGE, address=size - 1, count=2)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), ALIKE))
@bench
async def order(dut: Any, idle: str, stall: str) -> None:
    """Nothing is executed twice, out of order, or of another session."""
    t = Driver(dut, "order", idle, stall)
    await t.begin()
    trits = t.trits((1, 1), "random")
    done = t.layer(0, 0, trits) + t.loads(t.codes(1, "random"))
    done += [t.command(Opcode.RUN, index=0, count=1), t.command(Opcode.RESULTS, count=1)]
    for number, packet in enumerate(done):
        await t.send(packet, packet)  # the second is a replay
        await t.send(*done[max(0, number + 1 - t.config.window) : number + 1])
    if len(done) > t.config.window:
        await t.send(done[-1 - t.config.window])
        assert t.last().status == Status.NAK
    gap = Request(Opcode.RUN, t.seq + 2, t.session, count=1).pack()
    far = Request(Opcode.RUN, t.seq + 32768, t.session, count=1).pack()
    late = Request(Opcode.RUN, 0, t.session, count=1, payload=bytes(3)).pack()
    for packet in (gap, far, late):
        await t.send(packet)
        assert t.last().status == Status.NAK
    other = Request(Opcode.RUN, t.seq + 1, t.session ^ 1, count=1, payload=bytes(3)).pack()
    await t.send(other)
    assert t.last().status == Status.NO_SESSION
    # RESET to the session's own number changes nothing, to another number it forgets everything.
    reset = Request(Opcode.RESET, 99, t.session).pack()
    await t.send(reset)
    assert t.last().status == Status.OK and t.last().expected == t.seq + 1
    await t.do(Opcode.RUN, Status.OK, count=1)
    old = t.command(Opcode.RUN, count=1)
    await t.send(old)
    await t.renew()
    await t.send(old)
    assert t.last().status == Status.NO_SESSION
    await t.send(Request(Opcode.RUN, 0, t.session).pack())
    assert t.last().status == Status.NAK  # nothing to replay
    await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1)
    for index in {0, t.config.max_layers - 1}:
        await t.do(Opcode.READ, Status.BAD_STATE, index=index, count=1)
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.send(Request(Opcode.RESET, 1, t.session ^ 2, payload=b"x").pack())
    await t.quiet(20)


@cocotb.test()
@bench
async def replays(dut: Any) -> None:
    """A duplicate of a RUN that may still run, and of RESULTS whose bank was overwritten.

    Then what a RUN reads is overwritten directly behind it, and a RESET comes in its middle.
    """
    t = Driver(dut, "replays")
    await t.begin()
    last = t.config.banks - 1
    words = min(RUN_WORDS, t.config.memory_words)
    row_groups = min(words, t.config.max_row_groups)
    tiles = min(words // row_groups, t.config.max_tiles)
    shape = (row_groups * t.config.rows, tiles * t.config.lanes)

    def product(bank: int) -> list[bytes]:
        """Packets that compute layer 0 into the last result bank, and read some results."""
        run = t.pack(run_layer(0, t.config.tokens, bank, last))
        return [run, t.command(Opcode.RESULTS, count=1, result_bank=last)]

    for bank in range(t.config.banks):
        await t.send(*t.loads(t.codes(shape[1], "random"), bank))
    await t.send(*t.layer(0, 0, t.trits(shape, "extreme")))
    done: list[bytes] = []
    for bank in (0, last, last, 0):
        done += product(bank)
        run, results = done[-2:]
        await t.send(run, run, results, run, results)
        await t.send(*done[-t.config.window :])  # they are stored now: all must come again
    for bank in (0, last):
        for store in overwriting(t, LayerShape(tiles, row_groups), bank):
            run = t.pack(run_layer(0, t.config.tokens, bank, last))
            await t.send(run, t.pack(store), *t.results(shape[0], last))
    for cycles in (1, 2 * OVERHEAD_BYTES, 2 * OVERHEAD_BYTES + row_groups):
        run = t.pack(run_layer(0, t.config.tokens, 0, last))
        await t.begin_to_send(run, len(run) + cycles)
        await t.renew()
        for bank in range(t.config.banks):
            await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1, result_bank=bank)
        await t.do(Opcode.RUN, Status.BAD_STATE, index=0, count=1)
        await t.send(*t.layer(0, 0, t.trits(shape, "extreme")), *product(last))
        assert t.last().status == Status.OK
    await t.do(Opcode.COUNTERS, Status.OK)


def overwriting(t: Driver, shape: LayerShape, bank: int) -> Iterator[Request]:
    """Overwrite what a layer reads last: activations of its last tile, and their scale."""
    config, token = t.config, t.config.tokens - 1
    address = (shape.tiles - 1) * config.lanes // config.fill
    codes = t.random.randbytes(config.lanes)
    yield Request(Opcode.LOAD, index=token, address=address, payload=codes, activation_bank=bank)
    if config.scales_activations:
        last = shape.with_longest(config.most_group_tiles).groups - 1
        scale = np.array([t.random.gauss(0, 1)], "<f4").tobytes()
        yield Request(Opcode.SCALES, index=token, address=last, payload=scale, activation_bank=bank)


@cocotb.test()
@bench
async def sequence(dut: Any) -> None:
    """Every bit of seq and of session counts."""
    t = Driver(dut, "sequence")
    await t.begin()
    for _ in range(t.config.window):
        await t.do(Opcode.IDENTIFY, Status.OK, count=1)
    wrong = order_requests(t.seq + 1, t.session, t.config.window)
    await t.send(*(request.pack() for request in wrong))
    await t.do(Opcode.IDENTIFY, Status.OK, count=4)


@cocotb.test()
@bench
async def unread(dut: Any) -> None:
    """A response that waits to be taken stays as it is while the next command is executed.

    The responses NAK and NO_SESSION lie in the slot of the next command.
    """
    t = Driver(dut, "unread")
    await t.begin()
    for number in range(4):
        session = t.session if number % 2 else t.session ^ 1
        seq = t.seq + (2 if number % 2 else 1)
        wrong = Request(Opcode.IDENTIFY, seq, session, count=1).pack()
        await t.send_blocked([wrong, t.command(Opcode.IDENTIFY, address=number, count=9)])
        assert t.last().status == Status.OK
    old = t.command(Opcode.IDENTIFY, count=4)
    await t.send(old)
    await t.send_blocked([old, t.command(Opcode.IDENTIFY, count=9)])
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), ALIKE))
@bench
async def damage(dut: Any, idle: str, stall: str) -> None:
    """Packets with a wrong checksum or length are dropped, and change nothing."""
    t = Driver(dut, "damage", idle, stall)
    await t.begin()
    rng = t.random
    good = Request(Opcode.RESET, 5, t.session ^ 0x55, address=rng.getrandbits(32)).pack()
    body = good[:-4]

    def flipped(bit: int) -> bytes:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        return bytes(bad)

    bits = [8 * place + rng.randrange(8) for place in range(len(good))]
    sizes = [6, 15, HEADER_BYTES, OVERHEAD_BYTES - 1]
    bad = [flipped(bit) for bit in bits]
    beat = t.config.link.beat_bytes  # a design ignores what follows a packet in its last beat
    bad += [rng.randbytes(1), good[:-beat], good + bytes(beat), good + good, good[1:]]
    lengths = {len(good) - 1, len(good) + 1, *(len(good) ^ 1 << bit for bit in range(16))}
    bad += [seal(length.to_bytes(2, "little") + body[2:]) for length in sorted(lengths)]
    # A right checksum and the right length of a packet that is too short.
    bad += [bytes(4), *(seal(size.to_bytes(2, "little") + bytes(size - 6)) for size in sizes)]
    large = t.config.packet_bytes
    for size in (large + 1, large + 40, 2 * large):
        header = Request(Opcode.RESET, 5, t.session ^ 0x55, payload=bytes(size - OVERHEAD_BYTES))
        bad.append(header.pack())
    if idle == "none":
        bad.append(rng.randbytes(t.config.slots * large + 5))
    for number, packet in enumerate(bad):
        await t.send(packet)
        if number % 8 == 0:
            await t.do(Opcode.IDENTIFY, Status.OK, count=1)
    await t.do(Opcode.COUNTERS, Status.OK)
    # The largest packet is taken.
    payload = rng.randbytes(large - OVERHEAD_BYTES)
    await t.send(*(t.command(0, payload=payload) for _ in range(2)))
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.quiet(50)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [("none", "none"), ("light", "heavy")]))
@bench
async def overflow(dut: Any, idle: str, stall: str) -> None:
    """While no response is read, at least `window` packets fit in the buffer; others may drop.

    The device may accept `slots` commands more than its receive buffer holds: they wait in the
    queue of tasks.
    """
    t = Driver(dut, "overflow", idle, stall)
    await t.begin()
    packets = [
        t.command(0, index=number % 256, payload=t.random.randbytes(t.config.max_payload))
        for number in range(2 * t.config.slots + 4)
    ]
    dropped = await t.flood(packets)
    assert dropped and len(packets) - len(dropped) >= t.config.window, (
        f"the receive buffer must hold {t.config.window} packets, not drop {len(dropped)} "
        f"of {len(packets)}"
    )
    await t.send(*dropped)  # none of them was executed
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@bench
async def restart(dut: Any) -> None:
    """The reset pin ends whatever the device is doing."""
    t = Driver(dut, "restart")
    shape = (t.config.rows, t.config.lanes)
    whole = 2 * OVERHEAD_BYTES
    for opcode, cycles in (
        (Opcode.COUNTERS, OVERHEAD_BYTES // 2),
        (Opcode.COUNTERS, 6 * OVERHEAD_BYTES),
        (Opcode.RUN, whole + 2),
        (Opcode.RUN, whole + t.config.engine_latency),
        (Opcode.RUN, 3 * whole),
        (Opcode.COMMIT, whole + 4),
    ):
        await t.begin()
        await t.send(*t.layer(0, 0, t.trits(shape, "random")), *t.loads(t.codes(1, "random")))
        await t.begin_to_send(t.command(opcode, count=1), cycles)
    await t.begin()
    await t.send(*t.layer(0, 0, t.trits(shape, "random")), *t.loads(t.codes(1, "random")))
    await t.do(Opcode.RUN, Status.OK, count=1)
    await t.send(*t.results(t.config.rows))
    await t.do(Opcode.COUNTERS, Status.OK)
