"""Shared by the tests that start processes."""

import signal


def interruptible() -> None:
    """For `preexec_fn`: a process that a shell starts in the background ignores SIGINT.

    One under nohup ignores SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
