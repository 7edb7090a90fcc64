import pytest

from tritloom.gen.passes.merge import merged
from tritloom.gen.passes.slots import Adder, Slot


def test_only_related_adders_share_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritloom.gen.passes.merge.MERGED_SLOTS", 26)

    def adder(name: str, tree: str, bits: int) -> Adder:
        killing = Slot((), (False,), (False,))
        adding = [Slot((2, 3), (False, True, True, False), (False, False, False, True))] * bits
        return Adder(name, [killing, *adding, killing], tree)

    for tree, bits, shared in (("b", 9, True), ("b", 7, False), ("a", 7, True)):
        one, other = adder("a", "a", 9), adder("b", tree, bits)
        assert [len(group) for group in merged([[one, other]], 2)] == ([2] if shared else [1, 1])
