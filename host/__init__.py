"""The driver: devices and their layers, links to them, checkpoints and models."""

from tritloom.host.checkpoints.gguf import GgufFile, GgufTensor, TensorFacts, load_gguf
from tritloom.host.checkpoints.huggingface import Checkpoint, load_checkpoint
from tritloom.host.checkpoints.npz import load_npz
from tritloom.host.device import (
    Counters,
    Device,
    DeviceInfo,
    Execution,
    Handle,
    Job,
    ProgramHandle,
    ProgramStats,
    SelfTest,
    Stats,
    connect,
)
from tritloom.host.group_layer import GroupHandle, GroupLayer
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import (
    CapacityError,
    CheckpointError,
    DeviceError,
    DeviceTimeout,
    InputError,
    NotFiniteError,
    ProtocolError,
    TritloomError,
)

__all__ = [
    "CapacityError",
    "Checkpoint",
    "CheckpointError",
    "Counters",
    "Device",
    "DeviceError",
    "DeviceInfo",
    "DeviceTimeout",
    "Execution",
    "GgufFile",
    "GgufTensor",
    "GroupHandle",
    "GroupLayer",
    "Handle",
    "InputError",
    "Job",
    "NotFiniteError",
    "ProgramHandle",
    "ProgramStats",
    "ProtocolError",
    "SelfTest",
    "Stats",
    "TensorFacts",
    "TernaryLayer",
    "TritloomError",
    "connect",
    "load_checkpoint",
    "load_gguf",
    "load_npz",
]
