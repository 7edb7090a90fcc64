"""What to type where a Python package is missing.

The distribution's own metadata says which optional dependency (extra) brings a package, and in
which version; the metadata come from pyproject.toml. Tritloom is on no package index, so the remedy
names either the checkout that is in use or the missing package.
"""

from __future__ import annotations

import re
import shlex
from importlib.metadata import requires
from pathlib import Path

__all__ = ["known_module", "package_remedy"]

PACKAGES = {"serial": "pyserial", "cocotb_tools": "cocotb", "cocotbext": "cocotbext-axi"}
"""Modules whose package has another name than the module."""
CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of the sources, if this file is in one."""
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,.-]+)\])?\s*([^;]*?)\s*(?:;(.*))?")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements() -> list[tuple[str, str, str, list[str]]]:
    """Of each requirement: the extra that has it, its package, versions, and the extras it asks."""
    requirements = []
    for line in requires("tritloom") or ():
        match = REQUIREMENT.fullmatch(line)
        assert match is not None, line
        name, extras, versions, marker = match.groups()
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker or "")
        requirements.append(
            (extra[1] if extra else "", _normal(name), versions, (extras or "").split(","))
        )
    return requirements


def _extras_with(package: str) -> list[str]:
    """The extras that bring a package, itself or through another extra, the nearest first."""
    requirements = _requirements()
    extras = [extra for extra, name, _, _ in requirements if extra and name == package]
    for extra in extras:  # grows while it is read
        for outer, name, _, inner in requirements:
            if name == "tritloom" and extra in inner and outer not in extras:
                extras.append(outer)
    return extras


def known_module(module: str) -> bool:
    """Whether a module belongs to a package that Tritloom uses."""
    package = _normal(PACKAGES.get(module, module))
    return package != "tritloom" and any(name == package for _, name, _, _ in _requirements())


def package_remedy(module: str, extra: str = "") -> str:
    """What to type so that a module can be imported, as the end of an error message.

    Parameters
    ----------
    module : what is imported, or the name of its package
    extra : the extra that brings all that the failed command needs; it is named if it brings the
        module, else the one that does

    Returns
    -------
    In a checkout, the command that installs the extra; elsewhere, the one that installs the package
    in the version that the metadata ask for.
    """
    package = _normal(PACKAGES.get(module, module))
    extras = _extras_with(package)
    if (extras or package == "tritloom") and _is_checkout():
        chosen = extra if extra in extras or not extras else extras[0]
        here = Path.cwd().resolve() == CHECKOUT
        where = "." if here else str(CHECKOUT)
        return f"run pip install -e {_quoted(f'{where}[{chosen}]')}"
    versions = next((text for _, name, text, _ in _requirements() if name == package), "")
    wanted = f"{package}{versions}"
    return f"run pip install {shlex.quote(wanted) if versions else wanted}"


def _is_checkout() -> bool:
    return (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "rtl").is_dir()


def _quoted(text: str) -> str:
    return f'"{text}"' if re.fullmatch(r"[^\"$`\\]+", text) else shlex.quote(text)
