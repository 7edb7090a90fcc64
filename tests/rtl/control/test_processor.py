"""The command processor alone: its neighbours are played by the test, and stall as they like."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.support import quick_first
from tests.support.layers import GROUPS as WITH_GROUPS
from tests.support.layers import WIDE
from tests.support.plugins import Failing, FailingMemory
from tests.support.world import World
from tritloom.rtl.links.stream_facts import PacketStream
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
)
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations, pack_weights
from tritloom.sim.verify.boundaries import boundary_requests, scenes
from tritloom.sim.verify.traffic import Traffic


def variant(banks: int, slots: int, width: int, config: AcceleratorConfig = WIDE):
    """A configuration with other banks, slots and bytes in a beat of the link."""
    return replace(config, banks=banks, slots=slots, link=PacketStream(width=width))


VARIANTS = [
    variant(banks, slots, width) for width in (8, 1) for slots in (2, 8) for banks in (2, 1)
] + [variant(2, 4, 2), variant(2, 4, 4), TINY, WITH_GROUPS, replace(WITH_GROUPS, banks=1)]


@quick_first("stall", [0.3, 0.7, 0.0])
@quick_first("config", VARIANTS)
def test_random_traffic(config, stall):
    """Each response is the reference device's, whatever stalls; a bank has one user at a time."""
    traffic = Traffic(config, round(10 * stall))
    traffic.reset(5)
    traffic.random(25)
    traffic.product(0, 0, 2, 3)
    if config.banks == 2:
        traffic.overlap()
    traffic.random(5)
    world = World(config, stall, 25)
    world.simulate([packet for packet, response in traffic.packets if response is not None])


class Driver:
    """Builds a list of packets in order, and gives the responses after it ran."""

    def __init__(self, config: AcceleratorConfig, session: int = 77) -> None:
        self.config, self.session = config, session
        self.packets = [Request(Opcode.RESET, 4, session).pack()]
        self.seq = 0

    def add(self, opcode: int, **fields) -> int:
        """The next command in order; its number among the packets."""
        self.seq += 1
        return self.send(Request(opcode, self.seq, self.session, **fields))

    def add_request(self, request: Request) -> int:
        """The same, of a request whose seq and session do not matter."""
        self.seq += 1
        return self.send(replace(request, seq=self.seq, session=self.session))

    def layer(self, index: int, base: int, tiles: int, row_groups: int) -> None:
        """Define and commit a layer whose words are as at power-up: all weights are −1."""
        words = tiles * row_groups
        self.add(Opcode.DEFINE, index=index, payload=LAYER.pack(base, tiles, row_groups))
        checksum = zlib.crc32(bytes(words * self.config.word_bytes))
        self.add(Opcode.COMMIT, index=index, address=checksum)

    def begin(self, session: int) -> int:
        """RESET to another session."""
        number = self.send(Request(Opcode.RESET, 0, session))
        self.session, self.seq = session, 0
        return number

    def send(self, request: Request) -> int:
        self.packets.append(request.pack())
        return len(self.packets) - 1

    def run(self, stall: float = 0.0, world: World | None = None) -> list[Response | None]:
        """The response to each packet; `None` for a repeated one that has none."""
        world = world or World(self.config, stall, 26)
        world.simulate(self.packets)
        return world.matched


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


@pytest.mark.sim
@pytest.mark.parametrize("config", [TINY, WIDE])
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


@pytest.mark.sim
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
    check_bounds_of(TINY, opcode)


@pytest.mark.sim
def test_bounds_of_groups():
    """Around the most tiles of a group, and the most sums of a layer."""
    check_bounds_of(WITH_GROUPS, Opcode.DEFINE)


def check_bounds_of(config, opcode):
    (scene,) = scenes(config, LayerShape(1, 2))
    scene = replace(scene, checksum=zlib.crc32(bytes(2 * config.word_bytes)))
    driver = Driver(config)
    driver.layer(scene.committed, 0, 1, 2)
    driver.add(Opcode.RUN, index=scene.committed, count=1)
    driver.add(Opcode.DEFINE, index=scene.open, payload=LAYER.pack(2, 1, 2))
    first = len(driver.packets)
    for request in boundary_requests(config, scene, opcode):
        driver.add_request(request)
    failed = [response.status != Status.OK for response in driver.run()[first:]]
    assert any(failed) and (opcode == Opcode.COMMIT or not all(failed))


def test_all_bits_of_seq_count():
    driver = Driver(TINY)
    ahead = [driver.send(Request(Opcode.COUNTERS, seq, 77)) for seq in (0, 2, 3, 32769, 65535)]
    responses = driver.run()
    assert {responses[number].status for number in ahead} == {Status.NAK}
    assert {responses[number].expected for number in ahead} == {1}


@pytest.mark.sim
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
    assert {responses[number].value for number in runs} == {0}
    assert responses[results].value == world.runs[-1] > 0
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


@pytest.mark.sim
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


# Two tiles of all row groups that WIDE has.
TILES, GROUPS = 2, 7


def tokens(config: AcceleratorConfig, count: int) -> Driver:
    """A layer, and LOAD, RUN and RESULTS of some tokens; banks take turns if there are two.

    The results of a token are read when the next RUN has been sent.
    """
    driver = Driver(config)
    driver.layer(0, 0, TILES, GROUPS)
    results = GROUPS * config.rows
    last = None
    for number in range(count):
        bank = number % config.banks
        payload = bytes([number + 1] * TILES * config.lanes)
        driver.add(Opcode.LOAD, activation_bank=bank, payload=payload)
        if config.banks == 1 and last is not None:
            driver.add(Opcode.RESULTS, count=results)
        driver.add(Opcode.RUN, count=1, activation_bank=bank, result_bank=bank)
        if config.banks == 2 and last is not None:
            driver.add(Opcode.RESULTS, count=results, result_bank=last)
        last = bank
    driver.add(Opcode.RESULTS, count=results, result_bank=last)
    return driver


@pytest.mark.sim
@pytest.mark.parametrize("width", [8, 1])
def test_commands_overlap(width):
    """With two banks a stream of tokens is loaded and read while layers run, so it takes less time.

    With one bank neither is: the cycles of LOAD, RUN and RESULTS add up.
    """
    count, idle = 8, {}
    for banks in (1, 2):
        config = variant(banks, 8, width)
        world = World(config, 0.0, 31)
        world.word_pause = 0.95  # a layer takes longer than all else of a token
        tokens(config, count).run(world=world)
        assert len(world.runs) == count
        idle[banks] = world.cycles - sum(world.runs)
        # All tokens but the first are loaded, and all but the last are read, while layers run.
        later = 0 if banks == 1 else count - 1
        assert world.together["load"] == later * TILES * config.lanes // config.fill
        assert world.together["fetch"] == later * GROUPS
    assert idle[2] < idle[1] // 2


def test_reset_in_the_middle_of_a_run():
    """RESET of the same session does not wait; one of another waits, and there are no results."""
    config = WIDE
    driver = Driver(config)
    driver.layer(0, 0, TILES, GROUPS)
    driver.add(Opcode.RUN, count=1)
    same = driver.send(Request(Opcode.RESET, 0, driver.session))
    kept = driver.add(Opcode.RESULTS, count=3)
    driver.add(Opcode.RUN, count=1, result_bank=1)
    new = driver.begin(90)
    gone = [driver.add(Opcode.RESULTS, count=1, result_bank=bank) for bank in range(2)]
    driver.layer(0, 0, TILES, GROUPS)
    driver.add(Opcode.RUN, count=1, result_bank=1)
    again = driver.add(Opcode.RESULTS, count=3, result_bank=1)
    still = driver.add(Opcode.RESULTS, count=3)
    world = World(config, 0.0, 32)
    world.word_pause = 0.9
    responses = driver.run(world=world)
    assert responses[same].status == responses[kept].status == responses[new].status == Status.OK
    assert {responses[number].status for number in (*gone, still)} == {Status.BAD_STATE}
    assert responses[again].status == Status.OK
    assert responses[kept].value == world.runs[0] and responses[again].value == world.runs[2]


@pytest.mark.sim
def test_a_command_that_is_not_answered_is_not_answered_twice():
    """The RESULTS waits for its RUN: neither is answered again while their responses come.

    Later they are: the results are those of the first time, although the bank has others now.
    """
    config = variant(2, 8, 8)
    driver = Driver(config)
    driver.layer(0, 0, TILES, GROUPS)
    driver.add(Opcode.LOAD, payload=bytes([3] * TILES * config.lanes))
    driver.add(Opcode.RUN, count=1)
    first = driver.add(Opcode.RESULTS, count=5)
    packet = Request.parse(driver.packets[first])
    at_once = [driver.send(packet) for _ in range(3)]
    load = driver.add(Opcode.LOAD, activation_bank=1, payload=bytes([9] * TILES * config.lanes))
    driver.add(Opcode.RUN, count=1, activation_bank=1)
    second = driver.add(Opcode.RESULTS, count=5)
    driver.add(Opcode.COUNTERS)
    # A wrong seq gets its response after all others have been sent.
    driver.send(Request(Opcode.COUNTERS, driver.seq + 2, driver.session))
    later = driver.send(packet)
    other = driver.send(replace(packet, opcode=Opcode.LOAD, payload=bytes(9)))
    world = World(config, 0.0, 33)
    world.word_pause = 0.9
    responses = driver.run(world=world)
    assert [responses[number] for number in at_once] == [None] * 3
    assert responses[load].status == Status.OK
    assert responses[first].payload != responses[second].payload
    assert responses[later] == responses[other] == responses[first]


@quick_first("config", [variant(2, 2, 8), variant(2, 8, 1), variant(1, 4, 1)])
def test_more_commands_than_the_window(config):
    """A host that breaks the rule waits, and every response is whole."""
    driver = tokens(config, 3 * config.slots)
    for number in range(3 * config.slots):
        driver.add(Opcode.IDENTIFY, address=number, count=30)
        driver.send(Request(Opcode.IDENTIFY, driver.seq + 2, driver.session))
        driver.send(Request(Opcode.IDENTIFY, driver.seq, driver.session))
    world = World(config, 0.0, 34)
    world.send_cycles = 60
    responses = driver.run(world=world)
    assert sum(response is None for response in responses) < 3 * config.slots


def test_a_word_of_one_byte():
    """`write_address` needs a cycle between words: every word comes to its place."""
    config = replace(TINY, rows=1, max_out_features=8)
    assert config.word_bytes == 1
    driver = Driver(config)
    driver.add(Opcode.DEFINE, index=1, payload=LAYER.pack(3, 2, 4))
    driver.add(Opcode.WRITE, index=1, address=1, payload=bytes(range(1, 8)))
    whole = driver.add(Opcode.READ, index=1, count=8)
    responses = driver.run()
    assert responses[whole].payload == bytes(range(8))


@pytest.mark.parametrize("follows", ["write", "run"])
def test_later_commands_wait_for_words_that_are_read(follows):
    """READ's words are on their way when the next command comes: it may not disturb them."""
    config = TINY
    words = config.max_payload // config.word_bytes
    driver = Driver(config)
    driver.layer(0, 0, 1, 1)
    driver.add(Opcode.DEFINE, index=1, payload=LAYER.pack(0, 4, 8))
    driver.add(Opcode.READ, index=1, count=min(words, 32))
    if follows == "write":
        driver.add(Opcode.WRITE, index=1, address=31, payload=b"\x01" * config.word_bytes)
    else:
        driver.add(Opcode.RUN, count=1)
    again = driver.add(Opcode.READ, index=1, address=31, count=1)
    responses = driver.run()
    assert responses[again].payload[:1] == (b"\x01" if follows == "write" else b"\x00")


@pytest.mark.sim
@pytest.mark.parametrize(("row_groups", "word_pause"), [(1, 0.0), (8, 0.9)])
def test_counters_count_the_commands_before(row_groups, word_pause):
    """COUNTERS waits for the layer before it, and the layer behind it waits for COUNTERS."""
    driver = Driver(TINY)
    driver.layer(0, 0, 1, row_groups)
    numbers = []
    for _ in range(2):
        driver.add(Opcode.RUN, count=1)
        numbers.append(driver.add(Opcode.COUNTERS))
    driver.add(Opcode.RUN, count=1)
    world = World(TINY, 0.0, 35)
    world.word_pause = word_pause
    responses = driver.run(world=world)
    for done, number in enumerate(numbers, 1):
        assert responses[number].payload == done.to_bytes(8, "little") * len(COUNTERS)


FAILING = replace(WIDE, memory=Failing(words=64), max_layers=6)


@pytest.mark.sim
@pytest.mark.parametrize(("form", "stall"), [((2, 4, 8), 0.3), ((1, 2, 1), 0.7), ((2, 8, 1), 0.0)])
def test_random_traffic_with_a_memory_that_may_stall(form, stall):
    """The range of a RUN is asked for while the layer before it runs."""
    config = variant(*form, replace(WIDE, memory=Failing(words=WIDE.memory_words)))
    assert config.asks_ahead and not WIDE.asks_ahead
    traffic = Traffic(config, round(10 * stall))
    traffic.reset(5)
    traffic.random(15)
    traffic.product(0, 0, 2, 3)
    if config.banks == 2:
        traffic.overlap()
    world = World(config, stall, 25)
    world.simulate([packet for packet, response in traffic.packets if response is not None])


@quick_first("banks", [2, 1])
def test_ranges_are_asked_for_ahead(banks):
    """The words of each RUN are its layer's, also if they wait while the layer before it runs."""
    driver = Driver(variant(banks, 4, 8, FAILING))
    driver.layer(0, 1, 2, 3)
    driver.layer(1, 9, 1, 4)
    for number in range(4):
        driver.add(Opcode.RUN, index=number % 2, count=1, result_bank=number % banks)
    counts = [driver.add(Opcode.RESULTS, count=3, result_bank=bank) for bank in range(banks)]
    read = driver.add(Opcode.READ, index=1, count=4)
    world = World(driver.config, 0.0, 31)
    world.word_pause = 0.95  # so a layer takes longer than the packet of a RUN
    responses = driver.run(world=world)
    assert world.asked_ahead == 3
    assert {responses[number].status for number in (*counts, read)} == {Status.OK}


def test_a_layer_that_asked_ahead_waits_for_results_of_its_bank():
    """The words of the second RUN may come; it starts when the results of the first are copied."""
    driver = Driver(variant(2, 4, 1, FAILING))
    driver.layer(0, 1, 2, 3)
    numbers = []
    for _ in range(2):
        driver.add(Opcode.RUN, index=0, count=1)
        numbers.append(driver.add(Opcode.RESULTS, count=3 * driver.config.rows))
    world = World(driver.config, 0.0, 28)
    world.word_pause = 0.95  # so the second RUN comes before the first layer ends
    responses = driver.run(world=world)
    assert world.asked_ahead == 1
    assert {responses[number].status for number in numbers} == {Status.OK}


def odd_and_even(driver: Driver, odd: int) -> None:
    """Write word 0, by layer 5: the words from `FIRST_VOID` on are void while it is odd."""
    driver.add(Opcode.DEFINE, index=5, payload=LAYER.pack(0, 1, 1))
    word = odd.to_bytes(driver.config.word_bytes, "little")
    driver.add(Opcode.WRITE, index=5, payload=word)


@pytest.mark.sim
@pytest.mark.parametrize("stall", [0.3, 0.0])
@pytest.mark.parametrize("form", [(2, 4, 8), (1, 2, 1), (2, 8, 1)])
def test_void_words(form, stall):
    """RESULTS, READ and COMMIT tell of a void word, whichever it is, and the session goes on."""
    banks, slots, width = form
    config = variant(banks, slots, width, FAILING)
    driver = Driver(config)
    odd_and_even(driver, 0)
    first = FailingMemory.FIRST_VOID
    for index, base in enumerate((first - 6, first - 5, first + 5)):  # 6 words each
        driver.layer(index, base, 2, 3)
    other = banks - 1
    odd_and_even(driver, 1)
    expected = {}
    for index, status in enumerate((Status.OK, Status.MEMORY_ERROR, Status.MEMORY_ERROR)):
        driver.add(Opcode.RUN, index=index, count=1, result_bank=other)
        number = driver.add(Opcode.RESULTS, count=2 * config.rows, result_bank=other)
        expected[number] = status
        expected[driver.add(Opcode.RESULTS, address=9, count=1, result_bank=other)] = (
            Status.OUT_OF_RANGE if status == Status.OK else status
        )
        expected[driver.add(Opcode.READ, index=index, count=6)] = status
        expected[driver.add(Opcode.READ, index=index, count=5)] = (
            status if index == 2 else Status.OK
        )
    for base in (first - 6, first - 5):
        driver.add(Opcode.DEFINE, index=3, payload=LAYER.pack(base, 2, 3))
        right = zlib.crc32(bytes(6 * config.word_bytes))
        fails = base > first - 6
        number = driver.add(Opcode.COMMIT, index=3, address=right)
        expected[number] = Status.MEMORY_ERROR if fails else Status.OK
        expected[driver.add(Opcode.RUN, index=3, count=1)] = (
            Status.BAD_STATE if fails else Status.OK
        )
    expected[driver.add(Opcode.RESULTS, count=3)] = Status.OK  # of the bank's last RUN
    odd_and_even(driver, 2)
    expected[driver.add(Opcode.RUN, index=1, count=1, result_bank=other)] = Status.OK
    expected[driver.add(Opcode.RESULTS, count=3, result_bank=other)] = Status.OK
    responses = driver.run(stall)
    assert {number: responses[number].status for number in expected} == expected
    for number, status in expected.items():
        response = responses[number]
        assert status == Status.OK or (response.payload, response.value) == (b"", 0)


def test_each_bank_has_its_own_failure():
    driver = Driver(variant(2, 4, 8, FAILING))
    odd_and_even(driver, 0)
    driver.layer(0, FailingMemory.FIRST_VOID, 2, 3)
    driver.layer(1, 1, 2, 3)
    odd_and_even(driver, 1)
    driver.add(Opcode.RUN, index=1, count=1, result_bank=1)
    driver.add(Opcode.RUN, index=0, count=1, result_bank=0)
    # The first is copied while the layer of the other bank takes its void words.
    numbers = [driver.add(Opcode.RESULTS, count=3, result_bank=bank) for bank in (1, 0, 1, 0)]
    world = World(driver.config, 0.0, 27)
    world.word_pause = 0.9
    responses = driver.run(world=world)
    assert world.together["write"]
    statuses = [responses[number].status for number in numbers]
    assert statuses == [Status.OK, Status.MEMORY_ERROR] * 2
