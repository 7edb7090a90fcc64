"""The back end of ggml that lets llama.cpp compute on a device."""
