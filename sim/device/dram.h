// The time that a DRAM takes for the bursts of several ports: banks, bank groups, page misses,
// refresh, one data bus. It holds no content.
//
// Every time is in ticks of TICKS to a cycle of the ports' clock. Python gives the numbers by name,
// see tritloom/sim/models/dram.py, where each is explained.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

class Dram {
public:
    static constexpr int64_t TICKS = 64;

    // What a port does in a cycle.
    struct Input {
        bool arrives;  // a burst is taken
        uint64_t beat; // address of its first beat, in beats
        unsigned beats;
        bool leaves; // the beat that is due goes out
    };

    // What a port may do in the next cycle.
    struct Output {
        bool room; // take a burst
        bool due;  // send the next beat of its oldest burst
    };

    // Sets one of the numbers; false if there is none of that name.
    bool set(const char *name, int64_t value) {
        for (const Number &number : NUMBERS)
            if (std::strcmp(number.name, name) == 0) {
                this->*number.member = value;
                return true;
            }
        return false;
    }

    // Begins, with all numbers set.
    void start(size_t number_of_ports) {
        ports.assign(number_of_ports, Port());
        banks.assign(static_cast<size_t>(bank_groups * group_banks), Bank());
        activates.assign(4, -faw);
        next_refresh = refi;
    }

    Output output(size_t number) const {
        const Port &port = ports[number];
        return {static_cast<int64_t>(port.flying.size()) < outstanding,
                !port.served.empty() && port.served.front().due <= now * TICKS};
    }

    // A cycle of the ports' clock.
    void step(const Input *inputs) {
        while (decide()) {
        }
        for (size_t n = 0; n < ports.size(); n++) {
            if (inputs[n].leaves)
                leave(ports[n]);
            if (inputs[n].arrives)
                arrive(ports[n], inputs[n].beat + place(n), inputs[n].beats);
        }
        now++;
    }

private:
    struct Number {
        const char *name;
        int64_t Dram::*member;
    };

    // Beats of one burst in one line of the DRAM.
    struct Access {
        int64_t line;
        int64_t beats;
        int64_t born; // of the burst
        int64_t due;
    };

    struct Port {
        std::deque<Access> waiting, served;
        std::deque<int64_t> flying; // beats of each burst that have not left
    };

    struct Bank {
        bool open = false;
        int64_t row = 0;
        int64_t activated = 0; // or, of a closed bank, when it may be activated
        int64_t closable = 0;
    };

    // An access that may be next.
    struct Choice {
        bool starved;
        int64_t time; // of its read
        int64_t born;
        bool hit;
        int64_t group, row;
        size_t bank;
    };

    // Beats that are added to the addresses of a port, as if its region lay there.
    uint64_t place(size_t number) const {
        const int64_t places[] = {place_0, place_1, place_2, place_3};
        return static_cast<uint64_t>(places[number]);
    }

    void arrive(Port &port, uint64_t beat, unsigned beats) {
        port.flying.push_back(beats);
        const uint64_t line_beats = static_cast<uint64_t>(line_bytes / beat_bytes);
        while (beats != 0) {
            const uint64_t room = line_beats - beat % line_beats;
            const uint64_t count = std::min<uint64_t>(beats, room);
            port.waiting.push_back({static_cast<int64_t>(beat / line_beats),
                                    static_cast<int64_t>(count), now * TICKS, 0});
            beat += count;
            beats -= static_cast<unsigned>(count);
        }
    }

    void leave(Port &port) {
        if (--port.served.front().beats == 0)
            port.served.pop_front();
        if (--port.flying.front() == 0)
            port.flying.pop_front();
    }

    // When an access could be read, and where it lies: pages go round the banks, lines round the
    // bank groups.
    Choice choice(const Access &access) const {
        Choice c;
        c.starved = now * TICKS > access.born + starved;
        c.born = access.born;
        c.group = access.line % bank_groups;
        const int64_t page = access.line / bank_groups / page_lines;
        c.bank = static_cast<size_t>(c.group * group_banks + page % group_banks);
        c.row = page / group_banks;
        const Bank &bank = banks[c.bank];
        c.hit = bank.open && bank.row == c.row;
        const int64_t gap = last_read + (c.group == read_group ? group_gap : burst_gap);
        if (c.hit) {
            c.time = std::max(access.born, gap);
            return c;
        }
        const int64_t closed = std::max(bank.closable, bank.activated + ras) + rp;
        const int64_t activate =
            std::max({access.born, bank.open ? closed : bank.activated,
                      last_activate + (c.group == activate_group ? rrd_group : rrd),
                      activates.front() + faw});
        c.time = std::max(activate + rcd, gap);
        return c;
    }

    // Whether one access goes before another of a port that comes later in turn. A row that can be
    // open in time is as good as an open one, because it is opened while others are read.
    static bool before(const Choice &a, const Choice &b) {
        if (a.starved != b.starved)
            return a.starved;
        if (a.time != b.time)
            return a.time < b.time;
        return a.born < b.born;
    }

    // Refreshes, or serves an access; false if nothing can be decided in this cycle.
    bool decide() {
        const int64_t time = now * TICKS;
        if (next_refresh <= std::max(last_read, time)) {
            refresh();
            return true;
        }
        if (last_read > time + ahead)
            return false;
        Port *port = nullptr;
        Choice best{};
        for (size_t n = 0; n < ports.size(); n++) {
            Port &candidate = ports[(turn + n) % ports.size()];
            if (candidate.waiting.empty())
                continue;
            const Choice c = choice(candidate.waiting.front());
            if (port == nullptr || before(c, best)) {
                port = &candidate;
                best = c;
            }
        }
        if (port == nullptr)
            return false;
        serve(*port, best);
        return true;
    }

    void serve(Port &port, const Choice &c) {
        Bank &bank = banks[c.bank];
        if (!c.hit) {
            bank.open = true;
            bank.row = c.row;
            bank.activated = last_activate = c.time - rcd;
            activate_group = c.group;
            activates.pop_front();
            activates.push_back(bank.activated);
        }
        bank.closable = c.time + rtp;
        last_read = c.time;
        read_group = c.group;
        turn = (turn + 1) % ports.size();
        Access access = port.waiting.front();
        port.waiting.pop_front();
        access.due = c.time + transfer;
        port.served.push_back(access);
    }

    // Closes all banks and refreshes them.
    void refresh() {
        int64_t begin = std::max(next_refresh, last_read);
        for (const Bank &bank : banks)
            begin = std::max(begin, bank.closable);
        begin += rp;
        for (Bank &bank : banks) {
            bank.open = false;
            bank.activated = begin + rfc;
        }
        last_read = std::max(last_read, begin);
        next_refresh += refi;
    }

    int64_t beat_bytes = 0, line_bytes = 0, bank_groups = 0, group_banks = 0, page_lines = 0;
    int64_t burst_gap = 0, group_gap = 0, rcd = 0, rp = 0, ras = 0, rrd = 0, rrd_group = 0, faw = 0,
            rtp = 0, refi = 0, rfc = 0, transfer = 0, starved = 0, ahead = 0;
    int64_t outstanding = 0;
    int64_t place_0 = 0, place_1 = 0, place_2 = 0, place_3 = 0;
    static const std::vector<Number> NUMBERS;

    int64_t now = 0; // in cycles
    int64_t last_read = 0, last_activate = 0, next_refresh = 0;
    int64_t read_group = 0, activate_group = 0;
    size_t turn = 0; // the port that is asked first
    std::vector<Port> ports;
    std::vector<Bank> banks;
    std::deque<int64_t> activates; // the last four
};

#define TRITLOOM_NUMBER(name) {#name, &Dram::name}
inline const std::vector<Dram::Number> Dram::NUMBERS = {
    TRITLOOM_NUMBER(beat_bytes), TRITLOOM_NUMBER(line_bytes), TRITLOOM_NUMBER(bank_groups),
    TRITLOOM_NUMBER(group_banks), TRITLOOM_NUMBER(page_lines), TRITLOOM_NUMBER(burst_gap),
    TRITLOOM_NUMBER(group_gap), TRITLOOM_NUMBER(rcd), TRITLOOM_NUMBER(rp), TRITLOOM_NUMBER(ras),
    TRITLOOM_NUMBER(rrd), TRITLOOM_NUMBER(rrd_group), TRITLOOM_NUMBER(faw), TRITLOOM_NUMBER(rtp),
    TRITLOOM_NUMBER(refi), TRITLOOM_NUMBER(rfc), TRITLOOM_NUMBER(transfer),
    TRITLOOM_NUMBER(starved), TRITLOOM_NUMBER(ahead),
    TRITLOOM_NUMBER(outstanding), TRITLOOM_NUMBER(place_0), TRITLOOM_NUMBER(place_1),
    TRITLOOM_NUMBER(place_2), TRITLOOM_NUMBER(place_3)};
#undef TRITLOOM_NUMBER
