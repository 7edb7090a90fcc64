"""What a board is: its FPGA, its link, and the accelerator that fits it; and how a name finds it.

A package adds a board with one entry point in the group `tritloom.boards`: `name = "module:BOARD"`,
where `BOARD` is a `Board`.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Link
from tritloom.rtl.spec.registry import Registry, load_component

__all__ = ["Board", "board_names", "load_board"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A board by its facts. Nothing here needs Amaranth, so a driver can read it.

    Members
    -------
    name : as in `--board` and in a device's URL; also its entry point
    title : what people call it
    family : name of its FPGA family (`tritloom.boards.families`)
    part : the vendor's part number
    platform : its class in amaranth-boards, as `module:Class`
    config : the accelerator that fits it, with packet streams for a link
    link : its link to the host
    presets : further accelerators that fit it, by name
    leds : lights that show the accelerator's state
    resources : the platform's resource for each kind of pins (`tritloom.boards.pins`) that a link
        or memory may bring, as `name` or `name:number`; a kind that is not listed has the
        platform's resource of its own name
    pin_options : options of the function that ties a kind of pins, such as the delays of a PHY
    pin_attributes : attributes of pins beside those of the platform, as the tools name them, by
        `resource` or `resource.pin`; such as a pull-up that a PHY reads as its mode
    constants : pins of the platform that the bitstream must drive, as `resource` or
        `resource.pin`, and the value: 0 or 1
    large_cells : cells from which a design counts as large on this board (`Bitstream.large_cells`);
        0 leaves that to the family
    loader : what openFPGALoader calls it; empty if it does not know it
    dfu : options of dfu-util, before the file, for its DFU boot loader; empty if it has none
    run_on_hardware : whether somebody has run it on the board itself
    """

    name: str
    title: str
    family: str
    part: str
    platform: str
    leds: int
    config: AcceleratorConfig
    link: Link
    presets: Mapping[str, AcceleratorConfig] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)
    pin_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pin_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    large_cells: int = 0
    loader: str = ""
    dfu: tuple[str, ...] = ()
    run_on_hardware: bool = False

    @property
    def build_config(self) -> AcceleratorConfig:
        """What its bitstream holds: `config` behind the board's link."""
        return replace(self.config, link=self.link)

    def with_preset(self, name: str | None) -> "Board":
        """The board with another of its accelerators; None is `config`.

        Raises
        ------
        ConfigError : it has no such preset
        """
        if name is None:
            return self
        if name not in self.presets:
            known = f"it has {', '.join(self.presets)}" if self.presets else "it has none"
            raise ConfigError(f"{self.name} has no preset {name!r}; {known}")
        return replace(self, config=self.presets[name])

    def create_platform(self) -> Any:
        """A new platform of amaranth-boards; each can be prepared once.

        Raises
        ------
        ConfigError : the platform lacks a resource or a pin of `pin_attributes`
        """
        platform = load_component(self.platform)()
        for pin, attributes in self.pin_attributes.items():
            resource, _, name = pin.partition(".")
            # The class shares its resources among all platforms, so only a copy may change.
            copy = deepcopy(platform.resources.get((resource, 0)))
            parts = [each for each in getattr(copy, "ios", ()) if each.name == name]
            if copy is None or (name and not parts):
                raise ConfigError(
                    f"{self.name} has no pin {pin}; name another one in the board's "
                    "`pin_attributes`"
                )
            for part in parts if name else [copy]:
                part.attrs.update(attributes)
            platform.resources[resource, 0] = copy
        return platform

    def request(self, platform: Any, kind: str) -> Any:
        """The ports of the platform's resource for a kind of pins, without buffers.

        Raises
        ------
        ConfigError : the platform has no such resource
        """
        name, _, number = self.resources.get(kind, kind).partition(":")
        if (name, int(number or 0)) not in platform.resources:
            raise ConfigError(
                f"{self.name} has no resource {name}:{number or 0} for the pins of {kind}; "
                "name another one in the board's `resources`"
            )
        return platform.request(name, int(number or 0), dir="-")


def _fault(item: Any) -> str:
    return "" if isinstance(item, Board) else f"it is {item!r:.60}, not a Board"


boards: Registry[Board] = Registry("board", "tritloom.boards", _fault)


def board_names() -> list[str]:
    """The names of all boards that are installed."""
    return list(boards)


def load_board(name: str) -> Board:
    """The board of that name.

    Raises
    ------
    ConfigError : there is none (the message lists the known ones), or its package is broken
    """
    if name not in boards:
        raise ConfigError(f"unknown board {name!r}; known are {', '.join(boards)}")
    return boards[name]
