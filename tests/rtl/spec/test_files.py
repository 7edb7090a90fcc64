import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tritloom.rtl.spec import files
from tritloom.rtl.spec.files import scratch_folder, write_all_whole, write_whole

OLD_S = files.STALE_S + 60


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes(tmp_path):
    paths = write_all_whole(tmp_path, {"a": "×\n", "b": b"\xff"})
    assert paths == [tmp_path / "a", tmp_path / "b"] and names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == "×\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\xff"
    write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and names(tmp_path) == ["a", "b"]


def test_none_appears_before_all_are_written(tmp_path):
    write_whole(tmp_path / "a", "old")
    with pytest.raises(TypeError):
        write_all_whole(tmp_path, {"a": "new", "b": None})
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", "x")
    assert names(tmp_path) == []


def test_scratch_is_removed(tmp_path):
    with suppress(KeyboardInterrupt), scratch_folder(tmp_path) as scratch:
        assert scratch.parent == tmp_path
        (scratch / "half").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def killed_in_scratch(folder):
    """The scratch folder that a process leaves behind which is killed."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tritloom.rtl.spec.files import scratch_folder\n"
        f"with scratch_folder(Path({str(folder)!r})) as scratch:\n"
        "    print(scratch, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    scratch = folder / os.path.basename(process.stdout.readline().strip())
    process.stdout.close()
    return process, scratch


def made_long_ago(scratch):
    os.utime(scratch, (time.time() - OLD_S,) * 2)


def test_what_a_killed_process_left(tmp_path):
    """Its folder goes with the next one, but not while the process runs, and not at once."""
    process, scratch = killed_in_scratch(tmp_path)
    made_long_ago(scratch)
    with scratch_folder(tmp_path):
        assert scratch.exists(), "its process still runs"
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    os.utime(scratch)
    with scratch_folder(tmp_path):
        assert scratch.exists(), "a process may be about to lock it"
    made_long_ago(scratch)
    write_whole(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


def test_own_folder_is_not_stale(tmp_path):
    with scratch_folder(tmp_path) as outer:
        made_long_ago(outer)
        with scratch_folder(tmp_path):
            assert outer.exists()


def test_others_stay(tmp_path):
    (tmp_path / "tmpabc").mkdir()
    made_long_ago(tmp_path / "tmpabc")
    write_whole(tmp_path / "a", "x")
    assert names(tmp_path) == ["a", "tmpabc"]
