"""Random packets for an accelerator, each with the response that it must give."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from tritloom.rtl.spec.checks import VECTOR_CHECKS, LayerState, checks_of
from tritloom.rtl.spec.commands import (
    LAYER,
    OPCODE_BITS,
    Opcode,
    Request,
    Response,
    Status,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.requests import define_layer, run_layer
from tritloom.sim.conformance.operands import random_image
from tritloom.sim.verify import requests
from tritloom.sim.verify.exchange import Exchange
from tritloom.sim.verify.pairs import all_pairs, overlapping, pair_of
from tritloom.sim.verify.program_traffic import ProgramTraffic
from tritloom.sim.verify.scale_traffic import ScaleTraffic
from tritloom.sim.verify.shapes import random_shape

__all__ = ["Traffic"]

SMALL_WORDS = 64
OFF_BLOCK = 0.2
"""Share of the DEFINEs and WRITEs that need not begin with a block."""
"""A layer of at most this many words is also filled and committed."""


@dataclass(slots=True)
class _Layer:
    """What the traffic knows of a layer that it has defined."""

    shape: LayerShape
    state: LayerState = LayerState.OPEN


class Traffic(Exchange):
    """Random packets, sound and damaged, each with the response of the reference device.

    Most commands are right and are executed. The others are wrong in one field, out of order, of
    another session, or damaged.

    Parameters
    ----------
    config : the configuration of the device
    seed : of everything random
    words : the layers lie in this many last words of the memory only; all of it if `None`. If it
        is given, programs use the last words of the vector memory only, too.
    tiles : most tiles of a layer; as many as the device takes if `None`

    The members are those of `Exchange`.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        seed: int | str,
        *,
        words: int | None = None,
        tiles: int | None = None,
    ) -> None:
        super().__init__(config, seed)
        self._memory_words = min(words or config.memory_words, config.memory_words)
        self._memory_words = config.stored_words(self._memory_words)
        self._first_word = config.memory_words - self._memory_words
        self._max_tiles = min(tiles or config.max_tiles, config.max_tiles, self._memory_words)
        # Where a block has several words, each layer has a part of the memory of its own.
        self._region = self._memory_words
        if config.align > 1:
            blocks = self._memory_words // config.align // config.max_layers
            self._region = max(1, blocks) * config.align
        self._layers: dict[int, _Layer] = {}
        self._result_groups: dict[int, int] = {}  # row groups of the results in each bank
        self._finite = True  # GET does not fail for the results of the last program
        self._scales = ScaleTraffic(config, self._rng, self._number, self._max_tiles)
        self._programs = None
        if config.vector is not None:
            self._programs = ProgramTraffic(
                config,
                self._rng,
                self._execute,
                self._number,
                self._committed,
                whole=words is None,
            )

    def _forget(self) -> None:
        self._layers.clear()
        self._result_groups.clear()
        self._finite = True

    def _committed(self) -> dict[int, LayerShape]:
        """The shapes of the committed layers, by index."""
        return {index: self._layers[index].shape for index in self._in(LayerState.COMMITTED)}

    def _execute(self, command: Request) -> Response:
        response = super()._execute(command)
        if response.status == Status.OK:
            index = command.index if command.opcode == Opcode.RUN else None
            if command.opcode == Opcode.EXECUTE and self._programs is not None:
                index, self._finite = self._programs.last_run(command.address), True
            if index is not None:
                shape = self._layers[index].shape
                self._result_groups[command.result_bank] = self.config.results_of(shape)
        self._finite &= response.status != Status.NOT_FINITE
        return response

    def image(self, words: int) -> bytes:
        """Words of random trits, some rows of one extreme only; with scales any finite ones."""
        return random_image(self.config, self._rng, words)

    def codes(self, count: int) -> bytes:
        """Activations; some of them the extremes alone."""
        if self._rng.random() < 0.3:
            return self._rng.choice((b"\x80", b"\x7f")) * count
        return self._rng.randbytes(count)

    def layer(self, index: int, base: int, tiles: int, row_groups: int, bank: int = 0) -> None:
        """Define, write and commit a layer of random trits, and load activations for it."""
        shape = LayerShape(tiles, row_groups)
        self._defined(index, self._execute(define_layer(index, base, shape)), shape)
        self._fill(index)
        self.load_all(tiles, bank)

    def load_all(self, tiles: int, bank: int) -> None:
        """Load activations for some tiles, of all tokens, and their scales, to a bank."""
        codes = [self.codes(tiles * self.config.lanes) for _ in range(self.config.tokens)]
        array = np.frombuffer(b"".join(codes), np.int8).reshape(self.config.tokens, -1)
        for request in requests.loads(self.config, array, self._rng, bank):
            self._execute(request)

    def results(self, row_groups: int, bank: int = 0) -> int:
        """Read all results of a bank's last RUN; the cycles that it took."""
        rows = row_groups * self.config.rows
        responses = [
            self._execute(request) for request in requests.results(self.config, rows, bank=bank)
        ]
        assert all(response.status == Status.OK for response in responses)
        return responses[-1].value

    def product(self, index: int, base: int, tiles: int, row_groups: int) -> int:
        """A whole product, in any banks; the cycles that its RUN takes."""
        activations, results = (self._rng.randrange(self.config.banks) for _ in range(2))
        self.layer(index, base, tiles, row_groups, activations)
        self._run_layer(index, self.config.tokens, activations, results)
        return self.results(row_groups, results)

    def empty_product(self, index: int, base: int, tiles: int, row_groups: int) -> int:
        """A RUN with the words in memory, which must be as at power-up; its cycles."""
        shape = LayerShape(tiles, row_groups)
        self._defined(index, self._execute(define_layer(index, base, shape)), shape)
        image = bytes(shape.words * self.config.word_bytes)
        self._commit_layer(index, zlib.crc32(image))
        self._run_layer(index, 1, 0, 0)
        return self._execute(
            Request(Opcode.RESULTS, address=row_groups - 1, count=self.config.rows)
        ).value

    def _run_layer(self, index: int, tokens: int, activations: int, results: int) -> None:
        """A RUN that must succeed, from an activation bank into a result bank."""
        response = self._execute(run_layer(index, tokens, activations, results))
        assert response.status == Status.OK

    def prepare(self) -> None:
        """Write all weight words and activations that `random` can read: memory is unknown."""
        config = self.config
        # Layers of whole blocks leave no word between them.
        tiles = min(config.max_tiles, -(-config.align // config.max_row_groups))
        row_groups = min(self._memory_words // tiles, config.max_row_groups)
        row_groups -= row_groups % max(1, config.align // tiles)
        for first in range(0, self._memory_words, tiles * row_groups):
            count = min(row_groups, (self._memory_words - first) // tiles)
            shape = LayerShape(tiles, count)
            base = self._first_word + first
            self._defined(0, self._execute(define_layer(0, base, shape)), shape)
            self._fill(0)
        for bank in range(self.config.banks):
            self.load_all(self._max_tiles, bank)
        if self._programs is not None:
            self._programs.prepare()

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
            (12, self._overlap),
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
        if self._programs is not None:
            steps += self._programs.steps()
        if self.config.scales_activations:
            steps.append((7, lambda: self._execute(self._scales.any(self._bank()))))
        weights = [weight for weight, _ in steps]
        for _ in range(count):
            (step,) = self._rng.choices([step for _, step in steps], weights)
            step()

    def overlap(self) -> None:
        """Add right commands until each pair of `all_pairs` has come.

        `prepare` or a layer that is committed must precede it.
        """
        while not self.pairs >= all_pairs(self.config):
            self._overlap()

    def _overlap(self) -> None:
        """A few right commands that may overlap; mostly they make pairs that have not come."""
        if not self._in(LayerState.COMMITTED):
            self._define_layer(complete=True)
            return
        if self._programs is not None and not self.reference.committed_steps:
            self._programs.commit()
        banks = range(self.config.banks)
        for _ in range(self._rng.randint(2, 5)):
            commands = [
                Request(opcode, activation_bank=activations, result_bank=results)
                for opcode, activations, results in product(overlapping(self.config), banks, banks)
                if opcode != Opcode.RESULTS or results in self._result_groups
            ]
            last = self._last
            new = [c for c in commands if last and pair_of(last, c) not in self.pairs]
            self._execute(self._right(self._rng.choice(new or commands)))

    def _right(self, command: Request) -> Request:
        """A command with its banks, and with all other fields random and right."""
        config, rng = self.config, self._rng
        if self._programs is not None and command.opcode in VECTOR_CHECKS:
            if not self._finite:
                return self._programs.end()
            right = self._programs.right(Opcode(command.opcode))
            banks = {name: getattr(command, name) for name in ("activation_bank", "result_bank")}
            return replace(right, **banks)
        if command.opcode == Opcode.RUN:
            index = rng.choice(self._in(LayerState.COMMITTED))
            return replace(command, index=index, count=rng.randint(1, config.tokens))
        token = rng.randrange(config.tokens)
        if command.opcode == Opcode.LOAD:
            words = rng.randint(1, self._load_words())
            address = rng.randint(0, self._max_tiles * config.lanes // config.fill - words)
            payload = self.codes(words * config.fill)
            return replace(command, index=token, address=address, payload=payload)
        if command.opcode == Opcode.SCALES:
            return self._scales.right(command.activation_bank)
        row_groups = self._result_groups[command.result_bank]
        address = rng.randrange(row_groups)
        count = rng.randint(1, self._most_results(row_groups - address))
        return replace(command, index=token, address=address, count=count)

    def _load_words(self) -> int:
        """Most words of a LOAD."""
        config = self.config
        room = self._max_tiles * config.lanes // config.fill
        return min(config.max_payload // config.fill, room, 32)

    def _most_results(self, row_groups: int) -> int:
        """Most results of a RESULTS that ends with the last of some row groups."""
        config = self.config
        return min(row_groups * config.rows, config.max_payload // config.acc_bytes)

    def _bank(self) -> int:
        """A bank; seldom one that the device does not have."""
        if self.config.banks == 1:
            return int(self._rng.random() < 0.05)
        return self._rng.randrange(self.config.banks)

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
        most = self._region
        if self._rng.random() < 0.8:
            most = min(most, SMALL_WORDS)
        return random_shape(self.config, self._rng, self._max_tiles, most)

    def _place(self, shape: LayerShape, index: int) -> int:
        """The first word of a layer; where there are blocks, in the part of memory of its index.

        There no WRITE clears the rest of a line in another layer, whose sums would be unspecified.
        """
        first, most = self._first_word, self._memory_words
        if self.config.align > 1:
            if index >= self._memory_words // self._region:
                return self.config.memory_words  # there is no such part, so DEFINE fails
            first, most = first + index * self._region, self._region
        base = first + self._rng.randint(0, most - shape.words)
        return base - base % self.config.align

    def _define_layer(self, complete: bool) -> None:
        """Define a layer that is right in all fields, and perhaps commit it."""
        layers = min(self.config.max_layers, self._memory_words // self._region)
        if self.config.align == 1:
            layers = self.config.max_layers
        index, shape = self._rng.randrange(layers), self._shape()
        request = define_layer(index, self._place(shape, index), shape)
        self._defined(index, self._execute(request), shape)
        if complete and shape.words <= SMALL_WORDS:
            self._fill(index)
            if self._rng.random() < 0.5:
                self.load_all(shape.tiles, self._rng.randrange(self.config.banks))

    def _define(self) -> None:
        if self._rng.random() < 0.6:
            self._define_layer(complete=self._rng.random() < 0.7)
            return
        config, shape = self.config, self._shape()
        index = self._number(0, config.max_layers - 1, 8)
        base = self._place(shape, index)
        tiles, row_groups, group_tiles = shape.tiles, shape.row_groups, shape.group_tiles
        if self._off_block():
            base += self._rng.randrange(config.align)
        match self._rng.randrange(5 if not config.has_groups else 6):
            case 0:
                base = self._beyond(config.memory_words - shape.words, 32)
            case 1:
                tiles = self._rng.choice((0, self._beyond(config.max_tiles, 16)))
            case 2:
                row_groups = self._rng.choice((0, self._beyond(config.max_row_groups, 32)))
            case 5:
                group_tiles = self._rng.choice((1, self._beyond(config.most_group_tiles, 16)))
            case _:
                pass
        payload = LAYER.pack(base, tiles, row_groups)
        if self._rng.random() < 0.2:
            size = self._rng.randrange(LAYER.size + 1)
            payload = payload[:size] + bytes(self._rng.randrange(3))
        response = self.command(Opcode.DEFINE, index=index, count=group_tiles, payload=payload)
        if response.status == Status.OK:  # the payload may have been cut and filled up
            _, tiles, row_groups = LAYER.unpack(payload)
        self._defined(index, response, LayerShape(tiles, row_groups, group_tiles))

    def _off_block(self) -> bool:
        """Whether to disregard blocks of words, if there are any."""
        return self.config.align > 1 and self._rng.random() < OFF_BLOCK

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
        align = self.config.align
        most = min(self.config.max_payload // self.config.word_bytes, 8 * align, self._words(index))
        words = self._rng.randint(0, most)
        payload = self.image(words) if words else b""
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        address = self._number(0, self._words(index) - words, 32)
        if align > 1 and not self._off_block():
            address -= address % align
            if address + words < self._words(index):
                payload = payload[: words // align * align * self.config.word_bytes]
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
        right = self.reference.holds_trits(index)
        if response.status == Status.BAD_CHECKSUM and right and self._rng.random() < 0.7:
            self._commit_layer(index, response.value)

    def _load(self) -> None:
        config = self.config
        words = self._rng.randint(0, self._load_words())
        payload = self.codes(words * config.fill)
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        self.command(
            Opcode.LOAD,
            index=self._number(0, config.tokens - 1, 8),
            address=self._number(0, config.activation_words - words, 32),
            payload=payload,
            activation_bank=self._bank(),
        )

    def _run(self) -> None:
        index = self._index(LayerState.COMMITTED)
        count = self._number(1, self.config.tokens, 16)
        self._execute(run_layer(index, count, self._bank(), self._bank()))

    def _results(self) -> None:
        config = self.config
        if not self._result_groups and self._rng.random() < 0.9:
            self._run()
        bank = self._bank()
        if bank not in self._result_groups and self._rng.random() < 0.8:
            bank = next(iter(self._result_groups), bank)
        row_groups = self._result_groups.get(bank, 1)
        address = self._number(0, row_groups - 1, 32)
        self.command(
            Opcode.RESULTS,
            index=self._number(0, config.tokens - 1, 8),
            address=address,
            count=self._number(1, self._most_results(row_groups - address), 16),
            result_bank=bank,
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
        most = (1 << OPCODE_BITS) - 1
        high = 1 << self._rng.randrange(4, OPCODE_BITS)
        following = max(checks_of(self.config)) + 1
        opcode = self._rng.choice((0, following, most, Opcode.IDENTIFY | high))
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        self.command(opcode, payload=payload)
