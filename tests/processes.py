"""Shared by the tests that start processes."""

import signal


def interruptible() -> None:
    """For ``preexec_fn``: what a shell starts in the background ignores SIGINT, and passes that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
