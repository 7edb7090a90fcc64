"""Writes several files so that none appears in part."""

from collections.abc import Mapping
from pathlib import Path

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_all_whole

__all__ = ["write_files"]


def write_files(directory: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write files so that each appears whole or not at all, in their order.

    Parameters
    ----------
    directory : made if it is not there
    files : the content of each by its name

    Raises
    ------
    InputError
        If a file cannot be written. A folder that did not exist before does not exist then.
    """
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return write_all_whole(directory, files)
        except BaseException:
            if is_new and not any(directory.iterdir()):
                directory.rmdir()
            raise
    except OSError as error:
        raise InputError(
            f"cannot write to {directory}: {error.strerror or error}; choose another folder"
        ) from error
