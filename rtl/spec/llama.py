"""Words that the back end, its commands and `attach` share."""

__all__ = ["CODES", "DEVICE", "LIBRARY", "VERIFY"]

LIBRARY = "libggml-tritloom.so"
DEVICE = "sim?preset=llama"
"""The device of `tritloom llama run`, unless it is told another one: it scales sums by groups."""
CODES = ("block", "token")
"""How activations become codes; the back end reads TRITLOOM_CODES."""
VERIFY = ("first", "always", "off")
"""Which products the back end computes as well and compares; it reads TRITLOOM_VERIFY."""
