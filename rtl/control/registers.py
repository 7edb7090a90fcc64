"""The registers of the command processor: those of the session and those of one command."""

from amaranth.hdl import Array, Signal
from amaranth.lib import data

from tritloom.rtl.control.layouts import COUNTER_BITS, REQUEST, RESPONSE
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.commands import HEADER_BYTES, LAYER, identity
from tritloom.rtl.spec.config import AcceleratorConfig


def result_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What is known of a result bank.

    Members
    -------
    present : a RUN of this session wrote the bank
    last_group : the RUN's last row group
    cycles : cycles that the RUN took
    """
    return data.StructLayout(
        {"present": 1, "last_group": range(config.max_row_groups), "cycles": 32}
    )


class CommandRegisters:
    """The registers, with widths that follow from the configuration."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config

        # RESULTS reads the totals of the last RUN of the session in a bank.
        self.banks = Array(
            Signal(result_layout(config), name=f"results_{bank}") for bank in range(config.banks)
        )

        # The rest belongs to one command.
        self.header = Signal(
            data.UnionLayout({"request": REQUEST, "response": RESPONSE, "bits": 8 * HEADER_BYTES}),
            reset_less=True,
        )
        self.request, self.response_header = self.header.request, self.header.response
        self.header_count = Signal(range(HEADER_BYTES))  # bytes of the header that have come
        self.left = Signal(bits_for(config.packet_bytes))  # payload bytes still to come
        self.written = Signal(bits_for(config.packet_bytes))  # bytes of the response, with header
        self.slot = Signal(range(config.slots))
        self.keep = Signal()  # the response stays for replay
        self.status = Signal(8)
        self.value = Signal(32)

        # One bit more than any limit: an address that does not fit becomes all ones, out of range.
        limit_bits = max(
            config.memory_words,
            config.activation_words,
            config.max_row_groups,
            len(identity(config)),
        ).bit_length()
        self.position = Signal(limit_bits + 1)  # of the next item
        self.items = Signal(max(16, limit_bits))  # words, results, bytes or counters still to come

        sizes = (config.word_bytes, config.fill, LAYER.size, COUNTER_BITS // 8)
        self.longest_word = max(*sizes, config.rows * config.acc_bytes)  # in bytes
        self.size = Signal(range(self.longest_word + 1))  # bytes of a word that comes in

        # The weight memory spreads over the die, and a word's address and `valid` must reach all of
        # it within a cycle. So they come from registers, set while the word's bytes come.
        self.write_address = Signal(bits_for(config.memory_words), reset_less=True)
        self.no_room = Signal(reset_less=True)  # `position` is beyond the last word to store
        self.write_valid = Signal()  # of the stream `o_write`
        self.load_valid = Signal()  # of the stream `o_load`
