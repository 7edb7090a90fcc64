"""The time-out of a link."""

from tritloom.host.links.patience import GOOD_PACKETS, HASTE_S, Patience


class TestPatience:
    def test_a_good_link_has_all_the_time(self) -> None:
        patience = Patience(0.4)
        for _ in range(100):
            patience.heard(0.001)
        assert patience.timeout_s == 0.4

    def test_a_bad_link_has_as_long_as_was_measured(self) -> None:
        patience = Patience(0.4)
        for _ in range(100):
            patience.heard(0.01)
            patience.damaged()
        assert 0.01 <= patience.timeout_s < 0.011
        for _ in range(100):
            patience.heard(1e-6)
            patience.damaged()
        assert patience.timeout_s == HASTE_S

    def test_one_long_wait_is_not_believed_many_are(self) -> None:
        patience = Patience(0.4)
        patience.damaged()
        before = patience.timeout_s
        patience.heard(30.0)
        assert patience.timeout_s < 3 * before
        for _ in range(30):
            patience.heard(0.05)
        assert patience.timeout_s >= 0.05

    def test_silence_makes_it_longer(self) -> None:
        patience = Patience(0.4)
        times = []
        for _ in range(60):
            patience.silent()
            times.append(patience.timeout_s)
        assert times == sorted(times)
        assert times[0] < 0.05
        assert times[-1] == 0.1
        assert patience.haste_s == 0.1

    def test_only_an_advance_makes_it_short_again(self) -> None:
        """A response may be one to an earlier copy: the device is slow then."""
        patience = Patience(0.4)
        for _ in range(10):
            patience.damaged()
            patience.silent()
        lengthened_s = patience.timeout_s, patience.haste_s
        assert lengthened_s[1] > 2.5 * HASTE_S
        patience.damaged()
        assert (patience.timeout_s, patience.haste_s) == lengthened_s
        patience.heard(0.02)
        assert patience.haste_s == lengthened_s[1]
        patience.advanced()
        assert patience.timeout_s < lengthened_s[0]
        assert patience.haste_s == HASTE_S

    def test_a_link_that_got_good_has_all_the_time_again(self) -> None:
        patience = Patience(0.4)
        patience.damaged()
        for _ in range(GOOD_PACKETS - 1):
            patience.heard(0.01)
        assert patience.timeout_s < 0.1
        patience.heard(0.01)
        assert patience.timeout_s == 0.4
