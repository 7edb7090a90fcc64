"""The configuration of the vector unit: what can be built, and the message for what cannot."""

import pytest

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.vector_facts import VectorConfig


def test_defaults():
    config = VectorConfig()
    assert (config.words, config.lanes, config.bfloat16) == (4096, 1, False)
    assert (config.multipliers, config.steps) == (1, 512)
    assert VectorConfig(steps=4096).steps == 4096


@pytest.mark.parametrize(("words", "bits"), [(64, 6), (96, 7), (4096, 12), (4128, 13), (65536, 16)])
def test_address_bits(words, bits):
    assert VectorConfig(words=words).address_bits == bits


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"words": 32}, "vector words must be 64 to 65536, not 32"),
        ({"words": 65568}, "vector words must be 64 to 65536, not 65568"),
        ({"words": 1000}, "vector words must be a multiple of 32, not 1000"),
        ({"words": 64.0}, "vector words must be an integer, not 64.0"),
        ({"words": True}, "vector words must be an integer, not True"),
        ({"lanes": 3}, "vector lanes must be 1, 2 or 4, not 3"),
        ({"lanes": 0}, "vector lanes must be 1, 2 or 4, not 0"),
        ({"lanes": "1"}, "vector lanes must be an integer, not '1'"),
        ({"steps": 256}, "vector steps must be a power of two from 512 to 4096, not 256"),
        ({"steps": 768}, "vector steps must be a power of two from 512 to 4096, not 768"),
        ({"steps": 8192}, "vector steps must be a power of two from 512 to 4096, not 8192"),
        ({"steps": True}, "vector steps must be an integer, not True"),
        ({"bfloat16": 1}, "vector bfloat16 must be true or false, not 1"),
    ],
)
def test_refused(keys, message):
    with pytest.raises(ConfigError) as error:
        VectorConfig(**keys)
    assert str(error.value) == message
