"""The registers of the command acceptor, which belong to one command."""

from amaranth.hdl import Signal
from amaranth.lib import data

from tritloom.rtl.control.layouts import REQUEST, RESPONSE
from tritloom.rtl.control.tasks import Kind
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.commands import HEADER_BYTES, LAYER, Status, identity
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_program import STEP_BYTES


class CommandRegisters:
    """The registers, with widths that follow from the configuration."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.header = Signal(
            data.UnionLayout({"request": REQUEST, "response": RESPONSE, "bits": 8 * HEADER_BYTES}),
            reset_less=True,
        )
        self.request, self.response_header = self.header.request, self.header.response
        self.header_count = Signal(range(HEADER_BYTES))  # bytes of the header that have moved
        self.left = Signal(bits_for(config.packet_bytes))  # payload bytes still to come
        self.slot = Signal(range(config.slots))
        self.keep = Signal()  # the response stays for replay
        self.status = Signal(range(max(Status) + 1))
        self.has_checksum = Signal()  # the response tells the checksum of a layer
        self.kind = Signal(Kind)  # of the task for the responder
        self.token = Signal(range(config.tokens))  # of that task
        self.reading = Signal()  # READ, GET or COUNTERS are not answered, and must not be disturbed

        # One bit more than any limit: an address that does not fit becomes all ones, out of range.
        limits = [
            config.memory_words,
            config.activation_words,
            config.result_row_groups,
            len(identity(config)),
        ]
        longest = max(config.word_bytes, config.fill, LAYER.size)
        if config.vector is not None:
            limits += [config.vector.words, config.vector.steps]
            longest = max(longest, STEP_BYTES)
        limit_bits = max(limits).bit_length()
        self.position = Signal(limit_bits + 1)  # of the next item
        self.items = Signal(max(16, limit_bits))  # words, results, bytes or counters

        # The weight memory spreads over the die, and a word's address must reach all of it within a
        # cycle. So it comes from a register, set while the word's bytes come.
        self.write_address = Signal(bits_for(config.memory_words), reset_less=True)
        self.no_room = Signal(reset_less=True)  # `position` is beyond the last word to store
        self.longest = longest  # bytes of the longest word of a payload
        self.size = Signal(range(longest + 1))
