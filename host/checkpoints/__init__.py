"""Readers of model files: `load_checkpoint` for Hugging Face folders, `load_npz` for archives."""

from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.checkpoints.npz import load_npz

__all__ = ["Checkpoint", "load_checkpoint", "load_npz"]
