"""When each stage works, by hand from the states of the hardware."""

from dataclasses import replace

import pytest

from tests.support.plan import SMALL
from tests.support.plugins import Stalling
from tritloom.gen.plan.stages import Copy, Exchange, copy_cycles, schedule_cycles
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.commands import Opcode

ONE = replace(SMALL, banks=1)
ACCEPT = 16 + 3 + 1 + 1 + 16 + 1
"""The header, order and checks, the choice, the response's header and its preparation, the task."""
TO_ACCEPTOR = 3
"""A cycle of checks, one in the buffer's memory, one in the register behind it."""
TO_RESPONDER = 1
"""Of the queue, with two banks."""
TO_LINK = 2 + 1
"""The memory and its register; at the end of the response, a cycle of the checksum."""


def load(size: int, bank: int = 0) -> Exchange:
    return Exchange(Opcode.LOAD, 20 + size, 20, size + 2, activation_bank=bank)


def run(engine: int, activations: int = 0, results: int = 0) -> Exchange:
    banks = {"activation_bank": activations, "result_bank": results}
    return Exchange(Opcode.RUN, 20, 20, 2, engine=engine, **banks)


def results(words: int, size: int, bank: int = 0, period: int = 1) -> Exchange:
    copy = Copy(words, size, size, 4, period)
    return Exchange(Opcode.RESULTS, 20, 20 + words * size, copy=copy, result_bank=bank)


class TestCopy:
    """Cycles of the responder: each word's bytes, a cycle to see the end, the header's beats."""

    def test_bytes(self):
        """A word's last byte leaves while the next word comes."""
        assert copy_cycles(Copy(3, 4, 4), 1, 7) == 1 + 3 * 4 + 1 + 7
        assert copy_cycles(Copy(3, 4, 2), 1, 7) == 1 + 4 + 4 + 2 + 1 + 7
        assert copy_cycles(Copy(1, 4, 2), 1, 7) == 1 + 2 + 1 + 7

    def test_first_word(self):
        assert copy_cycles(Copy(3, 4, 4, first=4), 1, 0) == 4 + 1 + 3 * 4 + 1

    def test_period(self):
        """Slower than the bytes, and faster."""
        assert copy_cycles(Copy(3, 4, 4, period=9), 1, 0) == 2 * 9 + 1 + 4 + 1
        assert copy_cycles(Copy(3, 4, 4, period=3), 1, 0) == 1 + 3 * 4 + 1

    def test_beats(self):
        """Words that are whole beats leave one after the other; others wait for the rest."""
        assert copy_cycles(Copy(3, 8, 8), 4, 0) == 1 + 3 * 2 + 1
        # Of 12 bytes, 8 leave; the next word comes to the 4 left; 8 and 8 leave, and again.
        assert copy_cycles(Copy(2, 12, 12), 8, 0) == 1 + 1 + 1 + 2 + 1
        # Of 3 bytes none leave until 9 are there; the next word comes when 1 is left.
        assert copy_cycles(Copy(4, 3, 3), 8, 0) == 3 + 1 + 1 + 1 + 1

    def test_headers(self):
        """No beat is stored while the acceptor writes a header: neither a word's nor a header's."""
        free = copy_cycles(Copy(3, 4, 4), 1, 7)
        assert copy_cycles(Copy(3, 4, 4), 1, 7, (5,), 16) == free + 16
        assert copy_cycles(Copy(3, 4, 4), 1, 7, (-10,), 16) == free + 5  # the first cycle is none
        assert copy_cycles(Copy(3, 4, 4), 1, 7, (free - 2,), 16) == free + 16
        assert copy_cycles(Copy(3, 4, 4), 1, 7, (free,), 16) == free
        # Where nothing is stored anyway, it costs nothing.
        assert copy_cycles(Copy(3, 4, 4, period=30), 1, 7, (6,), 16) == 2 * 30 + 1 + 4 + 1 + 7


class TestOne:
    """A single command, from stage to stage."""

    def test_load(self):
        cycles = 35 + TO_ACCEPTOR + ACCEPT + 15 + 2 + TO_RESPONDER + 1 + 1 + TO_LINK + 20
        assert schedule_cycles(SMALL, [load(15)]) == cycles
        assert schedule_cycles(ONE, [load(15)]) == cycles - TO_RESPONDER - 1

    def test_run(self):
        """It is answered when it is accepted."""
        cycles = 20 + TO_ACCEPTOR + ACCEPT + 2 + TO_RESPONDER + 1 + 1 + TO_LINK + 20
        assert schedule_cycles(SMALL, [run(10_000)]) == cycles

    @pytest.mark.parametrize(
        ("width", "patches", "leave"), [(1, 7, 26), (2, 4, 13), (4, 3, 7), (8, 2, 5)]
    )
    def test_results(self, width, patches, leave):
        """Two words of 3 bytes: four cycles to the first, the bytes, the end, the patches."""
        config = replace(SMALL, link=PacketStream(width=width))
        accept = ACCEPT - 16 + 16 // width
        copy = copy_cycles(Copy(2, 3, 3, 4), width, patches)
        # A task, a cycle of waiting, the words, a cycle until it is sent.
        cycles = 20 + TO_ACCEPTOR + accept + TO_RESPONDER + 1 + 1 + copy + 1 + TO_LINK + leave
        assert schedule_cycles(config, [results(2, 3)]) == cycles

    def test_commit(self):
        """The responder takes the words; then the acceptor compares, and responds."""
        commit = Exchange(Opcode.COMMIT, 20, 20, copy=Copy(4, 4, 4))
        # The memory is asked, and the task is given; the responder takes it, and waits a cycle.
        before, words = 20 + TO_ACCEPTOR + 16 + 3 + 1 + 2, copy_cycles(Copy(4, 4, 4), 1, 0)
        after = 1 + 1 + 16 + 1 + 1 + 1 + TO_LINK + 20
        assert schedule_cycles(SMALL, [commit]) == before + 2 * TO_RESPONDER + 2 + words + after
        # The memory takes four cycles. Without the queue they are not over yet, and the task is
        # taken in the cycle in which it is given.
        assert SMALL.memory.latency(SMALL) == 4
        one = schedule_cycles(ONE, [commit])
        assert one == before + 1 + words + 1 + after - 1
        # A memory that does not say is taken to have its words at once.
        silent = replace(ONE, memory=Stalling(words=64))
        assert schedule_cycles(silent, [commit]) == one - 1

    def test_frames(self):
        """On a UART: 500 cycles a byte, and eight bytes of a frame around a short packet."""
        config = replace(SMALL, link=Uart(baud=1_000_000))
        between = TO_ACCEPTOR + ACCEPT + 2 + TO_RESPONDER + 1 + 1 + 2
        assert schedule_cycles(config, [run(9)]) == 500 * 28 + between + 500 * 28


def test_scales_wait_as_activations_do():
    """For a layer that reads the same bank, and for none that reads another one."""
    for banks in ((0, 0), (0, 1), (1, 0)):
        commands = [run(500, banks[0]), load(15, banks[1]), run(9), results(2, 4)]
        scales = replace(commands[1], opcode=Opcode.SCALES)
        expected = schedule_cycles(SMALL, commands)
        assert schedule_cycles(SMALL, [commands[0], scales, *commands[2:]]) == expected
        assert (schedule_cycles(SMALL, commands[:2]) > 500) == (banks[0] == banks[1])


class TestMany:
    """The stage that binds takes all of the time, and the others the ends of it."""

    def test_acceptor_binds(self):
        one, six = (schedule_cycles(replace(SMALL, slots=16), [load(15)] * n) for n in (1, 6))
        assert six == one + 5 * (ACCEPT + 17)

    def test_link_in_binds(self):
        """Wide beats: a byte a cycle behind the link, and a cycle for each check."""
        config = replace(SMALL, slots=16, link=PacketStream(width=8))
        long = Exchange(Opcode.LOAD, 120, 20, 2)
        one, six = (schedule_cycles(config, [long] * n) for n in (1, 6))
        assert six == one + 5 * 121

    def test_link_out_binds(self):
        """A response waits until the one before has left: a cycle to hand it over, TO_LINK."""
        config = replace(SMALL, slots=64)
        response = Exchange(Opcode.LOAD, 20, 100)
        one, six = (schedule_cycles(config, [response] * n) for n in (1, 6))
        assert six == one + 5 * (1 + TO_LINK + 100)

    def test_core_binds(self):
        """From the end of a layer: RUN is chosen, the memory is asked, and the next one starts."""
        config = replace(SMALL, slots=64)
        first, second = (
            schedule_cycles(config, [run(5000, n % 2, n % 2) for n in range(n)]) for n in (2, 6)
        )
        assert second == first + 4 * (5000 + 3)

    def test_responder_binds(self):
        """RESULTS of one bank: the headers of the commands behind it keep it waiting."""
        config = replace(SMALL, slots=64, link=PacketStream(width=4))
        one, six = (schedule_cycles(config, [results(20, 4)] * n) for n in (1, 6))
        each = 1 + 1 + copy_cycles(Copy(20, 4, 4, 4), 4, 3)
        assert one + 5 * each < six <= one + 5 * (each + 4)

    def test_window(self):
        """With a window of one nothing overlaps."""
        one = schedule_cycles(SMALL, [load(15)])
        assert schedule_cycles(replace(SMALL, slots=2), [load(15)] * 4) == 4 * one
        # Three commands are accepted during the first copy, the fourth after its response.
        slow = results(20, 4, period=30)
        one, six = (schedule_cycles(SMALL, [slow] * n) for n in (1, 6))
        assert six == one + 5 * (1 + 1 + copy_cycles(slow.copy, 1, 7))


class TestBanks:
    """Who waits for whom."""

    CONFIG = replace(SMALL, slots=64)

    def cycles(self, *exchanges: Exchange) -> int:
        return schedule_cycles(self.CONFIG, exchanges)

    def test_results_wait_for_their_layer(self):
        assert self.cycles(run(5000), results(2, 4)) == 3000 + self.cycles(run(2000), results(2, 4))

    def test_results_of_the_other_bank_do_not(self):
        short, long = (self.cycles(run(engine), results(2, 4, bank=1)) for engine in (200, 5000))
        assert short == long

    def test_load_waits_for_the_bank_that_is_read(self):
        waits = [self.cycles(run(engine), load(15, 0)) for engine in (2000, 5000)]
        assert waits[1] == waits[0] + 3000
        assert self.cycles(run(5000), load(15, 1)) < 300
        assert self.cycles(run(5000, 1), load(15, 1)) == waits[1]
        assert self.cycles(run(5000, 1), load(15, 0)) < 300

    @pytest.mark.parametrize("opcode", [Opcode.DEFINE, Opcode.WRITE, Opcode.COUNTERS])
    def test_others_wait_for_the_core(self, opcode):
        short, long = (
            self.cycles(run(engine, 1), Exchange(opcode, 20, 20, 3)) for engine in (2000, 5000)
        )
        assert long == short + 3000

    def test_commit_waits_for_the_core(self):
        commit = Exchange(Opcode.COMMIT, 20, 20, copy=Copy(4, 4, 4))
        short, long = (self.cycles(run(engine), commit) for engine in (2000, 5000))
        assert long == short + 3000

    def test_commit_waits_for_the_responder(self):
        """Its checksum is a task like any other, and so is what follows."""
        commit = Exchange(Opcode.COMMIT, 20, 20, copy=Copy(104, 4, 4))
        for after in ((), (results(2, 4),)):
            short, long = (self.cycles(results(words, 5), commit, *after) for words in (20, 24))
            assert long == short + 4 * 5

    def test_nothing_follows_commit_before_its_end(self):
        """Not even the header of its own response."""
        commits = [Exchange(Opcode.COMMIT, 20, 20, copy=Copy(n, 4, 4)) for n in (104, 204)]
        short, long = (self.cycles(results(40, 5), commit, load(15)) for commit in commits)
        assert long == short + 100 * 4

    def test_run_waits_until_its_bank_is_copied(self):
        """All RESULTS of it that came before; of the other bank, none."""
        read = [results(20, 5, bank=0)] * 3
        same = self.cycles(*read, run(5000, 0, 0), results(2, 4, bank=0))
        copied = 3 * copy_cycles(Copy(20, 5, 5, 4), 1, 7)
        other = self.cycles(*read, run(5000, 0, 1), results(2, 4, bank=1))
        assert other < 5400 and same > 5000 + copied
        # Each byte that is copied more keeps the layer waiting.
        read[-1] = results(24, 5, bank=0)
        assert self.cycles(*read, run(5000, 0, 0), results(2, 4, bank=0)) == same + 4 * 5

    def test_one_bank(self):
        """Without a queue, the acceptor goes on when the responder has taken the task."""
        config = replace(ONE, slots=64)
        one, six = (schedule_cycles(config, [results(20, 4)] * n) for n in (1, 6))
        each = 1 + 1 + copy_cycles(Copy(20, 4, 4, 4), 1, 7)
        # Beside all words but the last ones, the acceptor writes the next header. The last response
        # is complete before the link is free.
        assert six == one + 16 + 4 * (each + 16) + 1 + TO_LINK + 100


def test_work():
    """What acceptor and responder do for a command, if they never wait."""
    assert load(15).accept_cycles(SMALL) == ACCEPT + 17
    assert load(15).respond_cycles(SMALL) == 1
    assert results(2, 4).accept_cycles(SMALL) == ACCEPT
    assert results(2, 4).respond_cycles(SMALL) == 2 + copy_cycles(Copy(2, 4, 4, 4), 1, 7)
    commit = Exchange(Opcode.COMMIT, 20, 20, copy=Copy(4, 4, 4))
    assert commit.accept_cycles(SMALL) == ACCEPT + 1
    assert commit.respond_cycles(SMALL) == 3 + copy_cycles(Copy(4, 4, 4), 1, 0)
    wide = replace(SMALL, link=PacketStream(width=8))
    assert load(15).accept_cycles(wide) == ACCEPT - 16 + 2 + 17
    assert results(2, 4).respond_cycles(wide) == 2 + copy_cycles(Copy(2, 4, 4, 4), 8, 2)
