"""Layouts of what the command processor reads and writes, as `tritloom.rtl.spec.commands` says."""

from amaranth.lib import data

from tritloom.rtl.spec.commands import OPCODE_BITS, SESSION_BITS

__all__ = ["COUNTER_BITS", "DEFINITION", "REQUEST", "RESPONSE"]

REQUEST = data.StructLayout(
    {
        "length": 16,
        "seq": 16,
        "session": SESSION_BITS,
        "acknowledged": 32 - SESSION_BITS,
        "opcode": OPCODE_BITS,
        "activation_bank": 1,
        "result_bank": 1,
        "index": 8,
        "count": 16,
        "address": 32,
    }
)
"""Header of a request."""
RESPONSE = data.StructLayout(
    {
        "length": 16,
        "seq": 16,
        "session": SESSION_BITS,
        "acknowledged": 32 - SESSION_BITS,
        "opcode": OPCODE_BITS,
        "activation_bank": 1,
        "result_bank": 1,
        "status": 8,
        "expected": 16,
        "value": 32,
    }
)
"""Header of a response."""
DEFINITION = data.StructLayout({"base": 32, "tiles": 16, "row_groups": 32})
"""Payload of DEFINE."""
COUNTER_BITS = 64
"""Bits of each counter in the response to COUNTERS."""
