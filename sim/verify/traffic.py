"""Random packets for an accelerator, each with the response that it must give."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritloom.rtl.spec.checks import LayerState
from tritloom.rtl.spec.commands import (
    CRC_BYTES,
    HEADER,
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    Opcode,
    Request,
    Response,
    Status,
    identity,
    seal,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_weights
from tritloom.rtl.spec.requests import define_layer
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify import requests

__all__ = ["Traffic"]

SEQ_MODULUS = 1 << 16
SMALL_WORDS = 64
"""A layer of at most this many words is also filled and committed."""


@dataclass(slots=True)
class _Layer:
    """What the traffic knows of a layer that it has defined."""

    shape: LayerShape
    state: LayerState = LayerState.OPEN


class Traffic:
    """Random packets, sound and damaged, each with the response of the reference device.

    Most commands are right and are executed. The others are wrong in one field, out of order, of
    another session, or damaged.

    Parameters
    ----------
    config : the configuration of the device
    seed : of everything random
    words : the layers lie in this many last words of the memory only; all of it if `None`
    tiles : most tiles of a layer; as many as the device takes if `None`

    Members
    -------
    packets : pairs of packet and response, in their order; `None` for a packet without a response
    reference : the device that gave the responses
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        seed: int | str,
        *,
        words: int | None = None,
        tiles: int | None = None,
    ) -> None:
        self.config = config
        self.reference = ReferenceDevice(config)
        self.packets: list[tuple[bytes, bytes | None]] = []
        self._rng = random.Random(seed)
        self._memory_words = min(words or config.memory_words, config.memory_words)
        self._first_word = config.memory_words - self._memory_words
        self._max_tiles = min(tiles or config.max_tiles, config.max_tiles, self._memory_words)
        self._session = 0
        self._seq = 1
        self._history: list[bytes] = []
        self._layers: dict[int, _Layer] = {}
        self._result_groups = 0

    def exchange(self, packet: bytes) -> bytes | None:
        """Add a packet; its response, which is also followed: RESET begins a session."""
        packet_response = self.reference.process(packet)
        self.packets.append((packet, packet_response))
        request = Request.parse(packet)
        if packet_response is not None and request is not None and request.opcode == Opcode.RESET:
            if request.session != self._session:
                self._history.clear()
                self._layers.clear()
                self._result_groups = 0
            response = Response.parse(packet_response)
            assert response is not None
            self._session, self._seq = request.session, response.expected
        return packet_response

    def command(self, opcode: int, **fields: Any) -> Response:
        """Add the next command in order; its response."""
        packet = Request(opcode, self._seq, self._session, **fields).pack()
        packet_response = self.exchange(packet)
        assert packet_response is not None
        self._history.append(packet)
        self._seq = (self._seq + 1) % SEQ_MODULUS
        response = Response.parse(packet_response)
        assert response is not None
        return response

    def _execute(self, request: Request) -> Response:
        return self.command(
            request.opcode,
            index=request.index,
            count=request.count,
            address=request.address,
            payload=request.payload,
        )

    def reset(self, session: int) -> None:
        """Add a RESET."""
        self.exchange(Request(Opcode.RESET, self._rng.randrange(SEQ_MODULUS), session).pack())

    def image(self, words: int) -> bytes:
        """Words of random trits, some rows of one extreme only."""
        config = self.config
        generator = np.random.default_rng(self._rng.getrandbits(32))
        alphabet = np.array(ALPHABETS[config.alphabet], np.int8)
        trits = generator.choice(alphabet, (words * config.rows, config.lanes))
        for row in trits:
            if self._rng.random() < 0.3:
                row[:] = self._rng.choice((-1, 1))
        return pack_weights(config, trits)

    def codes(self, count: int) -> bytes:
        """Activations; some of them the extremes alone."""
        if self._rng.random() < 0.3:
            return self._rng.choice((b"\x80", b"\x7f")) * count
        return self._rng.randbytes(count)

    def layer(self, index: int, base: int, tiles: int, row_groups: int) -> None:
        """Define, write and commit a layer of random trits, and load activations for it."""
        shape = LayerShape(tiles, row_groups)
        self._defined(index, self._execute(define_layer(index, base, shape)), shape)
        self._fill(index)
        self.load_all(tiles)

    def load_all(self, tiles: int) -> None:
        """Load activations for some tiles, of all tokens."""
        codes = [self.codes(tiles * self.config.lanes) for _ in range(self.config.tokens)]
        array = np.frombuffer(b"".join(codes), np.int8).reshape(self.config.tokens, -1)
        for request in requests.loads(self.config, array):
            self._execute(request)

    def results(self, row_groups: int) -> None:
        """Read all results of the last RUN."""
        for request in requests.results(self.config, row_groups * self.config.rows):
            self._execute(request)

    def product(self, index: int, base: int, tiles: int, row_groups: int) -> int:
        """A whole product; the cycles that its RUN takes."""
        self.layer(index, base, tiles, row_groups)
        response = self.command(Opcode.RUN, index=index, count=self.config.tokens)
        assert response.status == Status.OK
        self._result_groups = row_groups
        self.results(row_groups)
        return response.value

    def empty_product(self, index: int, base: int, tiles: int, row_groups: int) -> int:
        """A RUN with the words in memory, which must be as at power-up; its cycles."""
        shape = LayerShape(tiles, row_groups)
        self._defined(index, self._execute(define_layer(index, base, shape)), shape)
        image = bytes(shape.words * self.config.word_bytes)
        self._commit_layer(index, zlib.crc32(image))
        response = self.command(Opcode.RUN, index=index, count=1)
        assert response.status == Status.OK
        self._result_groups = row_groups
        return response.value

    def prepare(self) -> None:
        """Write all weight words and activations that `random` can read: memory is unknown."""
        row_groups = min(self._memory_words, self.config.max_row_groups)
        for first in range(0, self._memory_words, row_groups):
            count = min(row_groups, self._memory_words - first)
            shape = LayerShape(1, count)
            base = self._first_word + first
            self._defined(0, self._execute(define_layer(0, base, shape)), shape)
            self._fill(0)
        self.load_all(self._max_tiles)

    def random(self, count: int) -> None:
        """Add the packets of `count` steps of everything that a link can bring."""
        steps: list[tuple[int, Callable[[], object]]] = [
            (8, self._define),
            (8, self._write),
            (7, self._read),
            (6, self._commit),
            (7, self._load),
            (8, self._run),
            (12, self._results),
            (5, self._identify),
            (3, lambda: self.command(Opcode.COUNTERS)),
            (3, self._payload_not_taken),
            (2, self._unknown_opcode),
            (1, self._reset),
            (2, self._other_session),
            (4, self._again),
            (2, self._gap),
            (5, self._damaged),
            (1, self._tiny),
            (1, self._overlong),
        ]
        weights = [weight for weight, _ in steps]
        for _ in range(count):
            (step,) = self._rng.choices([step for _, step in steps], weights)
            step()

    def _number(self, least: int, most: int, bits: int) -> int:
        """Mostly a number from `least` to `most`; else one beside them, or one far away."""
        kind = self._rng.random()
        right = self._rng.randint(least, max(least, most))
        if kind < 0.85:
            return right
        if kind < 0.94:
            off = self._rng.choice((most + 1, most + 2, least - 1, most))
            return max(0, min(off, (1 << bits) - 1))
        return self._rng.choice([right ^ 1 << self._rng.randrange(bits), (1 << bits) - 1])

    def _index(self, *states: LayerState) -> int:
        """Mostly the number of a layer in one of some states, else any number."""
        if self._rng.random() < 0.9:
            if not self._in(*states):
                self._define_layer(complete=LayerState.COMMITTED in states)
            if numbers := self._in(*states):
                return self._rng.choice(numbers)
        layers = self.config.max_layers
        return self._rng.choice([self._rng.randrange(layers), min(layers, 255), 255])

    def _in(self, *states: LayerState) -> list[int]:
        return [index for index, layer in self._layers.items() if layer.state in states]

    def _words(self, index: int) -> int:
        layer = self._layers.get(index)
        return layer.shape.words if layer else 1

    def _defined(self, index: int, response: Response, shape: LayerShape) -> None:
        if response.status == Status.OK:
            self._layers[index] = _Layer(shape)

    def _shape(self) -> LayerShape:
        """A shape within the limits; mostly one that is quickly filled."""
        most = self._memory_words
        if self._rng.random() < 0.8:
            most = min(most, SMALL_WORDS)
        tiles = self._rng.randint(1, min(self._max_tiles, most))
        return LayerShape(
            tiles, self._rng.randint(1, min(self.config.max_row_groups, most // tiles))
        )

    def _place(self, shape: LayerShape) -> int:
        return self._first_word + self._rng.randint(0, self._memory_words - shape.words)

    def _define_layer(self, complete: bool) -> None:
        """Define a layer that is right in all fields, and perhaps commit it."""
        index, shape = self._rng.randrange(self.config.max_layers), self._shape()
        request = define_layer(index, self._place(shape), shape)
        self._defined(index, self._execute(request), shape)
        if complete and shape.words <= SMALL_WORDS:
            self._fill(index)
            if self._rng.random() < 0.5:
                self.load_all(shape.tiles)

    def _define(self) -> None:
        if self._rng.random() < 0.6:
            self._define_layer(complete=self._rng.random() < 0.7)
            return
        config, shape = self.config, self._shape()
        base = self._place(shape)
        tiles, row_groups = shape.tiles, shape.row_groups
        match self._rng.randrange(5):
            case 0:
                base = self._beyond(config.memory_words - shape.words, 32)
            case 1:
                tiles = self._rng.choice((0, self._beyond(config.max_tiles, 16)))
            case 2:
                row_groups = self._rng.choice((0, self._beyond(config.max_row_groups, 16)))
            case _:
                pass
        payload = LAYER.pack(base, tiles, row_groups)
        if self._rng.random() < 0.2:
            payload = payload[: self._rng.randrange(9)] + bytes(self._rng.randrange(3))
        index = self._number(0, config.max_layers - 1, 8)
        response = self.command(Opcode.DEFINE, index=index, payload=payload)
        self._defined(index, response, LayerShape(tiles, row_groups))

    def _beyond(self, most: int, bits: int) -> int:
        """A number above `most`, if `bits` have one."""
        above = [most + 1, most + 2, most | 1 << bits - 1, (1 << bits) - 1]
        return min(self._rng.choice(above), (1 << bits) - 1)

    def _fill(self, index: int) -> None:
        """Write all words of an open layer and commit it."""
        image = self.image(self._words(index))
        for request in requests.writes(self.config, index, image):
            self._execute(request)
        self._commit_layer(index, zlib.crc32(image))

    def _commit_layer(self, index: int, checksum: int) -> None:
        response = self.command(Opcode.COMMIT, index=index, address=checksum)
        assert response.status == Status.OK
        self._layers[index].state = LayerState.COMMITTED

    def _write(self) -> None:
        index = self._index(LayerState.OPEN)
        most = min(self.config.max_payload // self.config.word_bytes, 8, self._words(index))
        words = self._rng.randint(0, most)
        payload = self.image(words) if words else b""
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        address = self._number(0, self._words(index) - words, 32)
        self.command(Opcode.WRITE, index=index, address=address, payload=payload)

    def _read(self) -> None:
        index = self._index(LayerState.OPEN, LayerState.COMMITTED)
        words = self._words(index)
        most = min(words, self.config.max_payload // self.config.word_bytes)
        count = self._number(1, most, 16)
        address = self._number(0, words - count, 32)
        self.command(Opcode.READ, index=index, address=address, count=count)

    def _commit(self) -> None:
        index = self._index(LayerState.OPEN)
        checksum = self._rng.getrandbits(32)
        response = self.command(Opcode.COMMIT, index=index, address=checksum)
        if response.status == Status.BAD_CHECKSUM and self._rng.random() < 0.7:
            self._commit_layer(index, response.value)

    def _load(self) -> None:
        config = self.config
        room = self._max_tiles * config.lanes // config.fill
        words = self._rng.randint(0, min(config.max_payload // config.fill, room, 32))
        payload = self.codes(words * config.fill)
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        self.command(
            Opcode.LOAD,
            index=self._number(0, config.tokens - 1, 8),
            address=self._number(0, config.activation_words - words, 32),
            payload=payload,
        )

    def _run(self) -> None:
        index = self._index(LayerState.COMMITTED)
        count = self._number(1, self.config.tokens, 16)
        response = self.command(Opcode.RUN, index=index, count=count)
        if response.status == Status.OK:
            self._result_groups = self._layers[index].shape.row_groups

    def _results(self) -> None:
        config = self.config
        if not self._result_groups and self._rng.random() < 0.9:
            self._run()
        row_groups = max(1, self._result_groups)
        address = self._number(0, row_groups - 1, 32)
        most = min((row_groups - address) * config.rows, config.max_payload // config.acc_bytes)
        self.command(
            Opcode.RESULTS,
            index=self._number(0, config.tokens - 1, 8),
            address=address,
            count=self._number(1, most, 16),
        )

    def _identify(self) -> None:
        size = len(identity(self.config))
        count = self._number(1, min(size, self.config.max_payload), 16)
        address = self._number(0, size - count, 32)
        self.command(Opcode.IDENTIFY, address=address, count=count)

    def _payload_not_taken(self) -> None:
        takes_none = (Opcode.IDENTIFY, Opcode.READ, Opcode.COMMIT, Opcode.RUN, Opcode.RESULTS)
        opcode = self._rng.choice((*takes_none, Opcode.COUNTERS))
        payload = self._rng.randbytes(self._rng.randint(1, self.config.max_payload))
        index = self._index(LayerState.COMMITTED)
        self.command(opcode, index=index, count=1, payload=payload)

    def _unknown_opcode(self) -> None:
        opcode = self._rng.choice((0, max(Opcode) + 1, 255, 2 | 1 << self._rng.randrange(4, 8)))
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        self.command(opcode, payload=payload)

    def _reset(self) -> None:
        payload = b""
        if self._rng.random() < 0.4:
            payload = self._rng.randbytes(self._rng.randint(1, self.config.max_payload))
        session = self._rng.choice((self._session, self._rng.getrandbits(32)))
        self.exchange(Request(Opcode.RESET, 9, session, payload=payload).pack())

    def _other_session(self) -> None:
        session = self._session ^ 1 << self._rng.randrange(32)
        opcode = self._rng.choice([opcode for opcode in Opcode if opcode != Opcode.RESET])
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        self.exchange(Request(opcode, self._seq, session, payload=payload).pack())

    def _again(self) -> None:
        """One of the last commands, or another command with its number: neither is executed."""
        if not self._history:
            return
        age = self._rng.randint(1, min(len(self._history), self.config.window + 2))
        packet = self._history[-age]
        if self._rng.random() < 0.3:
            seq = (self._seq - age) % SEQ_MODULUS
            packet = Request(Opcode.LOAD, seq, self._session, payload=b"abc").pack()
        self.exchange(packet)

    def _gap(self) -> None:
        ahead = self._rng.choice((1, 2, 3, 1000, 32768, 65000))
        seq = (self._seq + ahead) % SEQ_MODULUS
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        opcode = self._rng.choice((Opcode.WRITE, Opcode.LOAD))
        self.exchange(Request(opcode, seq, self._session, payload=payload).pack())

    def _sound(self) -> bytes:
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        return Request(Opcode.LOAD, self._seq, self._session, payload=payload).pack()

    def _damaged(self) -> None:
        packet = bytearray(self._sound())
        match self._rng.randrange(4):
            case 0:
                packet[self._rng.randrange(len(packet))] ^= 1 << self._rng.randrange(8)
            case 1:
                del packet[self._rng.randrange(1, len(packet)) :]
            case 2:
                packet += self._rng.randbytes(self._rng.randint(1, 9))
            case _:  # only the length is wrong
                wrong = len(packet) + self._rng.choice((-1, 1, 256))
                packet = bytearray(seal(wrong.to_bytes(2, "little") + packet[2:-CRC_BYTES]))
        self.exchange(bytes(packet))

    def _tiny(self) -> None:
        """Too short for a header, with a right checksum."""
        size = self._rng.randrange(OVERHEAD_BYTES - CRC_BYTES)
        packet = seal((size + CRC_BYTES).to_bytes(2, "little")[:size] + bytes(max(0, size - 2)))
        self.exchange(packet[-self._rng.randint(1, len(packet)) :])

    def _overlong(self) -> None:
        """Right in everything, but longer than a packet may be."""
        size = self.config.packet_bytes + self._rng.choice((1, 2, 300))
        length = self._rng.choice((size, self.config.packet_bytes))
        head = HEADER.pack(length, self._seq, self._session, Opcode.LOAD, 0, 0, 0)
        self.exchange(seal(head + bytes(size - HEADER_BYTES - CRC_BYTES)))
