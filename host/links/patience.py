"""The time-out of a link, from how long its responses take and how many of them are lost."""

__all__ = ["HASTE_S", "Patience"]

HASTE_S = 0.002
"""Least time-out on a link that loses packets."""
BACKOFF = 1.1
"""Factor by which each time-out without an advance lengthens the next one on such a link."""
MEASURED_SHARE = 1 / 4
"""Longest time-out on such a link, relative to the one on a good link."""
SURPRISE_FACTOR = 3
"""A wait counts as at most this many times the mean: the computer may have been busy."""
GOOD_PACKETS = 256
"""A link is good again after this many packets in a row without a loss."""


class Patience:
    """The time-out of a link: long if it is good, as measured if it loses packets.

    A time-out that is too short costs a packet that is sent for nothing; one that is too long costs
    the time. So it is short only if packets were lost recently. Each time-out lengthens it, up to a
    quarter of the long one, until the commands advance. A response is no advance by itself: it may
    be one to an earlier copy. If it were, and the device slower than was measured, ever more copies
    would wait for the device.

    Parameters
    ----------
    longest_s : time-out of a good link
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._mean_s, self._deviation_s = longest_s / 20, longest_s / 80
        self._good = GOOD_PACKETS
        self._factor = 1.0

    @property
    def timeout_s(self) -> float:
        """The time-out at present."""
        if self._good >= GOOD_PACKETS:
            return self._longest_s
        return self._lengthened_s(max(HASTE_S, self._mean_s + 2 * self._deviation_s))

    @property
    def haste_s(self) -> float:
        """The time-out after a damaged packet, which may have been the last response."""
        return self._lengthened_s(HASTE_S)

    def heard(self, waited_s: float) -> None:
        """A packet came after a wait. Mean and deviation are averaged as in TCP (RFC 6298).

        A single wait that is far too long, such as on a busy computer, counts less.
        """
        waited_s = min(waited_s, SURPRISE_FACTOR * max(self._mean_s, HASTE_S))
        self._good += 1
        self._deviation_s += (abs(waited_s - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (waited_s - self._mean_s) / 8

    def damaged(self) -> None:
        """A damaged frame came: the device responds, and the link is bad."""
        self._good = 0

    def silent(self) -> None:
        """A wait ended without a whole packet."""
        if self._good < GOOD_PACKETS:
            self._factor *= BACKOFF
        self._good = 0

    def advanced(self) -> None:
        """The device has executed a command that was waited for."""
        self._factor = 1.0

    def _lengthened_s(self, timeout_s: float) -> float:
        return min(MEASURED_SHARE * self._longest_s, self._factor * timeout_s)
