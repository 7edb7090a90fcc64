"""The back end of ggml that lets llama.cpp compute on a device."""

from tritloom.host.llama.attach import attach

__all__ = ["attach"]
