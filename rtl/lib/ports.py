"""Ports of a component that are ports of one of its submodules."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Member, connect, flipped

__all__ = ["forward_port"]


def forward_port(m: Module, outer: Any, inner: Any, member: Member) -> None:
    """Wire a port of a component to the same port of one of its submodules."""
    if member.is_signature:
        connect(m, flipped(outer), inner)
    elif member.flow == In:
        m.d.comb += inner.eq(outer)
    else:
        m.d.comb += outer.eq(inner)
