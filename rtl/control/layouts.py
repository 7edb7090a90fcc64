"""Layouts of what the command processor reads and writes, as `tritloom.rtl.spec.commands` says."""

from amaranth.lib import data

__all__ = ["COUNTER_BITS", "DEFINITION", "REQUEST", "RESPONSE"]

REQUEST = data.StructLayout(
    {
        "length": 16,
        "seq": 16,
        "session": 32,
        "opcode": 8,
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
        "session": 32,
        "opcode": 8,
        "status": 8,
        "expected": 16,
        "value": 32,
    }
)
"""Header of a response."""
DEFINITION = data.StructLayout({"base": 32, "tiles": 16, "row_groups": 16})
"""Payload of DEFINE."""
COUNTER_BITS = 64
"""Bits of each counter in the response to COUNTERS."""
