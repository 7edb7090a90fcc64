"""Proofs of what reads frames, and for each a broken line that it finds."""

import pytest

from tests.support.broken import broken
from tritloom.rtl.links import gmii, udp_receive
from tritloom.rtl.links.udp_facts import Udp
from tritloom.sim.proof.formal import PropertyError, verify
from tritloom.sim.proof.frames import gmii_contract, reader_contract

pytestmark = pytest.mark.formal


def test_gmii():
    proof = verify(gmii_contract(gmii.GmiiReceiver()), depth=4, cover=20)
    assert proof.inductive and proof.covers == 3


def test_reader():
    """For 34 items after reset: no frame's headers are longer than 21 words."""
    bench = reader_contract(udp_receive.FrameReader(Udp()))
    proof = verify(bench, depth=34, cover=26, induction=False)
    assert proof.covers == 2


GMII_BUGS = {
    "the FCS is not looked at": (
        "whole.eq(crc.match_detected & (count == FCS_BYTES))",
        "whole.eq(count == FCS_BYTES)",
        "right",
    ),
    "an error of the PHY is forgotten": ("(er & dv) | closes", "closes", "model_dirty"),
    "a lost word is forgotten": (
        "closes | (self.o.valid & ~self.o.ready)",
        "closes",
        "model_dirty",
    ),
    "the end does not wait": ("m.If(closes & self.o.ready)", "m.If(closes)", "end_waits"),
    "the check begins with the preamble": (
        "crc.start.eq(~inside)",
        "crc.start.eq(~inside & ~dv)",
        "begins",
    ),
}


@pytest.mark.parametrize("name", GMII_BUGS)
def test_gmii_bug_found(name):
    old, new, expected = GMII_BUGS[name]
    bench = gmii_contract(broken(gmii, old, new).GmiiReceiver())
    with pytest.raises(PropertyError) as error:
        verify(bench, depth=20, cover=None, induction=False)
    assert f"check_{expected}" in error.value.names


READER_BUGS = {
    "a notice without a verdict": (
        "self.whole.eq(self.word[0] & (self.rest == 0)",
        "self.whole.eq((self.rest == 0)",
        {"notice", "sound", "address"},
    ),
    "an address as soon as it is read": (
        "m.d.sync += self.new_address[:16].eq(word)",
        "m.d.sync += ports.address[:16].eq(word)",
        {"address"},
    ),
    "a packet that takes no verdict": (
        "ports.abort.eq(i.payload.end & (~self.whole | wrong))",
        "ports.abort.eq(i.payload.end & wrong)",
        {"sound"},
    ),
    "a notice is overwritten": (
        "with m.If(self.ends & self.whole & ~notice.valid):",
        "with m.If(self.ends & self.whole):",
        {"notice_payload", "notice_valid"},
    ),
}


@pytest.mark.parametrize("name", READER_BUGS)
def test_reader_bug_found(name):
    old, new, expected = READER_BUGS[name]
    bench = reader_contract(broken(udp_receive, old, new).FrameReader(Udp()))
    with pytest.raises(PropertyError) as error:
        verify(bench, depth=48, cover=None, induction=False)
    assert {f"check_{name}" for name in expected} & set(error.value.names)
