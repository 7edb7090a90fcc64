"""Words in and out: bytes of a command's payload to words, words to beats of a response."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig


class WordCollector(wiring.Component):
    """Collects words from bytes, low byte first; a byte a cycle, without a pause between words.

    Parameters
    ----------
    word_bytes : bytes of the longest word

    Members
    -------
    size : in, number
        Bytes of the words, at least 1.
    clear : in, 1 bit
        No byte is collected, from the next cycle on.
    enter : in, 1 bit
        `byte` enters at the top at the end of this cycle, and the other bytes move down. Not
        allowed while a complete word is not taken in the same cycle.
    byte : in, 8 bits
        The byte that enters.
    complete : out, 1 bit
        `word` is complete.
    partial : out, 1 bit
        At least one byte of a word that is not complete has come.
    take : in, 1 bit
        The complete word is taken at the end of this cycle.
    word : out, 8 × `word_bytes` bits
        The register. A complete word is in its top `size` bytes.
    """

    size: Signal
    clear: Signal
    enter: Signal
    byte: Signal
    complete: Signal
    partial: Signal
    take: Signal
    word: Signal

    def __init__(self, word_bytes: int) -> None:
        self.word_bytes = word_bytes
        super().__init__(
            {
                "size": In(range(word_bytes + 1)),
                "clear": In(1),
                "enter": In(1),
                "byte": In(8),
                "complete": Out(1),
                "partial": Out(1),
                "take": In(1),
                "word": Out(8 * word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal(8 * self.word_bytes, reset_less=True)
        count = Signal(range(self.word_bytes + 1))  # bytes of the word that is not complete
        m.d.comb += [self.word.eq(word), self.partial.eq(count != 0)]
        with m.If(self.take):
            m.d.sync += self.complete.eq(0)
        with m.If(self.enter):
            last = count + 1 == self.size
            m.d.sync += [
                word.eq(Cat(word[8:], self.byte)),
                count.eq(Mux(last, 0, count + 1)),
                self.complete.eq(last),
            ]
        with m.If(self.clear):
            m.d.sync += [count.eq(0), self.complete.eq(0)]
        return m


class WordSplitter(wiring.Component):
    """Sends words as beats of some bytes, one word's bytes after the other's, low byte first.

    A word is taken in the cycle in which the last bytes before it leave or in which less than a
    beat of them is left. So words of at least a beat leave almost a beat a cycle.

    Parameters
    ----------
    word_bytes : bytes of the longest word
    beat_bytes : bytes of a beat: 1, 2, 4 or 8

    Members
    -------
    i : in, stream of words and their sizes in bytes, at least 1
    flush : in, 1 bit
        No word comes any more: a beat that is not full may leave.
    o : out, stream of beats
        Above its `size` bytes, a beat that is not full holds anything.
    empty : out, 1 bit
        No byte is left.
    """

    i: stream.Interface
    flush: Signal
    o: stream.Interface
    empty: Signal

    def __init__(self, word_bytes: int, beat_bytes: int) -> None:
        self.word_bytes = word_bytes
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(word_bytes))),
                "flush": In(1),
                "o": Out(stream.Signature(beat_layout(beat_bytes))),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.beat_bytes
        held = Signal(8 * (self.word_bytes + beat - 1), reset_less=True)
        count = Signal(bits_for(self.word_bytes + beat - 1))  # bytes in `held`
        low = count[: (beat - 1).bit_length()]  # where a word enters
        full = Signal()  # at least one beat
        sends = Signal()
        m.d.comb += [
            full.eq(count >= beat),
            self.empty.eq(count == 0),
            self.o.valid.eq(full | (self.flush & ~self.empty)),
            self.o.payload.data.eq(held),
            self.o.payload.size.eq(Mux(full, beat, count)),
            sends.eq(self.o.valid & self.o.ready),
            self.i.ready.eq((count < beat) | ((count == beat) & sends)),
        ]
        with m.If(self.i.valid & self.i.ready):
            word, size = self.i.payload.word, self.i.payload.size
            m.d.sync += [held.eq(word), count.eq(size)]
            if beat > 1:
                # `count` is less than a beat, or exactly one, which leaves: `low` is 0 then.
                rest = held[: 8 * (beat - 1)]
                kept = Array(rest & ((1 << 8 * n) - 1) for n in range(beat))[low]
                places = Array(word << 8 * n for n in range(beat))
                m.d.sync += [held.eq(places[low] | kept), count.eq(size + low)]
        with m.Elif(sends):
            m.d.sync += [held.eq(held >> 8 * beat), count.eq(Mux(full, count - beat, 0))]
        return m


def word_layout(word_bytes: int) -> data.StructLayout:
    """A word of up to `word_bytes` bytes, and its size; the bytes above can be anything."""
    return data.StructLayout({"word": 8 * word_bytes, "size": range(word_bytes + 1)})


def beat_layout(beat_bytes: int) -> data.StructLayout:
    """A beat, and how many of its bytes count, from the lowest on."""
    return data.StructLayout({"data": 8 * beat_bytes, "size": range(beat_bytes + 1)})


def activations_in(config: AcceleratorConfig, word: Value) -> Value:
    """The activations in a collected word of `fill` bytes: the low bits of each byte."""
    collected = word[-8 * config.fill :]
    return Cat(collected.word_select(n, 8)[: config.act_bits] for n in range(config.fill))


def results_out(
    config: AcceleratorConfig, sums: data.View, token: Value, count: Value
) -> tuple[Value, Value]:
    """The word of a row group's results for one token, and its size.

    Parameters
    ----------
    config : the accelerator's configuration
    sums : the totals of a row group, `sums_layout`
    token : whose totals are sent
    count : results that are still asked for, at least 1

    Returns
    -------
    The results of all rows, `acc_bytes` signed bytes each, and the bytes of those that are sent: at
    most `count` results.
    """
    results = []
    for row in range(config.rows):
        tokens = Array(sums[number * config.rows + row] for number in range(config.tokens))
        result = tokens[token]
        sign = result[-1].replicate(8 * config.acc_bytes - len(result))
        results.append(Cat(result, sign))
    sizes = Array(config.acc_bytes * number for number in range(config.rows + 1))
    rest = count[: config.rows.bit_length()]
    return Cat(results), Mux(count < config.rows, sizes[rest], config.rows * config.acc_bytes)
