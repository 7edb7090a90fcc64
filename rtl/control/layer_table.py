"""The layer table: place, shape and state of each resident layer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.control.checks import rest_of_block
from tritloom.rtl.control.layouts import DEFINITION
from tritloom.rtl.core.core import shape_layout
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig


def entry_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What the table holds of a layer: its first word, number of words, shape and state."""
    return data.StructLayout(
        {
            "base": bits_for(config.memory_words),
            "words": bits_for(config.memory_words),
            **shape_layout(config).members,
            "defined": 1,
            "committed": 1,
        }
    )


class LayerTable(wiring.Component):
    """Holds one entry for each layer, in a block RAM.

    The number of a layer's words is tiles × row groups. It is added up one tile a cycle, so no
    multiplier is needed: `begin`, then `add` once for each tile, then `define`. Its row groups of
    sums are added up in the same way, once for each group of inputs.

    At most one of `forget`, `define` and `commit` is set in a cycle.

    Members
    -------
    index : in, number
        The layer that all other members are about.
    entry : out, `entry_layout`
        The entry of the layer that `index` named `AcceleratorConfig.entry_cycles` before.
    definition : in, `DEFINITION`
        Place and shape for `begin`, `add` and `define`; must not change between them.
    group_tiles : in, number
        Tiles of a group of inputs, at most `most_group_tiles`, or 0; must not change, as
        `definition`. Only if the configuration has groups.
    wrong_shape : out, 1 bit
        `definition` has no or too many tiles or row groups, or begins beyond the memory's end or
        within a block.
    begin : in, 1 bit
        The layer's end becomes its base, at the end of this cycle.
    add : in, 1 bit
        The layer's end moves on by the words of one tile. Allowed while `beyond` is not set.
    beyond : out, 1 bit
        The layer's end lies beyond the memory's, or its sums exceed a result bank.
    define : in, 1 bit
        The layer becomes defined and open, with `definition` and the end that was added up.
    commit : in, 1 bit
        The layer becomes committed; `entry` must be the layer's.
    forget : in, 1 bit
        The layer becomes undefined.
    """

    index: Signal
    entry: data.View
    definition: data.View
    wrong_shape: Signal
    begin: Signal
    add: Signal
    beyond: Signal
    define: Signal
    commit: Signal
    forget: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "index": In(8),
                "entry": Out(entry_layout(config)),
                "definition": In(DEFINITION),
                **({"group_tiles": In(16)} if config.has_groups else {}),
                "wrong_shape": Out(1),
                "begin": In(1),
                "add": In(1),
                "beyond": Out(1),
                "define": In(1),
                "commit": In(1),
                "forget": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.entries = entries = block_ram(self.entry.shape(), config.max_layers)
        write = entries.write_port()
        read = ReadPort(m, entries)
        entry = read.data
        if config.entry_cycles == 2:
            entry = Signal(self.entry.shape(), reset_less=True)
            m.d.sync += entry.eq(read.data)
        definition = self.definition
        # Only as many bits as the limits have; the bits above are none.
        tiles = definition.tiles[: config.max_tiles.bit_length()]
        row_groups = definition.row_groups[: config.max_row_groups.bit_length()]
        base = definition.base[: config.memory_words.bit_length()]
        last_tile, last_group = Signal(len(tiles)), Signal(len(row_groups))
        wrong_base = base > config.memory_words
        if config.align > 1:
            wrong_base |= rest_of_block(config, base).any()
        # Big enough for the first sum that is beyond the memory's end.
        end = Signal(range(config.memory_words + config.max_row_groups + 1))
        m.d.comb += [
            read.addr.eq(self.index),
            self.entry.eq(entry),
            write.addr.eq(self.index),
            write.en.eq(self.define | self.commit | self.forget),
            write.data.eq(entry),
            last_tile.eq(tiles - 1),
            last_group.eq(row_groups - 1),
            # A number of 0 is too high as well: 0 − 1 is the highest number.
            self.wrong_shape.eq(
                (last_tile >= config.max_tiles)
                | (last_group >= config.max_row_groups)
                | wrong_base
                | Cat(
                    definition.tiles[len(tiles) :],
                    definition.row_groups[len(row_groups) :],
                    definition.base[len(base) :],
                ).any()
            ),
            self.beyond.eq(end > config.memory_words),
        ]
        with m.If(self.begin):
            m.d.sync += end.eq(base)
        with m.Elif(self.add):
            m.d.sync += end.eq(end + row_groups)
        # All ones for 0: no tile but perhaps the layer's last one has this number. With scales, 0
        # is the longest group.
        last_of_group = Signal(range(config.max_tiles))
        if config.has_groups:
            group_tiles: Any = getattr(self, "group_tiles")  # noqa: B009  a member with groups
            m.d.comb += last_of_group.eq(group_tiles - 1)
            with m.If(self.define):
                m.d.comb += write.data.last_of_group.eq(last_of_group)
        if config.scale is not None:
            with m.If(group_tiles == 0):
                m.d.comb += last_of_group.eq(config.most_group_tiles - 1)
        if config.max_group_sums:
            self._count_sums(m, write.data, row_groups, last_of_group)
        with m.If(self.define):
            m.d.comb += [
                write.data.base.eq(base),
                write.data.words.eq(end - base),
                write.data.last_tile.eq(last_tile),
                write.data.last_group.eq(last_group),
                write.data.defined.eq(1),
                write.data.committed.eq(0),
            ]
        with m.Elif(self.commit):
            m.d.comb += write.data.committed.eq(1)
        with m.Elif(self.forget):
            m.d.comb += write.data.eq(0)
        return m

    def _count_sums(
        self, m: Module, entry: data.View, row_groups: Value, last_of_group: Value
    ) -> None:
        """Add up the row groups of sums, and put what concerns groups into a new entry."""
        config = self.config
        sums = Signal(range(config.result_row_groups + config.max_row_groups + 1))
        place = Signal(range(config.max_tiles))  # of the next tile in its group
        with m.If(self.begin):
            m.d.sync += [sums.eq(0), place.eq(0)]
        with m.Elif(self.add):
            m.d.sync += place.eq(Mux(place == last_of_group, 0, place + 1))
            with m.If(place == 0):
                m.d.sync += sums.eq(sums + row_groups)
        with m.If(sums > config.result_row_groups):
            m.d.comb += self.beyond.eq(1)
        with m.If(self.define):
            m.d.comb += entry.last_result.eq(sums - 1)
