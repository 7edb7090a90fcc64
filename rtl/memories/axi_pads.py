"""The signals of AXI ports by their standard names, as seen from the accelerator."""

from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.memories.axi_facts import Axi

__all__ = ["axi_pads", "read_members", "write_members"]

INCREMENTING = 1
"""Of `arburst` and `awburst`: each beat is behind the one before."""
NORMAL_BUFFERABLE = 3
"""Of `arcache` and `awcache`: normal memory, not cached."""
ID_BITS = 1
RESPONSE_ERROR = 1
"""The bit of a response that is set for SLVERR and DECERR, and not for OKAY and EXOKAY."""


def _address_members(record: Axi, channel: str) -> dict[str, Member]:
    """The channel of an address; `channel` is `ar` or `aw`."""
    axi3 = record.version == 3
    return {
        f"{channel}id": Out(ID_BITS),
        f"{channel}addr": Out(record.address_bits),
        f"{channel}len": Out(4 if axi3 else 8),
        f"{channel}size": Out(3),
        f"{channel}burst": Out(2),
        f"{channel}lock": Out(2 if axi3 else 1),
        f"{channel}cache": Out(4),
        f"{channel}prot": Out(3),
        f"{channel}qos": Out(4),
        f"{channel}valid": Out(1),
        f"{channel}ready": In(1),
    }


def read_members(record: Axi) -> dict[str, Member]:
    """The channels that read."""
    return {
        **_address_members(record, "ar"),
        "rid": In(ID_BITS),
        "rdata": In(record.width),
        "rresp": In(2),
        "rlast": In(1),
        "rvalid": In(1),
        "rready": Out(1),
    }


def write_members(record: Axi) -> dict[str, Member]:
    """The channels that write."""
    return {
        **_address_members(record, "aw"),
        **({"wid": Out(ID_BITS)} if record.version == 3 else {}),
        "wdata": Out(record.width),
        "wstrb": Out(record.beat_bytes),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
        "bid": In(ID_BITS),
        "bresp": In(2),
        "bvalid": In(1),
        "bready": Out(1),
    }


def axi_pads(record: Axi) -> dict[str, Member]:
    """The signals of all ports under their names in Verilog."""
    return {
        prefix + name: member
        for prefix in record.prefixes
        for name, member in (read_members(record) | write_members(record)).items()
    }
