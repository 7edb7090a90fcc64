"""Reference device: gives the response to every packet that the hardware must give, from NumPy.

The rules are those of `tritloom.rtl.spec.commands`. This device evaluates the table of checks in
`tritloom.rtl.spec.checks`. This file adds what they leave open:

* `expected` in NO_SESSION and NAK is the number that the device waits for.
* At power-up the session is 0 and the next seq is 1.
* RESET to a new session empties the result banks. Weights, activations and their scales stay.
* Every command is done when its response comes, so a duplicate always gets the stored response.
* A command ignores the header fields that it does not use.
* The words of two layers may overlap in memory. Each then reads what was written last.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.checks import (
    UNITS,
    VECTOR_CHECKS,
    Check,
    Checker,
    LayerState,
    Stage,
    State,
    checks_of,
)
from tritloom.rtl.spec.commands import (
    LAYER,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Status,
    counters_of,
    identity,
    pack_counters,
    pack_response,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_results
from tritloom.sim.device.opening import DeviceUrl, require_config
from tritloom.sim.device.reference_activations import ActivationBanks, store_words
from tritloom.sim.device.reference_programs import ReferencePrograms
from tritloom.sim.device.reference_sums import Trits, as_operand, layer_results, layer_trits

__all__ = ["ReferenceBlockTransport", "ReferenceDevice", "ReferenceTransport", "open_device"]

SEQ_MODULUS = 1 << 16
RESET, READ, COMMIT, RESULTS = Opcode.RESET, Opcode.READ, Opcode.COMMIT, Opcode.RESULTS
COMMITTED = LayerState.COMMITTED
OK = Status.OK
"""Python 3.11 looks up a member of an enumeration slowly."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Place and shape of a defined layer, and the cycles of its RUN."""

    base: int
    shape: LayerShape
    cycles: int
    committed: bool = False


@dataclass(frozen=True, slots=True)
class _Results:
    """What a RUN left in its bank: int32 [tokens, row groups × rows], and its cycles.

    With scales these are the patterns of float32.
    """

    sums: npt.NDArray[np.int32]
    cycles: int
    void: bool = False


class ReferenceDevice:
    """An accelerator in software: `process` takes a packet and gives the response, or `None`.

    It has no clock: its counter `cycles` counts only the cycles of RUN. Its counters
    `stall_cycles` and `dropped_packets` stay 0.

    Members
    -------
    memory : the weight memory, uint8 `[memory_words, word_bytes]`; not to be changed
    void_words : addresses that the weight memory cannot read, all others can; only a configuration
        whose memory can fail may have any. They may change between packets.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._identity = identity(config)
        self._checker = Checker(config)
        self.memory = np.zeros((config.memory_words, config.word_bytes), np.uint8)
        self._activations = ActivationBanks(config)
        self._results: dict[int, _Results] = {}  # by bank
        self._layers: dict[int, _Layer] = {}
        self._weights: dict[int, Trits] = {}
        self.void_words: set[int] = set()
        self._responses: tuple[bytes, ...] = ()  # the latest ones, at most `window`
        self._session = 0
        self._expected = 1
        self._counters = dict.fromkeys(counters_of(config), 0)
        self._programs = (
            None if config.vector is None else ReferencePrograms(config.vector, config.tokens)
        )
        self._handlers: dict[int, Callable[[Request], tuple[int, bytes]]] = {
            Opcode.IDENTIFY: self._identify,
            Opcode.DEFINE: self._define,
            Opcode.WRITE: self._write,
            Opcode.READ: self._read,
            Opcode.COMMIT: self._commit,
            Opcode.LOAD: self._load,
            Opcode.RUN: self._run,
            Opcode.RESULTS: self._read_results,
            Opcode.COUNTERS: self._read_counters,
        }
        if Opcode.SCALES in checks_of(config):
            self._handlers[Opcode.SCALES] = self._load_scales
        if self._programs is not None:
            self._handlers |= {
                Opcode.PUT: self._put,
                Opcode.GET: self._get,
                Opcode.PROGRAM: self._write_steps,
                Opcode.COMMIT_PROGRAM: self._commit_program,
                Opcode.EXECUTE: self._execute_program,
            }

    def process(self, packet: bytes) -> bytes | None:
        """The response to a packet; `None` if its checksum or length is wrong.

        An interrupt, such as Ctrl-C, leaves the device as if the packet had never arrived.
        """
        # A packet replaces these members as a whole, but for the counters and the vector unit.
        # WRITE, LOAD, PUT, PROGRAM and SCALES may be cut short: the packet comes again, and they
        # write the same again.
        before = self.__dict__ | {
            "_counters": self._counters.copy(),
            "_programs": self._programs and copy(self._programs),
        }
        try:
            return self._process(packet)
        except BaseException:
            self.__dict__.update(before)  # one step, which no second interrupt can split
            raise

    def _process(self, packet: bytes) -> bytes | None:
        request = Request.parse(packet) if len(packet) <= self.config.packet_bytes else None
        if request is None:
            self._counters["bad_packets"] += 1
            return None
        self._counters["packets"] += 1
        if request.opcode == RESET:
            return self._reset(request)
        if request.session != self._session:
            return self._respond(request, Status.NO_SESSION)
        age = (self._expected - request.seq) % SEQ_MODULUS
        if 1 <= age <= len(self._responses):
            return self._responses[-age]
        if age != 0:
            return self._respond(request, Status.NAK)
        self._expected = (self._expected + 1) % SEQ_MODULUS
        response = self._execute(request)
        self._responses = (*self._responses, response)[-self.config.window :]
        return response

    @property
    def next_seq(self) -> int:
        """The seq of the next command."""
        return self._expected

    @property
    def committed_steps(self) -> int:
        """The steps of the program memory that are committed."""
        return 0 if self._programs is None else self._programs.committed_steps

    def failure(self, request: Request) -> Check | None:
        """The check that a request would fail if it were the next command.

        Parameters
        ----------
        request : a request whose opcode the device has

        Returns
        -------
        Check | None
            `None` if the request passes all checks of its opcode.
        """
        return self._checker.first_failure(request, self._state(request))

    def holds_trits(self, index: int) -> bool:
        """Whether layer `index` is defined, all its codes stand for trits and all its scales are
        finite; else the results of a RUN are unspecified."""
        if index not in self._layers:
            return False
        try:
            self._unpacked(index)
        except InputError:
            return False
        return True

    def _respond(
        self, request: Request, status: Status = OK, value: int = 0, payload: bytes = b""
    ) -> bytes:
        return pack_response(request, status, self._expected, value, payload)

    def _reset(self, request: Request) -> bytes:
        if request.session != self._session:
            self._session = request.session
            self._expected = 1
            self._responses = ()
            self._layers = {}
            self._results = {}
            if self._programs is not None:
                self._programs.forget()
        return self._respond(request, value=PROTOCOL_VERSION)

    def _execute(self, request: Request) -> bytes:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            return self._respond(request, Status.BAD_OPCODE)
        state = self._state(request)
        failed = self._checker.first_failure(request, state)
        if failed is None:
            value, payload = handler(request)
            return self._respond(request, OK, value, payload)
        if failed.stage >= Stage.WORD and request.opcode in UNITS:
            handler(request)  # the whole words before the failing one stay
        if failed.stage == Stage.END and request.opcode == Opcode.COMMIT_PROGRAM:
            assert self._programs is not None
            self._programs.committed_steps = 0
        checksum = state.layer_checksum | state.program_checksum
        value = checksum if failed.status == Status.BAD_CHECKSUM else 0
        return self._respond(request, failed.status, value)

    def _state(self, request: Request) -> State:
        """What the checks of a request read of this device."""
        if self._programs is not None and request.opcode in VECTOR_CHECKS:
            committed = {index for index, layer in self._layers.items() if layer.committed}
            return self._programs.state(request, committed)
        opcode = request.opcode
        if opcode == RESULTS:
            results = self._results.get(request.result_bank)
            if results is None:
                return State()
            row_groups = results.sums.shape[1] // self.config.rows
            return State(result_row_groups=row_groups, void_words=results.void)
        layer = self._layers.get(request.index)
        if layer is None:
            return State()
        words = layer.shape.words
        checksum, void = 0, False
        if opcode == READ:
            void = self._any_void(layer.base + request.address, request.count)
        elif opcode == COMMIT:
            void = self._any_void(layer.base, words)
            checksum = zlib.crc32(self._image(layer).tobytes())
        return State(
            layer=COMMITTED if layer.committed else LayerState.OPEN,
            layer_words=words,
            layer_checksum=checksum,
            void_words=void,
        )

    def _any_void(self, address: int, count: int) -> bool:
        """Whether the memory cannot read one of `count` words from `address` on."""
        return bool(self.void_words) and any(
            address <= void < address + count for void in self.void_words
        )

    def _identify(self, request: Request) -> tuple[int, bytes]:
        return 0, self._identity[request.address : request.address + request.count]

    def _define(self, request: Request) -> tuple[int, bytes]:
        base, tiles, row_groups = LAYER.unpack(request.payload)
        group_tiles = request.count if self.config.has_groups else 0
        shape = LayerShape(tiles, row_groups, group_tiles)
        layer = _Layer(base, shape, self.config.run_cycles(shape) or 0)
        self._layers = self._layers | {request.index: layer}
        self._weights.pop(request.index, None)
        if self._programs is not None:
            self._programs.forget_layer(request.index)
        return 0, b""

    def _write(self, request: Request) -> tuple[int, bytes]:
        self._weights.clear()
        layer = self._layers[request.index]
        if count := store_words(self._words(layer), request):
            self._fill_line(layer.base + request.address + count)
        return 0, b""

    def _read(self, request: Request) -> tuple[int, bytes]:
        image = self._image(self._layers[request.index])
        return 0, image[request.address : request.address + request.count].tobytes()

    def _commit(self, request: Request) -> tuple[int, bytes]:
        layer = replace(self._layers[request.index], committed=True)
        self._layers = self._layers | {request.index: layer}
        return request.address, b""

    def _load(self, request: Request) -> tuple[int, bytes]:
        self._activations.load(request)
        return 0, b""

    def _load_scales(self, request: Request) -> tuple[int, bytes]:
        self._activations.load_scales(request)
        return 0, b""

    def _run(self, request: Request) -> tuple[int, bytes]:
        layer = self._layers[request.index]
        config, shape = self.config, layer.shape
        bank = request.activation_bank
        codes = self._activations.codes(bank, shape.tiles * config.lanes)
        image, acts = b"", None
        if config.scale is not None:
            image = self._image(layer).tobytes()
            groups = shape.with_longest(config.most_group_tiles).groups
            acts = self._activations.scales_of(bank, groups)
        sums = layer_results(config, shape, self._decoded(request.index), image, codes, acts)
        void = self._any_void(layer.base, shape.words)
        results = _Results(sums, layer.cycles, void)
        self._results = self._results | {request.result_bank: results}
        self._counters["run_cycles"] += layer.cycles
        self._counters["cycles"] += layer.cycles
        return 0, b""

    def _read_results(self, request: Request) -> tuple[int, bytes]:
        results = self._results[request.result_bank]
        start = request.address * self.config.rows
        sums = results.sums[request.index, start : start + request.count]
        return results.cycles, pack_results(self.config, sums)

    def _read_counters(self, request: Request) -> tuple[int, bytes]:
        return 0, pack_counters(self._counters.values())

    def _put(self, request: Request) -> tuple[int, bytes]:
        assert self._programs is not None
        store_words(self._programs.words(request.index), request)
        return 0, b""

    def _get(self, request: Request) -> tuple[int, bytes]:
        assert self._programs is not None
        words = self._programs.words(request.index)[request.address :][: request.count]
        return self._programs.cycles, words.tobytes()

    def _write_steps(self, request: Request) -> tuple[int, bytes]:
        assert self._programs is not None
        self._programs.committed_steps = 0
        store_words(self._programs.steps, request)
        self._programs.steps &= self._programs.kept
        return 0, b""

    def _commit_program(self, request: Request) -> tuple[int, bytes]:
        assert self._programs is not None
        self._programs.committed_steps = request.count
        return request.address, b""

    def _execute_program(self, request: Request) -> tuple[int, bytes]:
        assert self._programs is not None
        config, programs = self.config, copy(self._programs)
        before = self._counters["run_cycles"]

        def store(token: int, image: npt.NDArray[np.uint8]) -> None:
            self._activations.store(request.activation_bank, token, image)

        def compute(index: int, several: list[npt.NDArray[np.int8]]) -> list[npt.NDArray[np.int32]]:
            features = self._layers[index].shape.tiles * config.lanes
            for token, codes in enumerate(several):
                # Zeros follow the codes, to the end of the layer's tiles and of the last word.
                image = np.zeros(max(features, len(codes) + -len(codes) % config.fill), np.uint8)
                image[: len(codes)] = codes.view(np.uint8)
                store(token, image)
            self._run(replace(request, index=index))
            results = self._results[request.result_bank]
            programs.void |= results.void
            return list(results.sums[: len(several)])

        programs.void = False
        for token, rest in enumerate(programs.execute(request.address, request.index, compute)):
            whole = len(rest) // config.fill * config.fill
            store(token, rest.view(np.uint8)[:whole])
        programs.cycles += self._counters["run_cycles"] - before
        self._counters["vector_cycles"] += programs.cycles
        self._programs = programs
        return 0, b""

    def _words(self, layer: _Layer) -> npt.NDArray[np.uint8]:
        return self.memory[layer.base : layer.base + layer.shape.words]

    def _image(self, layer: _Layer) -> npt.NDArray[np.uint8]:
        """A copy of a layer's words; the bits above `word_bits` are 0."""
        image = self._words(layer).copy()
        image[:, -1] &= 0xFF >> (8 * self.config.word_bytes - self.config.word_bits)
        return image

    def _fill_line(self, end: int) -> None:
        """Clear the rest of the line that the word before address `end` shares with others."""
        bits = self.config.memory.padding_bits(self.config, end)
        while bits > 0:
            number = int.from_bytes(self.memory[end].tobytes(), "little")
            cleared = number >> bits << bits
            size = self.config.word_bytes
            self.memory[end] = np.frombuffer(cleared.to_bytes(size, "little"), np.uint8)
            bits -= self.config.word_bits
            end += 1

    def _decoded(self, index: int) -> Trits:
        """The trits of a layer, [row groups × rows, tiles × lanes]."""
        if index not in self._weights:
            try:
                trits = self._unpacked(index)
            except InputError:  # some codes stand for no trits: the sums are unspecified
                shape = self._layers[index].shape
                rows, lanes = self.config.rows, self.config.lanes
                trits = np.zeros((shape.row_groups * rows, shape.tiles * lanes), np.int8)
            self._weights[index] = as_operand(trits)
        return self._weights[index]

    def _unpacked(self, index: int) -> npt.NDArray[np.int8]:
        """As int8; raises `InputError` if a code stands for no trits."""
        layer = self._layers[index]
        return layer_trits(self.config, layer.shape, self._image(layer).tobytes())


class ReferenceTransport:
    """A `ReferenceDevice` behind the interface of a link. A response is ready at once."""

    timeout_s = 0.0

    def __init__(self, config: AcceleratorConfig) -> None:
        self.device = ReferenceDevice(config)
        self._responses: deque[bytes] = deque()
        self._closed = False

    def send(self, packet: bytes) -> None:
        """Hand the device a packet."""
        self._require_open()
        response = self.device.process(packet)
        if response is not None:
            self._responses.append(response)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next response, or `None` at once if there is none."""
        self._require_open()
        return self._responses.popleft() if self._responses else None

    def close(self) -> None:
        """Forget the device."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError("the golden device is closed; connect again")


class ReferenceBlockTransport(ReferenceTransport):
    """As `ReferenceTransport`, with several packets in a call."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config)
        self.block = config.window

    def send_block(self, packets: Sequence[bytes]) -> None:
        """Hand the device packets, one after the other."""
        for packet in packets:
            self.send(packet)

    def receive_block(self, timeout_s: float) -> list[bytes]:
        """The next responses; none at once if there are none."""
        self._require_open()
        responses = self._responses
        return [responses.popleft() for _ in range(min(len(responses), self.block))]


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> ReferenceBlockTransport:
    """Opens `golden`: the reference device of a configuration."""
    return ReferenceBlockTransport(require_config(url, config))
