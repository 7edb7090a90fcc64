"""What the command processor and the vector unit with its `LayerRunner` say to each other."""

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_facts import LAYER_BITS, VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import FIELDS

__all__ = ["vector_port"]


def vector_port(config: AcceleratorConfig) -> wiring.Signature:
    """The port of a configuration with `vector`, from the command processor's side.

    Members
    -------
    address, put, word, got, step_address, step_write, step, got_step, start, not_finite :
        as of `VectorUnit`
    token, last_token : only with several tokens, as of `VectorUnit`
    runs : only with several tokens, as of `LayerRunner`
    executes : in, 1 bit, `busy` of `VectorUnit`
    active, activation_bank, result_bank, computes, wants, layer, pad, last_tile, padded :
        as of `LayerRunner`
    """
    assert config.vector is not None
    bank, token = range(config.banks), range(config.tokens)
    several = {"token": Out(token), "last_token": Out(token), "runs": In(1)}
    return wiring.Signature(
        {
            "address": Out(config.vector.address_bits),
            "put": Out(1),
            "word": Out(8 * VECTOR_WORD_BYTES),
            "got": In(8 * VECTOR_WORD_BYTES),
            "step_address": Out(range(config.vector.steps)),
            "step_write": Out(1),
            "step": Out(data.StructLayout(FIELDS)),
            "got_step": In(data.StructLayout(FIELDS)),
            "start": Out(1),
            "executes": In(1),
            "not_finite": In(1),
            "active": Out(1),
            "activation_bank": Out(bank),
            "result_bank": Out(bank),
            "computes": In(1),
            "wants": In(1),
            "layer": In(LAYER_BITS),
            "pad": Out(1),
            "last_tile": Out(range(config.max_tiles)),
            "padded": In(1),
            **(several if config.tokens > 1 else {}),
        }
    )
