"""How the pads of a link or memory reach a board's pins.

A link or memory may bring pads beyond its contract (`Record.pins`), which the accelerator forwards.
For each such plug-in there is one `Pins` of the same name, which a package adds with one entry
point in the group `tritloom.pins`: `name = "module:PINS"`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tritloom.rtl.spec.registry import Registry

__all__ = ["Pins", "pins"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pins:
    """What ties a plug-in's pads to a platform's resource.

    Members
    -------
    name : the plug-in's name; also the entry point of these pins
    tie : gets the board's module, the accelerator and the resource's ports without buffers; adds
        the buffers to the module and connects them to the accelerator's pads
    """

    name: str
    tie: Callable[[Any, Any, Any], None]


def _fault(item: Any) -> str:
    return "" if isinstance(item, Pins) else "it is no Pins"


pins: Registry[Pins] = Registry("pins", "tritloom.pins", _fault)
