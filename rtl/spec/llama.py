"""Words that the back end, its commands and `attach` share."""

__all__ = ["CODES", "LIBRARY", "VERIFY"]

LIBRARY = "libggml-tritloom.so"
CODES = ("block", "token")
"""How activations become codes; the back end reads TRITLOOM_CODES."""
VERIFY = ("first", "always", "off")
"""Which products the back end computes as well and compares; it reads TRITLOOM_VERIFY."""
