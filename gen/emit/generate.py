"""Writes an accelerator's files: Verilog, manifest, C header, block diagram."""

import hashlib
import json
from pathlib import Path

from tritloom.gen.emit.diagram import block_diagram
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import describe
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_all_whole

__all__ = ["MANIFEST", "generate", "write_files"]

MANIFEST = "manifest.json"


def generate(config: AcceleratorConfig, directory: str | Path) -> list[Path]:
    """Write `tritloom.v`, `tritloom.h`, `block.svg` and `manifest.json`; gives their paths.

    Nothing is written until all of it is there. The manifest, with the digests of the others, is
    replaced last. Equal configurations and tools give the same bytes.
    """
    manifest = describe(config)
    files = {
        "tritloom.v": emit(config),
        "tritloom.h": c_header(manifest),
        "block.svg": block_diagram(config),
    }
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(text.encode()).hexdigest()} for name, text in files.items()
    }
    files[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return write_files(Path(directory), files)


def write_files(directory: Path, files: dict[str, str]) -> list[Path]:
    """Write files so that each appears whole or not at all, in their order.

    `InputError` if one cannot be written; a folder that had to be made is then removed again.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return write_all_whole(directory, files)
        except BaseException:
            if made and not any(directory.iterdir()):
                directory.rmdir()
            raise
    except OSError as error:
        raise InputError(
            f"cannot write to {directory}: {error.strerror or error}; choose another folder"
        ) from error
