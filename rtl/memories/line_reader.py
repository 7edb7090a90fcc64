"""From the beats of lines to weight words: the gearbox."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.line_contract import beat_layout, void_word_layout
from tritloom.rtl.memories.line_facts import LineFormat

__all__ = ["LineReader", "words_layout"]


def words_layout(line_format: LineFormat) -> data.StructLayout:
    """What a range of words is in the beats that are read for it.

    Members
    -------
    skip : words of the first block before the range
    words : of the range, at least 1
    beats : of the range's lines, at least 1
    """
    return data.StructLayout(
        {
            "skip": range(line_format.block_words),
            "words": bits_for(line_format.words),
            "beats": bits_for(line_format.lines * line_format.line_beats),
        }
    )


class LineReader(wiring.Component):
    """Takes beats and gives the words of ranges.

    A word comes in every cycle in which its last beat comes; if a beat has several words, in every
    cycle. The word is at `o` `latency` cycles later. Ranges follow each other without a pause if
    words are as long as beats or longer.

    If words share lines (`block_words` > 1), the beats before and behind a range's words are taken
    and dropped: `i_range` says how many. Else beats and words correspond, and `i_range` is unused.

    Members
    -------
    i_range : in, stream of `words_layout`; a range waits here until the range before has its beats
    i : in, stream of `beat_layout`
    o : out, stream of `void_word_layout`
    """

    i_range: stream.Interface
    i: stream.Interface
    o: stream.Interface

    def __init__(self, line_format: LineFormat) -> None:
        self.format = line_format
        super().__init__(
            {
                "i_range": In(stream.Signature(words_layout(line_format))),
                "i": In(stream.Signature(beat_layout(line_format))),
                "o": Out(stream.Signature(void_word_layout(line_format))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = self.format
        m.submodules.output = output = StreamRegister(void_word_layout(sizes))
        connect(m, output.o, flipped(self.o))
        if sizes.word_bits == sizes.beat_bits == sizes.line_bits:
            m.d.comb += [
                output.i.valid.eq(self.i.valid),
                output.i.payload.word.eq(self.i.payload.data),
                output.i.payload.error.eq(self.i.payload.error),
                self.i.ready.eq(output.i.ready),
            ]
        elif sizes.word_bits % sizes.beat_bits == 0:
            self._join(m, output.i, _Progress(m, self))
        elif sizes.word_bits > sizes.beat_bits:
            self._shift_in(m, output.i, _Progress(m, self))
        else:
            self._shift_out(m, output.i, _Progress(m, self))
        return m

    def _join(self, m: Module, o: stream.Interface, progress: "_Progress") -> None:
        """Words of whole beats: each beat enters at the top of a register."""
        sizes = self.format
        count = sizes.word_bits // sizes.beat_bits
        held = Signal(sizes.word_bits - sizes.beat_bits, reset_less=True)
        void = Signal()  # a beat of the word was void
        place = Signal(range(count))  # of the beat in its word
        completes = place == count - 1
        beat = self.i.payload
        word = Cat(held, beat.data)
        m.d.comb += [
            o.valid.eq(self.i.valid & progress.active & completes & progress.sends),
            o.payload.word.eq(word),
            o.payload.error.eq(void | beat.error),
            self.i.ready.eq(progress.active & (~(completes & progress.sends) | o.ready)),
        ]
        with m.If(self.i.valid & self.i.ready):
            progress.take_beat()
            m.d.sync += [
                held.eq(word[sizes.beat_bits :]),
                place.eq(place + 1),
                void.eq(void | beat.error),
            ]
            with m.If(completes):
                progress.take_word()
            with m.If(completes | progress.last_beat):
                m.d.sync += [place.eq(0), void.eq(0)]

    def _shift_in(self, m: Module, o: stream.Interface, progress: "_Progress") -> None:
        """Words longer than a beat: each beat is moved to its place in the word, and over its end.

        The shifter has a cycle of its own.
        """
        sizes = self.format
        unit = sizes.word_bits // sizes.block_lines
        step, end = sizes.beat_bits // unit, sizes.block_lines
        place = Signal(range(end))  # where the beat begins in the word, in units
        beyond = Signal(range(end + step))  # where it ends
        completes = Signal()
        moved = data.StructLayout(
            {
                "bits": sizes.word_bits + sizes.beat_bits - unit,
                "error": 1,
                "completes": 1,  # its word is complete
                "straddles": 1,  # it is in the next word too
                "sends": 1,  # the word is sent
                "last": 1,  # the next beat begins a block
            }
        )
        stage = Signal(moved, reset_less=True)
        valid = Signal()
        free = Signal()
        beat = self.i.payload
        m.d.comb += [
            beyond.eq(place + step),
            completes.eq(beyond >= end),
            free.eq(~valid | ~stage.sends | o.ready),
            self.i.ready.eq(progress.active & free),
        ]
        with m.If(free):
            m.d.sync += [
                valid.eq(self.i.valid & progress.active),
                stage.bits.eq(beat.data << _bits_of(place, unit)),
                stage.error.eq(beat.error),
                stage.completes.eq(completes),
                stage.straddles.eq(beyond > end),
                stage.sends.eq(completes & progress.sends),
                stage.last.eq(progress.last_beat),
            ]
        with m.If(self.i.valid & self.i.ready):
            progress.take_beat()
            m.d.sync += place.eq(Mux(completes, beyond - end, beyond))
            with m.If(completes):
                progress.take_word()
            with m.If(progress.last_beat):
                m.d.sync += place.eq(0)

        held = Signal(sizes.word_bits)  # the bits of the next word that have come
        void = Signal()  # some of these are void
        word = held | stage.bits[: sizes.word_bits]
        m.d.comb += [
            o.valid.eq(valid & stage.sends),
            o.payload.word.eq(word),
            o.payload.error.eq(void | stage.error),
        ]
        with m.If(valid & free):
            m.d.sync += [held.eq(word), void.eq(void | stage.error)]
            with m.If(stage.completes):
                m.d.sync += [
                    held.eq(stage.bits[sizes.word_bits :]),
                    void.eq(stage.straddles & stage.error),
                ]
            with m.If(stage.last):
                m.d.sync += [held.eq(0), void.eq(0)]

    def _shift_out(self, m: Module, o: stream.Interface, progress: "_Progress") -> None:
        """Words shorter than a beat: each is taken from a beat or, over its end, from two."""
        sizes = self.format
        unit = sizes.word_bits // sizes.block_lines
        step, end = sizes.word_bits // unit, sizes.beat_bits // unit
        beat = Signal(beat_layout(sizes), reset_less=True)
        full = Signal()  # `beat` holds a beat
        place = Signal(range(end))  # where the word begins in it, in units
        beyond = Signal(range(end + step))  # where the word ends
        straddles = Signal()  # the word ends in the next beat
        void = beat.error
        word = beat.data
        if end % step:
            word = Cat(word, self.i.payload.data)
            void = void | (straddles & self.i.payload.error)
        useless = Signal()  # no word of the range begins in the rest of the beat
        goes = Signal()  # a word is sent or skipped
        leaves = Signal()  # the beat is not needed any more
        busy = Signal()
        m.d.comb += [
            busy.eq(progress.active & full),
            beyond.eq(place + step),
            straddles.eq(beyond > end),
            useless.eq(~progress.more | (straddles & progress.last_beat)),
            goes.eq(busy & ~useless & (~straddles | self.i.valid) & (~progress.sends | o.ready)),
            leaves.eq(
                (busy & useless)
                | (goes & ((beyond >= end) | (progress.sends & progress.last_word)))
            ),
            o.valid.eq(busy & ~useless & (~straddles | self.i.valid) & progress.sends),
            o.payload.word.eq(word.bit_select(_bits_of(place, unit), sizes.word_bits)),
            o.payload.error.eq(void),
            self.i.ready.eq(~full | leaves),
        ]
        with m.If(self.i.ready):
            m.d.sync += [beat.eq(self.i.payload), full.eq(self.i.valid)]
        with m.If(goes):
            progress.take_word()
            m.d.sync += place.eq(Mux(beyond >= end, beyond - end, beyond))
        with m.If(leaves):
            progress.take_beat()
            with m.If(progress.last_beat):
                m.d.sync += place.eq(0)


def _bits_of(units: Value, unit: int) -> Value:
    """A number of units, of a power of two of bits each, as a number of bits."""
    return Cat(Const(0, unit.bit_length() - 1), units)


class _Progress:
    """Where the beats and words that are taken lie in their range.

    Members
    -------
    active : there is a range
    more : words of the range are still to come
    sends : the next word is one of them, and none that is skipped
    last_word : it is the last one
    last_beat : the next beat is the range's last one
    """

    def __init__(self, m: Module, reader: LineReader) -> None:
        sizes = reader.format
        self._m = m
        self._shares = sizes.block_words > 1
        self.active: Value = Signal(name="active")
        self.more: Value = Signal(name="more")
        self.sends: Value = Signal(name="sends")
        self.last_word: Value = Signal(name="last_word")
        self.last_beat: Value = Signal(name="last_beat")
        if not self._shares:
            # Every beat belongs to a word, and no range is looked at.
            m.d.comb += [self.active.eq(1), self.more.eq(1), self.sends.eq(1)]
            return
        rest = Signal(words_layout(sizes), name="rest", reset_less=True)
        self._word = Signal(name="takes_word")
        self._beat = Signal(name="takes_beat")
        loads = Signal(name="loads")
        # Wide numbers are compared a cycle ahead.
        m.d.comb += [
            self.sends.eq(self.more & (rest.skip == 0)),
            loads.eq(~self.active | (self._beat & self.last_beat)),
            reader.i_range.ready.eq(loads),
        ]
        with m.If(self._word):
            with m.If(rest.skip != 0):
                m.d.sync += rest.skip.eq(rest.skip - 1)
            with m.Else():
                m.d.sync += [
                    rest.words.eq(rest.words - 1),
                    self.last_word.eq(rest.words == 2),
                ]
                with m.If(self.last_word):
                    m.d.sync += self.more.eq(0)
        with m.If(self._beat):
            m.d.sync += [rest.beats.eq(rest.beats - 1), self.last_beat.eq(rest.beats == 2)]
        with m.If(loads):
            asked = reader.i_range.payload
            m.d.sync += [
                self.active.eq(reader.i_range.valid),
                rest.eq(asked),
                self.more.eq(1),
                self.last_word.eq(asked.words == 1),
                self.last_beat.eq(asked.beats == 1),
            ]

    def take_word(self) -> None:
        """The next word is complete in this cycle."""
        if self._shares:
            self._m.d.comb += self._word.eq(1)

    def take_beat(self) -> None:
        """The next beat is taken in this cycle."""
        if self._shares:
            self._m.d.comb += self._beat.eq(1)
