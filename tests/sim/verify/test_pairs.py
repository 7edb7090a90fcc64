"""The pairs of commands that may overlap: which there are, and what tells them apart."""

from dataclasses import replace

import pytest

from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.verify.pairs import Pair, all_pairs, banks_read, overlapping, pair_of

VECTOR = replace(TINY, vector=VectorConfig(words=64))
OVERLAPPING = overlapping(VECTOR)
FLOAT = replace(TINY, scale=ScaleConfig(kind="float"))


def test_banks_read():
    assert banks_read(Opcode.LOAD) == {"activation_bank"}
    assert banks_read(Opcode.RUN) == {"activation_bank", "result_bank"}
    assert banks_read(Opcode.RESULTS) == {"result_bank"}
    assert banks_read(Opcode.EXECUTE) == {"activation_bank", "result_bank"}
    assert banks_read(Opcode.SCALES) == {"activation_bank"}
    of_banks = {Opcode.LOAD, Opcode.RUN, Opcode.RESULTS, Opcode.EXECUTE, Opcode.SCALES}
    for opcode in (0, 63, *(set(Opcode) - of_banks)):
        assert banks_read(opcode) == set()


@pytest.mark.parametrize(
    ("first", "second", "activations", "results"),
    [
        (Request(Opcode.LOAD), Request(Opcode.LOAD, activation_bank=1), False, None),
        (Request(Opcode.LOAD, result_bank=1), Request(Opcode.LOAD), True, None),
        (Request(Opcode.LOAD), Request(Opcode.RUN, result_bank=1), True, None),
        (Request(Opcode.RUN), Request(Opcode.RUN, activation_bank=1), False, True),
        (Request(Opcode.RUN, result_bank=1), Request(Opcode.RESULTS), None, False),
        (Request(Opcode.RESULTS, result_bank=1), Request(Opcode.RUN, result_bank=1), None, True),
        (Request(Opcode.RESULTS), Request(Opcode.LOAD), None, None),
        (Request(Opcode.EXECUTE), Request(Opcode.LOAD, result_bank=1), True, None),
        (Request(Opcode.GET), Request(Opcode.EXECUTE), None, None),
        (Request(Opcode.SCALES), Request(Opcode.RUN, activation_bank=1), False, None),
        (Request(Opcode.SCALES), Request(Opcode.LOAD, result_bank=1), True, None),
        (Request(Opcode.RESULTS), Request(Opcode.SCALES), None, None),
    ],
)
def test_pair_of(first, second, activations, results):
    pair = pair_of(first, second)
    assert pair == (first.opcode, second.opcode, activations, results)


def test_others_do_not_overlap():
    for opcode in set(Opcode) - {*OVERLAPPING, *overlapping(FLOAT)}:
        assert pair_of(Request(opcode), Request(Opcode.RUN)) is None
        assert pair_of(Request(Opcode.RUN), Request(opcode)) is None


def test_all_pairs():
    """With two banks, two pairs for each kind of bank that both commands use."""
    pairs = all_pairs(TINY)
    assert len(pairs) == 18
    assert {(pair.first, pair.second) for pair in pairs} == {
        (first, second) for first in overlapping(TINY) for second in overlapping(TINY)
    }
    one = all_pairs(replace(TINY, banks=1))
    assert len(one) == 9 and one < pairs
    assert False not in {same for pair in one for same in pair[2:]}


def test_all_pairs_of_a_vector_unit():
    pairs = all_pairs(VECTOR)
    assert pairs > all_pairs(TINY)
    assert {(pair.first, pair.second) for pair in pairs} == {
        (first, second) for first in OVERLAPPING for second in OVERLAPPING
    }
    assert not {pair for pair in all_pairs(TINY) if Opcode.EXECUTE in pair}


def test_all_pairs_of_scales():
    """SCALES makes the pairs that LOAD makes; scales of the kind `fixed` make none."""
    pairs = all_pairs(FLOAT)
    assert pairs > all_pairs(TINY) == all_pairs(replace(TINY, scale=ScaleConfig()))
    swap = {Opcode.LOAD: Opcode.SCALES, Opcode.SCALES: Opcode.LOAD}
    swapped = {
        Pair(swap.get(first, first), swap.get(second, second), *same)
        for first, second, *same in pairs
    }
    assert swapped == pairs
    assert {pair for pair in pairs if Opcode.SCALES not in pair} == all_pairs(TINY)


def test_text():
    pair = Pair(Opcode.RUN, Opcode.RUN, True, False)
    assert str(pair) == "RUN → RUN (same activation bank, other result bank)"
    assert str(Pair(Opcode.LOAD, Opcode.RESULTS, None, None)) == "LOAD → RESULTS"
