"""Shared by the tests that start processes."""

import signal


def interruptible() -> None:
    """For ``preexec_fn``: a process that a shell starts in the background ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
