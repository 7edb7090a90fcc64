"""The driver, its transports, checkpoint loaders and model offload."""

from tritloom.host.device import (
    Counters,
    Device,
    DeviceInfo,
    Handle,
    Job,
    SelfTest,
    Stats,
    connect,
)
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import (
    CapacityError,
    DeviceError,
    DeviceTimeout,
    InputError,
    ProtocolError,
    TritloomError,
)

__all__ = [
    "CapacityError",
    "Counters",
    "Device",
    "DeviceError",
    "DeviceInfo",
    "DeviceTimeout",
    "Handle",
    "InputError",
    "Job",
    "ProtocolError",
    "SelfTest",
    "Stats",
    "TernaryLayer",
    "TritloomError",
    "connect",
]
