"""The driver: layers in a device's weight memory, and products with them.

One thread at a time. ``submit`` puts a job's commands in a queue and sends as many as the device
takes; the rest are sent, and answers taken, whenever a result is waited for. The device works in
the order of the calls, so a job's result can be waited for in any order, and a layer can be
unloaded while jobs with it are in the queue. An error in one job leaves the others whole.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritloom.host.layer import TernaryLayer
from tritloom.host.links.transport import DeviceUrl, Transport, open_transport
from tritloom.host.session import SMALLEST_PAYLOAD, Command, Session
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import (
    COUNTERS,
    IDENTITY,
    LAYER,
    MAGIC,
    PROTOCOL_VERSION,
    Opcode,
    Status,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.errors import (
    CapacityError,
    ConfigError,
    DeviceError,
    InputError,
    ProtocolError,
)
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import (
    act_limits,
    check_trits,
    pack_activations,
    pack_weights,
    unpack_results,
)
from tritloom.rtl.spec.plugins import engines

__all__ = [
    "Check",
    "Device",
    "DeviceInfo",
    "Handle",
    "Job",
    "SelfTest",
    "Stats",
    "connect",
    "require_linear",
]

MAX_IN_FEATURES = (2**31 - 1) // 128
"""Inputs whose sum fits in int32 for every input: each term lies in ±128."""
COMMIT_TRIES = 3
"""How often a layer is written before its memory is called faulty."""
MEMORY_TEST_BYTES = 1 << 18
"""Most bytes that the self-test writes; a larger free memory is sampled evenly."""
COUNTER_BYTES = 8
CLOCK_TOLERANCE = 0.05
CLOCK_S = 0.5
"""Between the two moments at which the self-test reads a device's clock."""
CLOCK_READINGS = 4
"""Of each moment: the quickest answer counts."""
PSEUDO_TERMINALS = "/dev/pts/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a device said it is, and what is in use of it."""

    url: str
    config: AcceleratorConfig
    protocol_version: int
    layout_digest: str
    build_digest: str
    free_words: int
    layers_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What products with one layer took; add them to sum up.

    ``cycles`` are the device's from the start of each RUN to its end; ``bytes_tx`` and
    ``bytes_rx`` those of whole packets to and from the device, repeated ones included.
    """

    out_features: int
    in_features: int
    tokens: int = 0
    runs: int = 0
    cycles: int = 0
    bytes_tx: int = 0
    bytes_rx: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer, padding not counted."""
        return self.tokens * self.out_features * self.in_features

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            out_features=self.out_features,
            in_features=self.in_features,
            tokens=self.tokens + other.tokens,
            runs=self.runs + other.runs,
            cycles=self.cycles + other.cycles,
            bytes_tx=self.bytes_tx + other.bytes_tx,
            bytes_rx=self.bytes_rx + other.bytes_rx,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a self-test."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Outcome of a self-test; ``str()`` gives one line a check."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(
            f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}"
            for check in self.checks
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a layer that the device holds as one of its layers: rows × columns of it."""

    index: int
    base: int
    shape: LayerShape
    row: int
    rows: int
    column: int
    columns: int


class Handle:
    """A layer in a device's memory, until ``unload``.

    ``layer``: what was loaded. ``stats``: sum over the jobs whose result was taken.
    """

    def __init__(self, device: Device, layer: TernaryLayer, parts: tuple[_Part, ...]) -> None:
        self.layer = layer
        self.stats = Stats(out_features=layer.out_features, in_features=layer.in_features)
        self._device = device
        self._parts: tuple[_Part, ...] | None = parts

    @property
    def out_features(self) -> int:
        return self.layer.out_features

    @property
    def in_features(self) -> int:
        return self.layer.in_features

    @property
    def words(self) -> int:
        """Words of weight memory that it takes; 0 after ``unload``."""
        return sum(part.shape.words for part in self._parts or ())


@dataclass(frozen=True, slots=True)
class _Slice:
    """A RESULTS command and where its numbers belong."""

    command: Command
    token: int
    row: int


class Job:
    """A product under way; ``result`` waits for it.

    ``stats`` is what it took, once ``result`` has returned.
    """

    def __init__(
        self,
        device: Device,
        handle: Handle,
        tokens: int,
        commands: list[Command],
        slices: list[_Slice],
    ) -> None:
        self.stats: Stats | None = None
        self._device = device
        self._handle = handle
        self._tokens = tokens
        self._commands = commands
        self._slices = slices
        self._sums: NDArray[np.int32] | None = None

    def result(self) -> NDArray[np.int32]:
        """Sums, int32 [tokens, out_features]; the same array in each call.

        ``DeviceError`` if the device refused a command of this job or the session ended before.
        """
        if self._sums is not None:
            return self._sums
        session, config = self._device._session, self._device.info.config
        for command in self._commands:
            session.require(command)
        sums = np.zeros((self._tokens, self._handle.out_features), np.int32)
        for piece in self._slices:
            numbers = unpack_results(config, session.require(piece.command).payload)
            sums[piece.token, piece.row : piece.row + len(numbers)] += numbers
        runs = [command for command in self._commands if command.opcode == Opcode.RUN]
        stats = Stats(
            out_features=self._handle.out_features,
            in_features=self._handle.in_features,
            tokens=self._tokens,
            runs=len(runs),
            cycles=sum(session.require(command).value for command in runs),
            bytes_tx=sum(command.bytes_tx for command in self._commands),
            bytes_rx=sum(command.bytes_rx for command in self._commands),
        )
        self.stats = stats
        self._handle.stats += stats
        self._sums = sums
        self._commands, self._slices = [], []
        return sums


def connect(url: str = "sim", *, config: AcceleratorConfig | None = None) -> Device:
    """Open a device by its URL and start a session: ``sim``, ``golden``, ``sim?board=NAME``, ….

    ``config`` is what a simulated device is made from, instead of a board's; any other device must
    have its layout. Whatever was loaded before is gone. Use the device in a ``with`` statement.
    """
    parsed = DeviceUrl.parse(url)
    transport, expected = open_transport(parsed, config)
    return Device(transport, url=url, config=expected)


class Device:
    """A connected device. Made by ``connect``; closes its transport when it cannot be used."""

    def __init__(
        self, transport: Transport, *, url: str, config: AcceleratorConfig | None = None
    ) -> None:
        self._session = Session(transport, url)
        self._url = url
        try:
            version = self._session.open()
            if version != PROTOCOL_VERSION:
                raise ProtocolError(
                    f"{url} speaks protocol {version}, this driver {PROTOCOL_VERSION}; "
                    "build its bitstream with this version"
                )
            self._identity = self._read_identity(SMALLEST_PAYLOAD)
            self._config = self._checked_config(config)
        except BaseException:
            self._session.close()
            raise
        self._session.configure(self._config)
        self._free: list[tuple[int, int]] = [(0, self._config.memory_words)]
        self._indices: frozenset[int] = frozenset()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session. Results not yet taken are lost; calling it again does nothing."""
        self._session.close()

    @property
    def info(self) -> DeviceInfo:
        """What the device is, and what is free on it; asks the device nothing."""
        return DeviceInfo(
            url=self._url,
            config=self._config,
            protocol_version=PROTOCOL_VERSION,
            layout_digest=self._config.layout_digest.hex(),
            build_digest=self._config.build_digest.hex(),
            free_words=sum(words for _, words in self._free),
            layers_used=len(self._indices),
        )

    def counters(self) -> dict[str, int]:
        """The device's counters by name (``rtl.spec.commands.COUNTERS``), since power-up."""
        payload = self._session.call(
            Command(opcode=Opcode.COUNTERS, answer_bytes=COUNTER_BYTES * len(COUNTERS))
        ).payload
        return dict(zip(COUNTERS, struct.unpack(f"<{len(COUNTERS)}Q", payload), strict=True))

    def load(self, layer: TernaryLayer) -> Handle:
        """Write a layer to the device's weight memory.

        ``CapacityError`` if there is no room, which leaves the device as it was; ``InputError`` for
        a weight 0 where the device's alphabet is binary. A layer larger
        than the device's feature limits is held, and computed, in pieces.
        """
        self._session.check()
        if layer.in_features > MAX_IN_FEATURES:
            raise InputError(
                f"in_features must be at most {MAX_IN_FEATURES} for sums that fit in int32, "
                f"not {layer.in_features}"
            )
        check_trits(self._config, layer.trits)
        before = self._free, self._indices
        parts, self._free, self._indices = self._placed(layer)
        try:
            for part in parts:
                trits = layer.trits[
                    part.row : part.row + part.rows, part.column : part.column + part.columns
                ]
                self._write_layer(part.index, part.base, part.shape, trits)
        except BaseException:
            self._free, self._indices = before
            raise
        return Handle(self, layer, parts)

    def unload(self, handle: Handle) -> None:
        """Give a layer's memory back. Jobs submitted before still get their results."""
        self._session.check()
        parts = self._parts_of(handle)
        handle._parts = None
        freed = [(part.base, part.shape.words) for part in parts]
        self._free = _coalesced([*self._free, *freed])
        self._indices -= {part.index for part in parts}

    def submit(self, handle: Handle, codes: NDArray[np.int8]) -> Job:
        """Start a product: int8 [tokens, in_features]; ``Job.result`` gives the sums.

        ``InputError`` for a code that ``act_bits`` of the device do not hold. The codes are copied.
        Any number of jobs may be under way.
        """
        self._session.check()
        parts = self._parts_of(handle)
        codes = _checked_codes(codes, handle.in_features)
        _check_range(codes, self._config)
        commands: list[Command] = []
        slices: list[_Slice] = []
        for start in range(0, len(codes), self._config.tokens):
            batch = codes[start : start + self._config.tokens]
            loaded = None
            for part in parts:
                if part.column != loaded:
                    loaded = part.column
                    for token, row in enumerate(batch):
                        commands += self._load_commands(
                            token, row[part.column : part.column + part.columns]
                        )
                commands.append(self._run_command(part, len(batch)))
                for token in range(len(batch)):
                    for command in self._results_commands(token, part.rows):
                        row = part.row + command.address * self._config.rows
                        slices.append(_Slice(command, start + token, row))
                        commands.append(command)
        job = Job(self, handle, len(codes), commands, slices)
        self._session.enqueue(*commands)
        return job

    def matmul(self, handle: Handle, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """Exact sums: int8 [tokens, in_features] → int32 [tokens, out_features]."""
        return self.submit(handle, codes).result()

    def linear(self, handle: Handle, x: ArrayLike) -> NDArray[np.float32]:
        """The layer as BitLinear computes it: float [tokens, in_features] → float32.

        Quantizes each token, multiplies on the device, then applies the layer's scale and bias, as
        ``tritloom.rtl.spec.numerics`` does, bit for bit. NaN and inf are an ``InputError``, and so
        is a device of 4-bit activations.
        """
        require_linear(self._config)
        codes, s = numerics.absmax_quantize(x)
        layer = handle.layer
        if codes.shape[1] != layer.in_features:
            raise InputError(f"x must have {layer.in_features} features, not {codes.shape[1]}")
        sums = self.matmul(handle, codes)
        return numerics.rescale(sums, s, layer.scale, layer.scale_divides, layer.bias)

    def selftest(self) -> SelfTest:
        """Check identity, free weight memory, a known layer, link and clock; layers stay."""
        before = self.counters()
        checks = [
            self._check("identity", self._test_identity),
            self._check("weight memory", self._test_memory),
            self._check("known layer", self._test_layer),
            self._check("link", lambda: self._test_link(before)),
            self._check("clock", self._test_clock),
        ]
        return SelfTest(tuple(checks))

    def _read_identity(self, piece_bytes: int) -> bytes:
        head = self._identify(0, IDENTITY.size)
        magic, _, json_bytes, _, _ = IDENTITY.unpack(head)
        if magic != MAGIC:
            raise ProtocolError(f"{self._url} is not a tritloom device: its identity is {head!r}")
        identity = bytearray(head)
        while (left := IDENTITY.size + json_bytes - len(identity)) > 0:
            identity += self._identify(len(identity), min(left, piece_bytes))
        return bytes(identity)

    def _identify(self, address: int, count: int) -> bytes:
        return self._session.call(
            Command(opcode=Opcode.IDENTIFY, address=address, count=count, answer_bytes=count)
        ).payload

    def _checked_config(self, expected: AcceleratorConfig | None) -> AcceleratorConfig:
        _, version, _, layout_digest, build_digest = IDENTITY.unpack_from(self._identity)
        remedy = "build its bitstream with this version of tritloom"
        try:
            config = AcceleratorConfig.from_json(self._identity[IDENTITY.size :])
        except (ConfigError, TypeError) as error:
            raise ProtocolError(
                f"{self._url} has a configuration that this driver cannot read ({error}); {remedy}"
            ) from None
        for name, told, found in (
            ("protocol version", version, PROTOCOL_VERSION),
            ("layout digest", layout_digest.hex(), config.layout_digest.hex()),
            ("build digest", build_digest.hex(), config.build_digest.hex()),
        ):
            if told != found:
                raise ProtocolError(f"{self._url} has {name} {told}, this driver {found}; {remedy}")
        if expected is not None and expected.layout_digest != config.layout_digest:
            has = config.to_dict()
            differences = ", ".join(
                f"{key} {has[key]} instead of {value}"
                for key, value in expected.to_dict().items()
                if has[key] != value
            )
            raise ProtocolError(
                f"{self._url} has another layout digest than config=: {differences}; "
                "leave config= out or build its bitstream from it"
            )
        return config

    def _placed(
        self, layer: TernaryLayer
    ) -> tuple[tuple[_Part, ...], list[tuple[int, int]], frozenset[int]]:
        """Where the pieces of a layer go, first fit; and what is then free and used."""
        config = self._config
        pieces = [
            (row, rows, column, columns)
            for column, columns in _cuts(layer.in_features, config.max_in_features, config.lanes)
            for row, rows in _cuts(layer.out_features, config.max_out_features, config.rows)
        ]
        shapes = [LayerShape.of(config, rows, columns) for _, rows, _, columns in pieces]
        free = list(self._free)
        indices = [index for index in range(config.max_layers) if index not in self._indices]
        parts: list[_Part] = []
        for piece, shape in zip(pieces, shapes, strict=True):
            place = next((i for i, (_, words) in enumerate(free) if words >= shape.words), None)
            if place is None or len(parts) == len(indices):
                raise self._no_room(layer, shapes)
            base, words = free[place]
            free[place] = (base + shape.words, words - shape.words)
            parts.append(_Part(indices[len(parts)], base, shape, *piece))
        return tuple(parts), free, self._indices | {part.index for part in parts}

    def _no_room(self, layer: TernaryLayer, shapes: list[LayerShape]) -> CapacityError:
        config = self._config

        def amount(words: int) -> str:
            return f"{words} words ({words * config.word_bytes} bytes)"

        free = sum(words for _, words in self._free)
        run = max((words for _, words in self._free), default=0)
        return CapacityError(
            f"layer {layer.out_features} × {layer.in_features} needs "
            f"{amount(sum(shape.words for shape in shapes))}, the largest piece "
            f"{max(shape.words for shape in shapes)} in one run, and {len(shapes)} layer slots; "
            f"free are {amount(free)}, the largest run {run}, and "
            f"{config.max_layers - len(self._indices)} of {config.max_layers} slots; "
            "unload layers or use a larger device"
        )

    def _write_layer(
        self, index: int, base: int, shape: LayerShape, trits: NDArray[np.int8]
    ) -> None:
        image = pack_weights(self._config, trits)
        for _ in range(COMMIT_TRIES):
            commands = [
                _define_command(index, base, shape),
                *self._write_commands(index, image),
                self._commit_command(index, image),
            ]
            self._session.enqueue(*commands)
            for command in commands[:-1]:
                self._session.require(command)
            commit = commands[-1]
            if self._session.wait(commit).status != Status.BAD_CHECKSUM:
                self._session.require(commit)
                return
        raise DeviceError(
            f"{self._url} does not keep what is written to words {base} to "
            f"{base + shape.words - 1}: wrong checksum {COMMIT_TRIES} times; run its self-test"
        )

    def _write_commands(self, index: int, image: bytes) -> Iterator[Command]:
        word_bytes = self._config.word_bytes
        step = max(1, self._payload_limit() // word_bytes) * word_bytes
        for start in range(0, len(image), step):
            yield Command(
                opcode=Opcode.WRITE,
                index=index,
                address=start // word_bytes,
                payload=image[start : start + step],
            )

    def _commit_command(self, index: int, image: bytes) -> Command:
        return Command(
            opcode=Opcode.COMMIT, index=index, address=zlib.crc32(image), cycles=2 * len(image)
        )

    def _read_commands(self, index: int, words: int) -> Iterator[Command]:
        word_bytes = self._config.word_bytes
        step = max(1, self._payload_limit() // word_bytes)
        for start in range(0, words, step):
            count = min(step, words - start)
            yield Command(
                opcode=Opcode.READ,
                index=index,
                address=start,
                count=count,
                answer_bytes=count * word_bytes,
            )

    def _load_commands(self, token: int, codes: NDArray[np.int8]) -> Iterator[Command]:
        fill = self._config.fill
        image = pack_activations(self._config, codes)
        step = max(1, self._payload_limit() // fill) * fill
        for start in range(0, len(image), step):
            yield Command(
                opcode=Opcode.LOAD,
                index=token,
                address=start // fill,
                payload=image[start : start + step],
            )

    def _run_command(self, part: _Part, tokens: int) -> Command:
        cycles = self._config.run_cycles(part.shape)
        if cycles is None:  # a memory that stalls: far above what any should take
            engine = engines[self._config.engine]
            tile = max(self._config.tile_cycles(part.shape.row_groups), 8)
            cycles = 4 * part.shape.tiles * tile + engine.fill_cycles(self._config) + 1000
        return Command(opcode=Opcode.RUN, index=part.index, count=tokens, cycles=cycles)

    def _results_commands(self, token: int, rows: int) -> Iterator[Command]:
        config = self._config
        step = max(1, self._payload_limit() // config.acc_bytes // config.rows) * config.rows
        for start in range(0, rows, step):
            count = min(step, rows - start)
            yield Command(
                opcode=Opcode.RESULTS,
                index=token,
                address=start // config.rows,
                count=count,
                answer_bytes=count * config.acc_bytes,
            )

    def _parts_of(self, handle: Handle) -> tuple[_Part, ...]:
        if handle._device is not self:
            raise InputError(f"the layer is on {handle._device._url}, not here; load it here")
        if handle._parts is None:
            raise InputError("the layer was unloaded; load it again")
        return handle._parts

    def _check(self, name: str, test: Callable[[], tuple[bool, str]]) -> Check:
        try:
            ok, detail = test()
        except DeviceError as error:
            ok, detail = False, str(error)
        return Check(name, ok, detail)

    def _test_identity(self) -> tuple[bool, str]:
        if self._read_identity(self._payload_limit()) != self._identity:
            return False, "differs from what it was when the session began"
        return True, f"build {self._config.build_digest.hex()}, protocol {PROTOCOL_VERSION}"

    def _test_memory(self) -> tuple[bool, str]:
        """Write all of a pattern, then read all, so that a word seen twice shows; then inverted."""
        config = self._config
        index = self._free_index()
        blocks = [
            (base + start, min(config.max_row_groups, words - start))
            for base, words in self._free
            for start in range(0, words, config.max_row_groups)
        ]
        if index is None or not blocks:
            return True, "nothing tested: no free layer slot or no free words"
        limit = max(2, MEMORY_TEST_BYTES // (config.max_row_groups * config.word_bytes))
        picked = np.unique(np.linspace(0, len(blocks) - 1, limit).round().astype(int))
        blocks = [blocks[i] for i in picked.tolist()]
        bits = (1 << config.word_bits) - 1
        mask = np.frombuffer(bits.to_bytes(config.word_bytes, "little"), np.uint8)
        for inverted in (False, True):
            images = []
            for base, words in blocks:
                pattern = np.random.default_rng(base).integers(
                    0, 256, (words, config.word_bytes), np.uint8
                )
                image = (~pattern if inverted else pattern) & mask
                images.append(image.tobytes())
                writes = [
                    _define_command(index, base, LayerShape(1, words)),
                    *self._write_commands(index, images[-1]),
                ]
                self._session.enqueue(*writes)
                for command in writes:
                    self._session.require(command)
            for (base, words), expected in zip(blocks, images, strict=True):
                reads = list(self._read_commands(index, words))
                self._session.enqueue(_define_command(index, base, LayerShape(1, words)), *reads)
                found = b"".join(self._session.require(command).payload for command in reads)
                if found != expected:
                    places = zip(found, expected, strict=True)
                    first = next(i for i, (a, b) in enumerate(places) if a != b)
                    wrong = base + first // config.word_bytes
                    return False, f"word {wrong} did not keep its value"
        tested, free = sum(words for _, words in blocks), self.info.free_words
        return True, f"{tested} of {free} free words keep two patterns"

    def _test_layer(self) -> tuple[bool, str]:
        config = self._config
        room = max((words for _, words in self._free), default=0)
        if self._free_index() is None or not room:
            return True, "nothing tested: no free layer slot or no free words"
        tiles, groups = max(
            ((t, g) for t in (1, 2) for g in (1, 2, 3) if t * g <= room), key=lambda s: s[0] * s[1]
        )
        shape = (
            min(groups * config.rows, config.max_out_features),
            min(tiles * config.lanes, config.max_in_features),
        )
        random = np.random.default_rng(0)
        trits = random.choice(np.array(ALPHABETS[config.alphabet], np.int8), shape)
        trits[0], trits[-1] = -1, 1
        least, most = act_limits(config)
        codes = random.integers(least, most + 1, (4, shape[1])).astype(np.int8)
        codes[0], codes[1] = least, most
        handle = self.load(TernaryLayer.from_trits(trits, 1.0))
        try:
            exact = np.array_equal(self.matmul(handle, codes), numerics.matmul(trits, codes))
        finally:
            self.unload(handle)
        detail = f"{shape[0]} × {shape[1]}, {len(codes)} tokens, extreme values among them"
        return exact, f"{detail}: {'exact' if exact else 'wrong sums'}"

    def _test_link(self, before: dict[str, int]) -> tuple[bool, str]:
        after = self.counters()
        names = ("bad_packets", "dropped_packets")
        risen = {name: after[name] - before[name] for name in names}
        detail = ", ".join(f"{risen[name]} {name} ({after[name]} in all)" for name in names)
        return not any(risen.values()), detail

    def _test_clock(self) -> tuple[bool, str]:
        """The device's cycles against this computer's clock; one within what answers allow."""
        self.counters()
        if not _real_time(self._url):
            return True, "simulated, so at its own pace"
        early, asked, answered = self._moment()
        time.sleep(CLOCK_S)
        late, asked_again, answered_again = self._moment()
        cycles, wanted_hz = late - early, self._config.clock_hz
        least_hz = cycles / (answered_again - asked)
        most_hz = cycles / (asked_again - answered)
        ok = least_hz <= (1 + CLOCK_TOLERANCE) * wanted_hz
        ok = ok and most_hz >= (1 - CLOCK_TOLERANCE) * wanted_hz
        return ok, (
            f"{least_hz / 1e6:.2f} to {most_hz / 1e6:.2f} MHz by this computer's clock, "
            f"{wanted_hz / 1e6:g} MHz by the device's configuration"
        )

    def _moment(self) -> tuple[int, float, float]:
        """The device's cycles, and between which times it read them."""
        readings = []
        for _ in range(CLOCK_READINGS):
            asked = time.perf_counter()
            cycles = self.counters()["cycles"]
            readings.append((cycles, asked, time.perf_counter()))
        return min(readings, key=lambda reading: reading[2] - reading[1])

    def _payload_limit(self) -> int:
        return self._session.payload_limit(self._config.max_payload)

    def _free_index(self) -> int | None:
        """A layer slot that no loaded layer uses."""
        free = (i for i in range(self._config.max_layers) if i not in self._indices)
        return next(free, None)


def _real_time(url: str) -> bool:
    """Whether a device keeps the time that we do: behind a pseudo-terminal is a simulation."""
    parsed = DeviceUrl.parse(url)
    return parsed.scheme == "serial" and not os.path.realpath(parsed.path).startswith(
        PSEUDO_TERMINALS
    )


def _define_command(index: int, base: int, shape: LayerShape) -> Command:
    payload = LAYER.pack(base, shape.tiles, shape.row_groups)
    return Command(opcode=Opcode.DEFINE, index=index, payload=payload)


def _cuts(features: int, limit: int, step: int) -> list[tuple[int, int]]:
    """Start and size of pieces of at most ``limit``; several are whole steps where that fits."""
    if features > limit >= step:
        limit -= limit % step
    return [(start, min(limit, features - start)) for start in range(0, features, limit)]


def _coalesced(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Free runs (base, words) in order, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for base, words in sorted(runs):
        if joined and sum(joined[-1]) == base:
            joined[-1] = (joined[-1][0], joined[-1][1] + words)
        else:
            joined.append((base, words))
    return joined


def _checked_codes(codes: NDArray[np.int8], in_features: int) -> NDArray[np.int8]:
    array = np.asarray(codes)
    if array.dtype != np.int8:
        raise InputError(f"codes must be int8, not {array.dtype}; quantize the activations first")
    if array.ndim != 2:
        raise InputError(
            f"codes must have shape [tokens, in_features], not {array.shape}; reshape them"
        )
    if array.shape[0] == 0:
        raise InputError(f"codes must not be empty, their shape is {array.shape}")
    if array.shape[1] != in_features:
        raise InputError(f"codes must have {in_features} features, not {array.shape[1]}")
    return array


def _check_range(codes: NDArray[np.int8], config: AcceleratorConfig) -> None:
    least, most = act_limits(config)
    if codes.min() < least or codes.max() > most:
        token, place = np.argwhere((codes < least) | (codes > most))[0]
        raise InputError(
            f"codes must be {least} to {most} on a device of {config.act_bits}-bit activations, "
            f"not {codes[token, place]} at [{token}, {place}]; "
            f"quantize to {config.act_bits} bits"
        )


def require_linear(config: AcceleratorConfig) -> None:
    """``InputError`` for a device that does not take the codes of BitNet's 8-bit quantizer."""
    if config.act_bits != 8:
        raise InputError(
            f"a layer of floats needs 8-bit activations, the device has {config.act_bits}-bit "
            "ones; use matmul with codes of your own quantizer or a device with act_bits 8"
        )
