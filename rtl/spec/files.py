"""Files that appear whole or not at all, whatever ends the program in between.

New contents are written into a scratch folder beside their place and then renamed, which is one
step of the file system. A process that is killed leaves its scratch folder behind; the next one
that works in the same place removes it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

__all__ = ["scratch_folder", "write_all_whole", "write_whole"]

PREFIX = ".tritloom-"
STALE_S = 60.0
"""A scratch folder that is younger than this may belong to a process that has not locked it yet."""


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end of the block.

    What is renamed out of it into `parent` appears whole. Scratch folders of processes that were
    killed are removed first.
    """
    _remove_stale(parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as name:
        lock = _locked(Path(name))
        try:
            yield Path(name)
        finally:
            if lock is not None:
                os.close(lock)


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file that appears whole or not at all; a text is written as UTF-8.

    Raises
    ------
    OSError : it cannot be written; what was there before is still there
    """
    write_all_whole(file.parent, {file.name: content})


def write_all_whole(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Writes files into a folder that exists; each appears whole or not at all, in their order.

    None appears before all are written, so a full disk changes nothing.

    Parameters
    ----------
    folder : where the files shall be
    contents : what each shall have, by name; a text is written as UTF-8

    Returns
    -------
    The path of each file.

    Raises
    ------
    OSError : a file cannot be written
    """
    with scratch_folder(folder) as scratch:
        for name, content in contents.items():
            data = content.encode() if isinstance(content, str) else content
            (scratch / name).write_bytes(data)
        for name in contents:
            os.replace(scratch / name, folder / name)
    return [folder / name for name in contents]


def _locked(folder: Path) -> int | None:
    """A descriptor that keeps a folder locked as long as this process lives and has it open.

    `None` if another process has the lock, or where folders cannot be locked.
    """
    if os.name != "posix":
        return None
    import fcntl

    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_stale(parent: Path) -> None:
    """Removes the scratch folders that no living process has locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            age_s = time.time() - folder.stat().st_mtime
        except OSError:
            continue
        if age_s > STALE_S and (lock := _locked(folder)) is not None:
            rmtree(folder, ignore_errors=True)
            os.close(lock)
