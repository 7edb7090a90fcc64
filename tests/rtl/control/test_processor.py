"""The command processor alone: its neighbours are played by the test, and stall as they like."""

import random
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.support import quick_first
from tests.support.packets import Inputs, comparable
from tritloom.rtl.control.processor import CommandProcessor
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.checks import CHECKS
from tritloom.rtl.spec.commands import (
    COUNTERS,
    CRC_BYTES,
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    Status,
    identity,
    seal,
)
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations, pack_weights, unpack_weights
from tritloom.sim.conformance.streams import plain, simulate
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify.boundaries import boundary_requests, scenes
from tritloom.sim.verify.traffic import Traffic

WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=2,
    memory=BlockRam(words=40),
    max_in_features=35,
    max_out_features=19,
    max_layers=3,
    packet_bytes=256,
    slots=4,
)


class Port:
    """A stream's members, each the same object whenever it is asked for."""

    def __init__(self, stream) -> None:
        self.valid, self.ready, self.payload = stream.valid, stream.ready, stream.payload


class World:
    """What surrounds a processor, cycle by cycle; `stall`: how likely each of it is not ready."""

    def __init__(self, config: AcceleratorConfig, stall: float, seed: int) -> None:
        self.config = config
        self.dut = CommandProcessor(config)
        names = ("i", "i_word", "i_result", "o_send", "o_write", "o_read", "o_load")
        names += ("o_run", "o_fetch")
        self._ports = {name: Port(getattr(self.dut, name)) for name in names}
        self._done = self.dut.done
        self.responses: list[bytes] = []
        self.counters = [0] * len(COUNTERS)
        self.runs: list[int] = []  # cycles in which `running` was set, for each RUN
        self._rng = random.Random(seed)
        self._stall = stall
        self._stored = bytearray(config.slots * config.packet_bytes)
        self._memory = [0] * config.memory_words
        self._activations = np.zeros(
            (config.tokens, config.activation_words, config.fill), np.uint8
        )
        self._words: list[int] = []  # asked for and not yet taken
        self._run: list[int] = []  # words that the core took
        self._was_to_core = False  # `to_core` in the previous cycle
        self._none_waited = True  # whether no word was on its way in the previous cycle
        self._shape: dict[str, int] = {}
        self._done_in = 0
        self._sums = np.zeros((config.tokens, 0, config.rows), np.int64)
        self._result: list[int] | None = None
        self.send_cycles = 0  # cycles for which the sender reads a response that it has taken
        self._sending: list[int] = []  # the slot of that response, and the cycles left

    def simulate(self, packets: list[bytes], responses: int) -> None:
        """Feed sound packets as the receiver does, until `responses` responses came."""
        data = b"".join(packet[:-CRC_BYTES] for packet in packets)

        async def bench(ctx):
            self._inputs = Inputs(ctx)
            for index, value in enumerate(self.counters):
                ctx.set(self.dut.counters[index], value)
            position, limit = 0, 300 * len(data) + 20_000
            while position < len(data) or len(self.responses) < responses:
                position += await self._cycle(ctx, data[position : position + 1])
                limit -= 1
                if limit == 0:
                    raise TimeoutError(f"{len(self.responses)} of {responses} responses")
            for _ in range(40 + self.send_cycles):  # and no more
                await self._cycle(ctx, b"")
            assert len(self.responses) == responses

        simulate(self.dut, bench, deadline_cycles=0)

    def _goes(self) -> bool:
        return self._rng.random() >= self._stall

    async def _cycle(self, ctx, byte: bytes) -> bool:
        dut, config, inputs = self.dut, self.config, self._inputs
        offered = bool(byte) and self._goes()
        ready = {
            "o_send": not self._sending and self._goes(),
            "o_write": self._goes(),
            "o_read": not self._words and self._goes(),
            "o_load": self._goes(),
            "o_run": self._goes(),
            "o_fetch": self._result is None and self._goes(),
        }
        # The words of RUN go to the core, which takes them when it runs.
        to_core = bool(ctx.get(dut.to_core))
        assert to_core or not ctx.get(dut.running)
        if self._words and not self._none_waited:
            assert to_core == self._was_to_core, (
                "the words go elsewhere while they are on their way"
            )
        self._was_to_core, self._none_waited = to_core, not self._words
        word = self._words[0] if self._words and self._goes() else None
        core_word = word if ctx.get(dut.running) and self._goes() else None
        inputs.set(self._ports["i"].valid, offered)
        if offered:
            inputs.set(self._ports["i"].payload, byte[0])
        for name, value in ready.items():
            inputs.set(self._ports[name].ready, value)
        inputs.set(self._ports["i_word"].valid, word is not None and not to_core)
        if word is not None and not to_core:
            inputs.set(self._ports["i_word"].payload, word)
        inputs.set(self._done, self._done_in == 1)
        inputs.set(self._ports["i_result"].valid, self._result is not None)
        if self._result is not None:
            inputs.set(self._ports["i_result"].payload, self._result)
        moved = {
            name: plain(ctx.get(self._ports[name].payload))
            for name, value in ready.items()
            if value and ctx.get(self._ports[name].valid)
        }
        (
            _,
            _,
            accepted,
            write,
            address,
            data,
            word_ready,
            result_ready,
            running,
        ) = await ctx.tick().sample(
            dut.i.ready,
            dut.write,
            dut.address,
            dut.byte,
            dut.i_word.ready,
            dut.i_result.ready,
            dut.running,
        )
        if running and self.runs:
            self.runs[-1] += 1
        if self._done_in == 1:
            self._finish()
        self._done_in = max(0, self._done_in - 1)
        if write:
            self._stored[address] = data
        if core_word is not None:
            self._run.append(self._words.pop(0))
            if not self._words:
                self._done_in = self._rng.randrange(1, 6)
        elif word is not None and not to_core and word_ready:
            self._words.pop(0)
        if self._result is not None and result_ready:
            self._result = None
        if "o_write" in moved:
            self._memory[moved["o_write"]["address"]] = moved["o_write"]["word"]
        if "o_read" in moved:
            start, count = moved["o_read"]["address"], moved["o_read"]["count"]
            self._words = self._memory[start : start + count]
            assert len(self._words) == count > 0
        if "o_load" in moved:
            load = moved["o_load"]
            raw = load["word"].to_bytes(config.fill, "little")
            self._activations[load["token"], load["address"]] = list(raw)
        if "o_run" in moved:
            self._shape, self._run = moved["o_run"], []
            self.runs.append(0)
        if "o_fetch" in moved:
            self._result = self._sums[:, moved["o_fetch"]].flatten().tolist()
        if "o_send" in moved:
            self._sending = [moved["o_send"], self.send_cycles]
        if self._sending:
            if self._sending[1] == 0:
                self._send(self._sending[0])
            else:
                self._sending[1] -= 1
        return bool(offered and accepted)

    def _send(self, slot: int) -> None:
        """The sender has read the last byte of the response in a slot."""
        start = slot * self.config.packet_bytes
        size = int.from_bytes(self._stored[start : start + 2], "little") - CRC_BYTES
        self.responses.append(seal(bytes(self._stored[start : start + size])))
        self._sending = []

    def _finish(self) -> None:
        """What the core would have computed."""
        config = self.config
        tiles, groups = self._shape["last_tile"] + 1, self._shape["last_group"] + 1
        assert len(self._run) == tiles * groups
        image = b"".join(word.to_bytes(config.word_bytes, "little") for word in self._run)
        rows, columns = groups * config.rows, tiles * config.lanes
        trits = unpack_weights(config, image, rows, columns).astype(np.int64)
        codes = self._activations.reshape(config.tokens, -1).view(np.int8)[:, :columns]
        self._sums = (codes @ trits.T).reshape(config.tokens, groups, config.rows)


@quick_first("stall", [0.7, 0.3, 0.0])
@quick_first("config", [WIDE, TINY])
def test_random_traffic(config, stall):
    """Each response is the reference device's, whatever stalls; RUN's value is its cycles."""
    traffic = Traffic(config, round(10 * stall))
    traffic.reset(5)
    traffic.random(30)
    pairs = [pair for pair in traffic.packets if pair[1] is not None]
    world = World(config, stall, 25)
    world.simulate([packet for packet, _ in pairs], len(pairs))
    for (packet, expected), response in zip(pairs, world.responses, strict=True):
        seen = without_device_values(config, response)
        assert seen == without_device_values(config, expected), Request.parse(packet)


def without_device_values(config: AcceleratorConfig, packet: bytes) -> Response:
    """A response without what only the reference device's own core and counters say."""
    response = comparable(config, packet)
    if response.status == Status.OK and response.opcode == Opcode.COUNTERS:
        return replace(response, payload=b"")
    if response.status == Status.OK and response.opcode == Opcode.RUN:
        return replace(response, value=0)
    return response


class Driver:
    """Builds a list of packets in order, and gives the responses after it ran."""

    def __init__(self, config: AcceleratorConfig, session: int = 77) -> None:
        self.config, self.session = config, session
        self.packets = [Request(Opcode.RESET, 4, session).pack()]
        self.seq = 0

    def add(self, opcode: int, **fields) -> int:
        """The next command in order; gives the number of its response."""
        self.seq += 1
        return self.send(Request(opcode, self.seq, self.session, **fields))

    def send(self, request: Request) -> int:
        self.packets.append(request.pack())
        return len(self.packets) - 1

    def run(self, stall: float = 0.0, world: World | None = None) -> list[Response]:
        world = world or World(self.config, stall, 26)
        world.simulate(self.packets, len(self.packets))
        return [Response.parse(response) for response in world.responses]


def test_order():
    """A gap, a repetition, another session: the text of the module, rule by rule."""
    config = WIDE
    driver = Driver(config)
    first = driver.add(Opcode.IDENTIFY, count=4)
    gap = driver.send(Request(Opcode.IDENTIFY, 9, 77, count=4))
    other = driver.send(Request(Opcode.IDENTIFY, 2, 78, count=4))
    seconds = [driver.add(Opcode.IDENTIFY, address=k, count=5) for k in range(config.window)]
    again = [
        driver.send(Request(Opcode.IDENTIFY, 2 + k, 77, count=1)) for k in range(config.window)
    ]
    old = driver.send(Request(Opcode.IDENTIFY, 1, 77, count=4))
    same = driver.send(Request(Opcode.RESET, 1, 77))
    after = driver.add(Opcode.IDENTIFY, count=4)
    new = driver.send(Request(Opcode.RESET, 8, 79))
    stale = driver.send(Request(Opcode.IDENTIFY, driver.seq + 1, 77, count=4))
    replay = driver.send(Request(Opcode.IDENTIFY, driver.seq, 79, count=4))
    begin = driver.send(Request(Opcode.IDENTIFY, 1, 79, count=4))
    responses = driver.run()
    status = {
        number: (response.status, response.expected) for number, response in enumerate(responses)
    }
    window = config.window
    assert responses[0].value == PROTOCOL_VERSION and status[0] == (Status.OK, 1)
    assert status[first] == (Status.OK, 2) and responses[first].payload == b"TRIT"
    assert status[gap] == (Status.NAK, 2)
    assert status[other] == (Status.NO_SESSION, 2)
    for number, repeated in zip(seconds, again, strict=True):
        assert responses[number].status == Status.OK
        assert responses[repeated] == responses[number], "the first response, not executed again"
    assert status[old] == (Status.NAK, 2 + window)
    assert status[same] == (Status.OK, 2 + window)
    assert status[after] == (Status.OK, 3 + window), "RESET of the session itself changes nothing"
    assert status[new] == (Status.OK, 1)
    assert status[stale] == (Status.NO_SESSION, 1)
    assert status[replay] == (Status.NAK, 1), "nothing of the last session is replayed"
    assert status[begin] == (Status.OK, 2)


@quick_first("config", [TINY, WIDE])
def test_a_response_that_is_being_sent_stays_whole(config):
    """NAK and NO_SESSION lie in the slot of the next command, which must not overwrite them."""
    driver = Driver(config)
    wrong = []
    for number in range(4):
        session = 77 if number % 2 else 78
        request = Request(Opcode.COUNTERS, driver.seq + 1 + number % 2, session)
        wrong.append(driver.send(request))
        driver.add(Opcode.IDENTIFY, address=number, count=9)
    world = World(config, 0.0, 30)
    world.send_cycles = 300
    responses = driver.run(world=world)
    statuses = [responses[number].status for number in wrong]
    assert statuses == [Status.NO_SESSION, Status.NAK] * 2
    for number, response in enumerate(responses[2::2]):
        assert response.payload == identity(config)[number : number + 9]


def bounds(config, opcode):
    """Send the boundary requests of an opcode; the statuses, and those of the reference device."""
    (scene,) = scenes(config, LayerShape(1, 2))
    image = bytes(2 * config.word_bytes)
    scene = replace(scene, checksum=zlib.crc32(image))
    driver = Driver(config)
    driver.add(Opcode.DEFINE, index=scene.committed, payload=LAYER.pack(0, 1, 2))
    driver.add(Opcode.COMMIT, index=scene.committed, address=zlib.crc32(image))
    driver.add(Opcode.RUN, index=scene.committed, count=1)
    driver.add(Opcode.DEFINE, index=scene.open, payload=LAYER.pack(2, 1, 2))
    for request in boundary_requests(config, scene, opcode):
        driver.add(
            request.opcode,
            index=request.index,
            count=request.count,
            address=request.address,
            payload=request.payload,
        )
    reference = ReferenceDevice(config)
    right = [Response.parse(reference.process(packet)) for packet in driver.packets]
    return driver.packets, driver.run(), right


@pytest.mark.parametrize(
    "opcode",
    [
        pytest.param(opcode, marks=() if opcode == Opcode.WRITE else pytest.mark.slow)
        for opcode in CHECKS
        if CHECKS[opcode]
    ],
)
def test_bounds(opcode):
    """Around every bound; a WRITE that goes one word beyond its layer is among them."""
    for packet, seen, right in zip(*bounds(TINY, opcode), strict=True):
        assert (seen.status, seen.expected) == (right.status, right.expected), Request.parse(packet)


def test_all_bits_of_seq_count():
    driver = Driver(TINY)
    ahead = [driver.send(Request(Opcode.COUNTERS, seq, 77)) for seq in (0, 2, 3, 32769, 65535)]
    responses = driver.run()
    assert {responses[number].status for number in ahead} == {Status.NAK}
    assert {responses[number].expected for number in ahead} == {1}


def test_identity_in_pieces():
    config = TINY
    whole = identity(config)
    driver = Driver(config)
    size = config.max_payload
    parts = [
        driver.add(Opcode.IDENTIFY, address=at, count=min(size, len(whole) - at))
        for at in range(0, len(whole), size)
    ]
    end = driver.add(Opcode.IDENTIFY, address=len(whole) - 1, count=1)
    beyond = driver.add(Opcode.IDENTIFY, address=len(whole) - 1, count=2)
    far = [driver.add(Opcode.IDENTIFY, address=1 << bit, count=1) for bit in range(9, 32)]
    responses = driver.run()
    assert b"".join(responses[number].payload for number in parts) == whole
    assert responses[end].payload == whole[-1:]
    assert responses[beyond].status == Status.OUT_OF_RANGE
    assert {responses[number].status for number in far} == {Status.OUT_OF_RANGE}


def test_counters_are_passed_on():
    driver = Driver(TINY)
    number = driver.add(Opcode.COUNTERS)
    world = World(TINY, 0.0, 27)
    world.counters = [0x0102030405060708 * (k + 1) for k in range(len(COUNTERS))]
    responses = driver.run(world=world)
    expected = b"".join(value.to_bytes(8, "little") for value in world.counters)
    assert responses[number].payload == expected


@quick_first("stall", [0.5, 0.0])
def test_run_counts_its_cycles(stall):
    config = TINY
    rng = np.random.default_rng(28)
    trits = rng.integers(-1, 2, (6, 15)).astype(np.int8)
    image = pack_weights(config, trits)
    driver = Driver(config)
    driver.add(Opcode.DEFINE, index=1, payload=LAYER.pack(2, 3, 3))
    early = driver.add(Opcode.RUN, index=1, count=1)
    driver.add(Opcode.WRITE, index=1, payload=image)
    wrong = driver.add(Opcode.COMMIT, index=1, address=1)
    driver.add(Opcode.COMMIT, index=1, address=zlib.crc32(image))
    late = driver.add(Opcode.WRITE, index=1, payload=image)
    codes = rng.integers(-128, 128, 15).astype(np.int8)
    driver.add(Opcode.LOAD, payload=pack_activations(config, codes))
    runs = [driver.add(Opcode.RUN, index=1, count=1) for _ in range(3)]
    results = driver.add(Opcode.RESULTS, count=6)
    world = World(config, stall, 29)
    responses = driver.run(world=world)
    assert responses[early].status == responses[late].status == Status.BAD_STATE
    assert (responses[wrong].status, responses[wrong].value) == (
        Status.BAD_CHECKSUM,
        zlib.crc32(image),
    )
    assert [responses[number].value for number in runs] == world.runs
    expected = trits.astype(np.int64) @ codes
    sums = np.frombuffer(responses[results].payload, "<i2")
    assert config.acc_bytes == 2 and (sums == expected).all()


def test_results_that_end_in_the_middle():
    """Groups that were already written when one is out of range are not sent."""
    config = WIDE
    driver = Driver(config)
    image = bytes(3 * config.word_bytes)
    driver.add(Opcode.DEFINE, index=2, payload=LAYER.pack(1, 1, 3))
    none = driver.add(Opcode.RESULTS, count=1)
    driver.add(Opcode.COMMIT, index=2, address=zlib.crc32(image))
    driver.add(Opcode.LOAD, index=1, payload=b"\x01" * 10)
    driver.add(Opcode.RUN, index=2, count=2)
    counts = range(1, 3 * config.rows + 1)
    parts = [driver.add(Opcode.RESULTS, index=1, count=count) for count in counts]
    beyond = driver.add(Opcode.RESULTS, index=1, count=3 * config.rows + 1)
    later = driver.add(Opcode.RESULTS, index=1, address=1, count=2 * config.rows + 1)
    driver.send(Request(Opcode.RESET, 0, 82))
    driver.session, driver.seq = 82, 0
    gone = driver.add(Opcode.RESULTS, count=1)
    responses = driver.run()
    minus_ten = (-10).to_bytes(config.acc_bytes, "little", signed=True)
    for count, number in zip(counts, parts, strict=True):
        assert responses[number].payload == minus_ten * count
    for number in (beyond, later):
        assert (responses[number].status, responses[number].payload) == (Status.OUT_OF_RANGE, b"")
    assert {responses[number].status for number in (none, gone)} == {Status.BAD_STATE}


def test_reset_takes_any_payload():
    driver = Driver(TINY)
    number = driver.send(Request(Opcode.RESET, 3, 80, payload=b"x"))
    driver.session, driver.seq = 80, 0
    next_one = driver.add(Opcode.IDENTIFY, count=4)
    responses = driver.run()
    assert (responses[number].status, responses[number].value) == (Status.OK, PROTOCOL_VERSION)
    assert responses[next_one].status == Status.OK


def test_reset_forgets_every_layer():
    config = WIDE
    driver = Driver(config)
    for index in range(config.max_layers):
        driver.add(Opcode.DEFINE, index=index, payload=LAYER.pack(index, 1, 1))
    defined = [driver.add(Opcode.READ, index=k, count=1) for k in range(config.max_layers)]
    driver.send(Request(Opcode.RESET, 0, 81))
    driver.session, driver.seq = 81, 0
    gone = [driver.add(Opcode.READ, index=k, count=1) for k in range(config.max_layers)]
    results = driver.add(Opcode.RESULTS, count=1)
    responses = driver.run()
    assert {responses[number].status for number in defined} == {Status.OK}
    assert {responses[number].status for number in (*gone, results)} == {Status.BAD_STATE}


def test_responses_have_the_least_length():
    driver = Driver(TINY)
    failed = driver.add(Opcode.RESULTS, count=3, payload=b"x")
    responses = driver.run()
    assert len(responses[failed].pack()) == OVERHEAD_BYTES == HEADER_BYTES + CRC_BYTES
