"""Readers of model files: `huggingface` for folders of transformers, `npz` for archives."""
