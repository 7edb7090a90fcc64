"""What engine, encoding, alphabet, lanes and fill of a configuration ask of each other."""

from typing import Any

from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Engine, engines

__all__ = ["check_engine"]


def check_engine(config: Any) -> Engine:
    """What engine, encoding, alphabet, lanes and fill ask of each other."""
    engine, encoding = engines[config.engine], encodings[config.encoding]
    if config.encoding not in engine.encodings:
        raise ConfigError(
            f"encoding of the {config.engine} engine must be one of "
            f"{', '.join(engine.encodings)}, not {config.encoding!r}"
        )
    width = config.act_bits
    if type(width) is not int or width not in (4, 8):
        raise ConfigError(f"act_bits must be 4 or 8, not {width!r}")
    if config.alphabet != encoding.alphabet:
        raise ConfigError(
            f"alphabet of the {config.encoding} encoding must be {encoding.alphabet}, "
            f"not {config.alphabet!r}"
        )
    if config.lanes % encoding.trits_per_code:
        raise ConfigError(
            f"lanes must be a multiple of {encoding.trits_per_code}, not {config.lanes}"
        )
    if config.lanes % config.fill:
        raise ConfigError(f"fill must divide lanes = {config.lanes}, not {config.fill}")
    return engine
