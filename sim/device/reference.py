"""Reference device: answers every packet as the hardware must, from NumPy.

The rules are those of `tritloom.rtl.spec.commands`; this file adds what its text leaves open:

* A packet of more than `packet_bytes` is dropped as one with a wrong length is.
* Every answer repeats the request's opcode, seq and session, also NO_SESSION and NAK. `expected`
  of an answer to what was not executed is the device's.
* Power-up is session 0 with 1 as the next seq. RESET ends what RESULTS could read; weights and
  activations stay.
* Fields that a command does not use are ignored. COMMIT needs an open layer.
* A layer's memory may overlap another's; the words are then what was written last.
* A whole word that is out of range is OUT_OF_RANGE before a part of a word is BAD_LENGTH; a WRITE
  or LOAD of nothing is OK at any address.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.commands import (
    COUNTERS,
    LAYER,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    Status,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, DeviceError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.numerics import matmul
from tritloom.rtl.spec.packing import pack_results, unpack_weights

__all__ = ["DeviceUrl", "ReferenceDevice", "ReferenceTransport", "open_device", "require_config"]

SEQ_MODULUS = 1 << 16


class DeviceUrl(Protocol):
    """What an opener reads of the URL that a device was named by."""

    @property
    def scheme(self) -> str: ...


class _Refused(Exception):
    """A command that fails with a status."""

    def __init__(self, status: Status, value: int = 0) -> None:
        super().__init__(status)
        self.status = status
        self.value = value


def _require(condition: bool, status: Status) -> None:
    if not condition:
        raise _Refused(status)


@dataclass(slots=True)
class _Layer:
    base: int
    shape: LayerShape
    committed: bool = False


class ReferenceDevice:
    """An accelerator in software: `process` takes a packet and gives its answer, or `None`.

    It has no clock: the counter `cycles` counts those of RUN; `stall_cycles` and
    `dropped_packets` stay 0.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._identity = identity(config)
        self._memory = np.zeros((config.memory_words, config.word_bytes), np.uint8)
        self._activations = np.zeros(
            (config.tokens, config.activation_words, config.fill), np.uint8
        )
        self._results: npt.NDArray[np.int32] | None = None
        self._layers: dict[int, _Layer] = {}
        self._weights: dict[int, npt.NDArray[np.int8]] = {}
        self._answers: deque[bytes] = deque(maxlen=config.window)
        self._session = 0
        self._expected = 1
        self._counters = dict.fromkeys(COUNTERS, 0)
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

    def process(self, packet: bytes) -> bytes | None:
        """The answer to a packet; `None` if its checksum or length is wrong."""
        request = Request.parse(packet) if len(packet) <= self.config.packet_bytes else None
        if request is None:
            self._counters["bad_packets"] += 1
            return None
        self._counters["packets"] += 1
        if request.opcode == Opcode.RESET:
            return self._reset(request)
        if request.session != self._session:
            return self._answer(request, Status.NO_SESSION)
        age = (self._expected - request.seq) % SEQ_MODULUS
        if 1 <= age <= len(self._answers):
            return self._answers[-age]
        if age != 0:
            return self._answer(request, Status.NAK)
        self._expected = (self._expected + 1) % SEQ_MODULUS
        answer = self._execute(request)
        self._answers.append(answer)
        return answer

    def _answer(
        self, request: Request, status: Status = Status.OK, value: int = 0, payload: bytes = b""
    ) -> bytes:
        return Response(
            opcode=request.opcode,
            seq=request.seq,
            session=request.session,
            status=status,
            expected=self._expected,
            value=value,
            payload=payload,
        ).pack()

    def _reset(self, request: Request) -> bytes:
        if request.session != self._session:
            self._session = request.session
            self._expected = 1
            self._answers.clear()
            self._layers.clear()
            self._results = None
        return self._answer(request, value=PROTOCOL_VERSION)

    def _execute(self, request: Request) -> bytes:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            return self._answer(request, Status.BAD_OPCODE)
        try:
            value, payload = handler(request)
        except _Refused as refused:
            return self._answer(request, refused.status, refused.value)
        return self._answer(request, value=value, payload=payload)

    def _identify(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        self._require_count(request, 1)
        end = request.address + request.count
        _require(end <= len(self._identity), Status.OUT_OF_RANGE)
        return 0, self._identity[request.address : end]

    def _define(self, request: Request) -> tuple[int, bytes]:
        _require(len(request.payload) == LAYER.size, Status.BAD_LENGTH)
        self._require_layer_index(request)
        base, tiles, groups = LAYER.unpack(request.payload)
        _require(
            1 <= tiles <= self.config.max_tiles
            and 1 <= groups <= self.config.max_row_groups
            and base + tiles * groups <= self.config.memory_words,
            Status.OUT_OF_RANGE,
        )
        self._layers[request.index] = _Layer(base, LayerShape(tiles, groups))
        self._weights.pop(request.index, None)
        return 0, b""

    def _write(self, request: Request) -> tuple[int, bytes]:
        self._require_layer_index(request)
        layer = self._layer(request.index, committed=False)
        self._weights.clear()
        self._fill_words(self._words(layer), request.address, request.payload)
        return 0, b""

    def _read(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        self._require_layer_index(request)
        self._require_count(request, self.config.word_bytes)
        image = self._image(self._layer(request.index))
        end = request.address + request.count
        _require(end <= len(image), Status.OUT_OF_RANGE)
        return 0, image[request.address : end].tobytes()

    def _commit(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        self._require_layer_index(request)
        layer = self._layer(request.index, committed=False)
        found = zlib.crc32(self._image(layer).tobytes())
        if found != request.address:
            raise _Refused(Status.BAD_CHECKSUM, found)
        layer.committed = True
        return found, b""

    def _load(self, request: Request) -> tuple[int, bytes]:
        _require(request.index < self.config.tokens, Status.OUT_OF_RANGE)
        self._fill_words(self._activations[request.index], request.address, request.payload)
        return 0, b""

    def _run(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        self._require_layer_index(request)
        _require(1 <= request.count <= self.config.tokens, Status.BAD_LENGTH)
        layer = self._layer(request.index, committed=True)
        codes = self._activations.reshape(self.config.tokens, -1).view(np.int8)
        spare = 8 - self.config.act_bits  # high bits that the device does not keep
        codes = codes << spare >> spare
        features = layer.shape.tiles * self.config.lanes
        self._results = matmul(self._decoded(request.index), codes[:, :features])
        cycles = self.config.run_cycles(layer.shape) or 0
        self._counters["run_cycles"] += cycles
        self._counters["cycles"] += cycles
        return cycles, b""

    def _read_results(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        _require(request.index < self.config.tokens, Status.OUT_OF_RANGE)
        self._require_count(request, self.config.acc_bytes)
        if self._results is None:
            raise _Refused(Status.BAD_STATE)
        start = request.address * self.config.rows
        end = start + request.count
        _require(end <= self._results.shape[1], Status.OUT_OF_RANGE)
        return 0, pack_results(self.config, self._results[request.index, start:end])

    def _read_counters(self, request: Request) -> tuple[int, bytes]:
        _require(not request.payload, Status.BAD_LENGTH)
        return 0, struct.pack(f"<{len(COUNTERS)}Q", *self._counters.values())

    def _require_layer_index(self, request: Request) -> None:
        _require(request.index < self.config.max_layers, Status.OUT_OF_RANGE)

    def _require_count(self, request: Request, unit_bytes: int) -> None:
        fits = request.count * unit_bytes <= self.config.max_payload
        _require(request.count > 0 and fits, Status.BAD_LENGTH)

    def _layer(self, index: int, committed: bool | None = None) -> _Layer:
        """The defined layer `index`, committed or open as asked for."""
        layer = self._layers.get(index)
        if layer is None or committed not in (None, layer.committed):
            raise _Refused(Status.BAD_STATE)
        return layer

    def _words(self, layer: _Layer) -> npt.NDArray[np.uint8]:
        return self._memory[layer.base : layer.base + layer.shape.words]

    def _image(self, layer: _Layer) -> npt.NDArray[np.uint8]:
        """A copy of a layer's words, the bits above `word_bits` 0."""
        image = self._words(layer).copy()
        image[:, -1] &= 0xFF >> (8 * self.config.word_bytes - self.config.word_bits)
        return image

    def _fill_words(self, words: npt.NDArray[np.uint8], address: int, payload: bytes) -> None:
        """Writes whole words from `address` until one is out of range."""
        size = words.shape[1]
        whole = len(payload) // size
        room = max(0, min(whole, len(words) - address))
        source = np.frombuffer(payload, np.uint8, room * size).reshape(room, size)
        words[address : address + room] = source
        _require(room == whole, Status.OUT_OF_RANGE)
        _require(whole * size == len(payload), Status.BAD_LENGTH)

    def _decoded(self, index: int) -> npt.NDArray[np.int8]:
        """A layer's trits, int8 [groups × rows, tiles × lanes]."""
        if index not in self._weights:
            layer = self._layers[index]
            rows = layer.shape.row_groups * self.config.rows
            lanes = layer.shape.tiles * self.config.lanes
            image = self._image(layer).tobytes()
            try:
                self._weights[index] = unpack_weights(self.config, image, rows, lanes)
            except InputError:  # codes that no trits have: the sums are unspecified
                self._weights[index] = np.zeros((rows, lanes), np.int8)
        return self._weights[index]


class ReferenceTransport:
    """A `ReferenceDevice` behind the interface of a link; its answers are there at once."""

    timeout_s = 0.0

    def __init__(self, config: AcceleratorConfig) -> None:
        self.device = ReferenceDevice(config)
        self._answers: deque[bytes] = deque()
        self._closed = False

    def send(self, packet: bytes) -> None:
        """Hand the device a packet."""
        self._require_open()
        answer = self.device.process(packet)
        if answer is not None:
            self._answers.append(answer)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next answer, or `None` at once if there is none."""
        self._require_open()
        return self._answers.popleft() if self._answers else None

    def close(self) -> None:
        """Forget the device."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError("the golden device is closed; connect again")


def require_config(url: DeviceUrl, config: AcceleratorConfig | None) -> AcceleratorConfig:
    """The configuration to simulate; a simulated device has none of its own."""
    if config is None:
        raise ConfigError(f"{url.scheme} needs a configuration; name a board or pass config=")
    return config


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> ReferenceTransport:
    """Opens `golden`: the reference device of a configuration."""
    return ReferenceTransport(require_config(url, config))
