"""Words in and out: bytes of a command's payload to words, words to bytes of a response."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.spec.config import AcceleratorConfig


class WordRegister(wiring.Component):
    """A register that collects a word from bytes or sends a word as bytes, low byte first.

    One register serves both directions, because a command moves its words in one of them only.

    Parameters
    ----------
    word_bytes : bytes of the register, at least those of the longest word

    Members
    -------
    word : out, 8 × `word_bytes` bits
        The register. A collected word is in its top `size` bytes.
    size : in, number
        Bytes of the words that are collected.
    clear : in, 1 bit
        No byte is collected, from the next cycle on.
    enter : in, 1 bit
        `byte` enters at the top at the end of this cycle, and the other bytes move down.
    byte : in, 8 bits
        The byte that enters.
    complete : out, 1 bit
        `size` bytes are collected.
    partial : out, 1 bit
        At least one byte is collected.
    load : in, 1 bit
        `new_word` becomes the register's content and `new_size` the bytes to send.
    new_word : in, 8 × `word_bytes` bits
        A word to send.
    new_size : in, number
        Its bytes, at least 1.
    leave : in, 1 bit
        The lowest byte of `word` leaves at the end of this cycle, and the other bytes move down.
    last : out, 1 bit
        The lowest byte of `word` is the last one to send.
    """

    word: Signal
    size: Signal
    clear: Signal
    enter: Signal
    byte: Signal
    complete: Signal
    partial: Signal
    load: Signal
    new_word: Signal
    new_size: Signal
    leave: Signal
    last: Signal

    def __init__(self, word_bytes: int) -> None:
        self.word_bytes = word_bytes
        size = range(word_bytes + 1)
        super().__init__(
            {
                "word": Out(8 * word_bytes),
                "size": In(size),
                "clear": In(1),
                "enter": In(1),
                "byte": In(8),
                "complete": Out(1),
                "partial": Out(1),
                "load": In(1),
                "new_word": In(8 * word_bytes),
                "new_size": In(size),
                "leave": In(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal(8 * self.word_bytes, reset_less=True)
        collected = Signal(range(self.word_bytes + 1))
        bytes_left = Signal(range(self.word_bytes + 1))
        m.d.comb += [
            self.word.eq(word),
            self.complete.eq(collected == self.size),
            self.partial.eq(collected != 0),
            self.last.eq(bytes_left == 1),
        ]
        with m.If(self.enter):
            m.d.sync += [word.eq(Cat(word[8:], self.byte)), collected.eq(collected + 1)]
        with m.If(self.clear):
            m.d.sync += collected.eq(0)
        with m.If(self.load):
            m.d.sync += [word.eq(self.new_word), bytes_left.eq(self.new_size)]
        with m.If(self.leave):
            m.d.sync += [word.eq(word >> 8), bytes_left.eq(bytes_left - 1)]
        return m


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
    return Cat(results), Mux(count <= config.rows, sizes[rest], config.rows * config.acc_bytes)
