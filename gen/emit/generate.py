"""Writes an accelerator's files: Verilog, manifest, C header, block diagram."""

import hashlib
import json
from pathlib import Path

from tritloom.gen.emit.diagram import block_diagram
from tritloom.gen.emit.files import write_files
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import describe
from tritloom.gen.emit.names import check_name
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.links.port_names import DEFAULT_TOP, PLAIN, PortNames
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.design import MANIFEST
from tritloom.rtl.spec.errors import InputError

__all__ = ["MANIFEST", "generate"]


def generate(
    config: AcceleratorConfig,
    directory: str | Path,
    name: str = DEFAULT_TOP,
    port_names: PortNames = PLAIN,
) -> list[Path]:
    """Write `NAME.v`, `NAME.h`, `NAME.svg` and `manifest.json`.

    Nothing is written until every text is complete. The manifest, which has the digests of the
    other files, is replaced last. Equal arguments and tools give the same bytes.

    Parameters
    ----------
    config : the accelerator
    directory : made if it is not there
    name : of the top module, the files and the C macros
    port_names : of clock, reset and packet streams

    Returns
    -------
    list[Path]
        The files, the manifest last.

    Raises
    ------
    InputError
        If the name or the port names do not fit, the folder holds a design of another name, or a
        file cannot be written.
    """
    folder = Path(directory)
    _check_folder(folder, check_name(name))
    manifest = describe(config, name, port_names)
    files = {
        f"{name}.v": emit(config, name, port_names),
        f"{name}.h": c_header(manifest),
        f"{name}.svg": block_diagram(config),
    }
    manifest["files"] = {
        file: {"sha256": hashlib.sha256(text.encode()).hexdigest()} for file, text in files.items()
    }
    files[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return write_files(folder, files)


def _check_folder(folder: Path, name: str) -> None:
    """`InputError` if the folder's manifest is that of a design of another name."""
    try:
        other = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["top"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if other != name:
        raise InputError(
            f"{folder} holds the design {other!r}; choose another folder for {name!r}, or remove it"
        )
