# amaranth: UnusedElaboratable=no
"""The contract of every model of a memory chip.

A model stands for the chip at the pads of a weight memory. It follows the chip's data sheet and
knows nothing of the memory's own logic. A record names its model as `Memory.model`.

* Its members are the memory's pads under the same names, in the other direction.
* A memory with a clock of its own has its model in the domain of that clock. The model's logic is
  in `sync` all the same; what surrounds it moves it there.
* `violation` is not 0 in a cycle in which the memory breaks a rule of the chip. The simulated FPGA
  stops at that cycle and names the rule.
* A model keeps no content of its own beyond a few words: a memory of tens of megabytes would take
  minutes to compile. It asks for stores instead, which the simulation keeps outside of the design.
  Likewise it may ask for a DRAM's time, `DramPort`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.line_facts import LineRecord
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.models.dram import DramPort

__all__ = ["VIOLATION_BITS", "MemoryModel", "Store", "StoreSignature", "create_model"]

VIOLATION_BITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A port to words that the simulation keeps for a model.

    Parameters
    ----------
    words : how many words there are
    bits : bits of a word, a multiple of 8
    of : number of the store whose words this port shares; None for words of its own
    """

    words: int
    bits: int
    of: int | None = None


class StoreSignature(wiring.Signature):
    """A model's port to a store.

    Members
    -------
    address : out; the word that is read, and written where `write` says so
    write : out, a bit for each byte; this byte of `data` is written
    data : out, the bytes to write
    word : in; what the word had held, before any write of the same cycle, one cycle later
    """

    def __init__(self, store: Store) -> None:
        super().__init__(
            {
                "address": Out(bits_for(store.words - 1)),
                "write": Out(store.bits // 8),
                "data": Out(store.bits),
                "word": In(store.bits),
            }
        )


class MemoryModel(wiring.Component):
    """Base of every model; a subclass adds `elaborate` and the options of its constructor.

    Parameters
    ----------
    config : the accelerator's configuration
    pads : the memory's pads in the other direction
    stores : the words that the simulation keeps for the model; two ports may share their words
    dram_ports, dram_numbers : ports of a DRAM whose time the simulation tells, and the numbers of
        `DramTiming.numbers`; without numbers there is no DRAM

    Members
    -------
    the memory's pads : under the same names
    violation : 8 bits out; 0, or the number in `RULES` of the rule that is broken in this cycle
    store_0, store_1, … : a `StoreSignature` for each of the stores
    dram_0, dram_1, … : a `DramPort` for each port of the DRAM
    """

    RULES: ClassVar[Mapping[int, str]] = {}
    """What a memory must keep, by its number from 1; the text follows "the memory breaks"."""

    violation: Any

    def __init__(
        self,
        config: AcceleratorConfig,
        pads: dict[str, Member],
        stores: tuple[Store, ...],
        *,
        dram_ports: int = 0,
        dram_numbers: Mapping[str, int] | None = None,
    ) -> None:
        self.config = config
        self.stores = stores
        self.dram_numbers = dram_numbers
        self.dram_ports = 0 if dram_numbers is None else dram_ports
        super().__init__({**pads, **self.outer_ports()})

    def outer_ports(self) -> dict[str, Member]:
        """The members that are no pads."""
        stores = {f"store_{n}": Out(StoreSignature(store)) for n, store in enumerate(self.stores)}
        drams = {f"dram_{n}": Out(DramPort()) for n in range(self.dram_ports)}
        return {**stores, **drams, "violation": Out(VIOLATION_BITS)}

    def contents(self, base: int, image: bytes) -> list[tuple[int, bytes]]:
        """What the stores hold when weight words have been written, for memories of lines.

        A line is split evenly between the stores that have words of their own, the lowest bits
        first. That is how a model of ports side by side keeps it, and a model of a single chip.

        Parameters
        ----------
        base : first word, which begins a block
        image : words of `word_bytes` bytes each, as `pack_weights` makes them

        Returns
        -------
        list[tuple[int, bytes]]
            For each of these stores the first byte, and the bytes.

        Raises
        ------
        InputError : the memory moves no lines, or the words begin within a block
        """
        record, config = self.config.memory, self.config
        if not isinstance(record, LineRecord):
            raise InputError(f"memory {record.name!r} moves no lines; load its words")
        sizes = record.line_format(config)
        if base % sizes.block_words:
            raise InputError(f"base must be a multiple of {sizes.block_words} words, not {base}")
        words = np.frombuffer(image, np.uint8).reshape(-1, config.word_bytes)
        if config.word_bits == 8 * config.word_bytes:
            packed = words.reshape(-1)
        else:
            bits = np.unpackbits(words, axis=1, bitorder="little", count=config.word_bits)
            packed = np.packbits(bits.reshape(-1), bitorder="little")
        owners = [number for number, store in enumerate(self.stores) if store.of is None]
        line_bytes = sizes.line_bits // 8
        first, count = sizes.range_lines(base, len(words))
        lines = np.zeros(count * line_bytes, np.uint8)
        lines[: packed.size] = packed
        parts = lines.reshape(count, len(owners), -1)
        start = first * parts.shape[2]
        return [(start, parts[:, number].tobytes()) for number in range(len(owners))]


def create_model(
    config: AcceleratorConfig, pads: Mapping[str, Member], options: Mapping[str, Any]
) -> MemoryModel:
    """The model of a configuration's memory.

    Parameters
    ----------
    config : names the memory
    pads : the memory's pads
    options : keyword arguments of the model's constructor

    Raises
    ------
    ConfigError : the memory has no model, the component does not import or is no `MemoryModel`, an
        option is unknown, or the model lacks one of the pads
    """
    path = config.memory.model
    name = config.memory.name
    if not path:
        raise ConfigError(f"memory {name!r} has no model to simulate")
    component = load_component(path)
    if not (isinstance(component, type) and issubclass(component, MemoryModel)):
        raise ConfigError(f"memory {name!r}: {path} is not a MemoryModel")
    try:
        inspect.signature(component).bind(config, **options)
    except TypeError as error:
        raise ConfigError(f"memory {name!r}: options of its model: {error}") from None
    model = component(config, **options)
    for pad, member in pads.items():
        if not _faces(model.signature.members.get(pad), member):
            raise ConfigError(
                f"memory {name!r}: its model must have the pad {pad} in the other direction"
            )
    return model


def _faces(outer: Member | None, pad: Member) -> bool:
    """Whether a model's member can be wired to a pad."""
    if outer is None or outer.flow == pad.flow or outer.is_signature != pad.is_signature:
        return False
    if pad.is_signature:
        return bool(outer.signature == pad.signature)
    return bool(Shape.cast(outer.shape) == Shape.cast(pad.shape))
