"""Which names each way of choosing layers matches."""

import re

import pytest

from tritloom.host.match import name_matcher
from tritloom.rtl.spec.errors import InputError

NAMES = ["model.0.mlp.up", "model.0.attn.q", "model.1.MLP.up"]


@pytest.mark.parametrize(
    ("match", "chosen"),
    [
        ("*", NAMES),
        ("*.mlp.*", NAMES[:1]),
        ("mlp", []),
        (re.compile("mlp"), NAMES[:1]),
        (re.compile("^mlp"), []),
        (lambda name: name.endswith("up"), [NAMES[0], NAMES[2]]),
    ],
)
def test_chosen_names(match, chosen):
    assert list(filter(name_matcher(match), NAMES)) == chosen


def test_refused():
    with pytest.raises(InputError) as caught:
        name_matcher(3)
    assert str(caught.value) == "match must be a glob, a compiled pattern or a function, not int"
