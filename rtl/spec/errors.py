"""Errors that a user can meet. Each message is one line: the value, and the remedy."""


class TritloomError(Exception):
    """Base of every error of the domain; the command line prints it as one line."""


class ConfigError(TritloomError, ValueError):
    """A configuration, board or plug-in name that cannot be built."""


class InputError(TritloomError, ValueError):
    """Weights, activations or arguments that a call cannot take."""


class NotFiniteError(InputError):
    """Numbers that the vector unit does not compute with: NaN, inf, and from 2^126 on."""


class CheckpointError(TritloomError, ValueError):
    """A model file that cannot be read exactly."""


class CapacityError(TritloomError):
    """The device's weight memory or layer table has no room."""


class ToolError(TritloomError):
    """An external tool is missing or failed."""


class DeviceError(TritloomError):
    """The device refused a command, or is not one this driver can use."""


class DeviceTimeout(DeviceError):
    """The device stopped responding."""


class ProtocolError(DeviceError):
    """The device sent something that the protocol does not allow."""
