// Runs a design that write_cxxrtl of yosys made, and moves Ethernet frames through its GMII pads.
//
// The macro DESIGN names the design's file. Its module top has the clock clk, the PHY's clock
// rx_clk and the pads rx, rx_dv, rx_er, tx and tx_en that belong to it. The two clocks have any
// ratio. Python calls the functions at the end of this file.

#include DESIGN

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

namespace {

constexpr size_t GAP = 12, PREAMBLE = 8, FCS = 4, LEAST = 60;
constexpr uint16_t VALID = 0x100, ERROR = 0x200; // beside a byte on the wire

template <size_t Bits>
uint32_t get(const cxxrtl::value<Bits> &port) {
    return port.data[0];
}

template <size_t Bits>
uint32_t get(const cxxrtl::wire<Bits> &port) {
    return port.curr.data[0];
}

std::array<uint32_t, 256> crc_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
        table[byte] = value;
    }
    return table;
}

uint32_t crc(const uint8_t *bytes, size_t size) {
    static const std::array<uint32_t, 256> table = crc_table();
    uint32_t value = ~0u;
    for (size_t n = 0; n < size; n++)
        value = value >> 8 ^ table[(value ^ bytes[n]) & 0xFF];
    return ~value;
}

class Board {
public:
    // Both periods in the same unit of time.
    Board(uint64_t phy_period, uint64_t sync_period) : periods{phy_period, sync_period} {
        one_pass = top.eval();
        top.commit();
        settle();
        next_edge[0] = phy_period;
        next_edge[1] = sync_period;
    }

    // A frame from its destination to its payload: padded, with preamble, FCS and gap.
    void frame(const uint8_t *bytes, size_t size) {
        std::vector<uint8_t> whole(bytes, bytes + size);
        if (size < LEAST)
            whole.resize(LEAST);
        const uint32_t check = crc(whole.data(), whole.size());
        for (size_t n = 0; n < FCS; n++)
            whole.push_back(static_cast<uint8_t>(check >> 8 * n));
        for (size_t n = 0; n < PREAMBLE; n++)
            input.push_back(VALID | (n == PREAMBLE - 1 ? 0xD5 : 0x55));
        for (const uint8_t byte : whole)
            input.push_back(VALID | byte);
        input.insert(input.end(), GAP, 0);
    }

    // What is on the wire in each cycle: a byte, VALID, ERROR.
    void wire(const uint16_t *cycles_of, size_t size) {
        input.insert(input.end(), cycles_of, cycles_of + size);
    }

    // Runs until all input is in and nothing has happened for `quiet` cycles of the PHY, until
    // `most` frames have come out, or for `limit` cycles. Returns the number of frames that wait.
    size_t run(uint64_t limit, uint64_t quiet, size_t most) {
        while (limit != 0 && frames.size() < most && !wrong) {
            if (input.empty() && idle >= quiet)
                break;
            if (step())
                limit--;
        }
        return frames.size();
    }

    size_t size() const { return frames.empty() ? 0 : frames.front().size(); }

    void take(uint8_t *bytes) {
        std::memcpy(bytes, frames.front().data(), frames.front().size());
        frames.pop_front();
    }

    // Begins to count quiet cycles anew.
    void wake() { idle = 0; }

    uint64_t cycles = 0, sync_cycles = 0, running_cycles = 0;
    uint64_t sent_bytes = 0; // byte times of frames that the design has sent, preamble included
    bool wrong = false;      // the design has sent what is no frame

private:
    void settle() {
        while (!top.eval() && top.commit()) {
        }
        top.commit();
    }

    // The next edge of a clock, or of both. Returns whether the PHY's was among them.
    bool step() {
        const uint64_t now = next_edge[0] < next_edge[1] ? next_edge[0] : next_edge[1];
        const bool phy = next_edge[0] == now, sync = next_edge[1] == now;
        if (phy) {
            const uint16_t item = input.empty() ? 0 : input.front();
            top.p_rx.data[0] = item & 0xFF;
            top.p_rx__dv.data[0] = (item & VALID) != 0;
            top.p_rx__er.data[0] = (item & ERROR) != 0;
        }
        if (one_pass) {
            // Registers change in commit(), so the outputs are those before the clock edge.
            top.prev_p_rx__clk.data[0] = !phy;
            top.p_rx__clk.data[0] = 1;
            top.prev_p_clk.data[0] = !sync;
            top.p_clk.data[0] = 1;
            top.eval();
            observe(phy, sync);
            top.commit();
        } else {
            if (phy)
                top.p_rx__clk.data[0] = 0;
            if (sync)
                top.p_clk.data[0] = 0;
            settle();
            observe(phy, sync);
            if (phy)
                top.p_rx__clk.data[0] = 1;
            if (sync)
                top.p_clk.data[0] = 1;
            settle();
        }
        if (phy) {
            next_edge[0] += periods[0];
            cycles++;
            if (!input.empty())
                input.pop_front();
        }
        if (sync) {
            next_edge[1] += periods[1];
            sync_cycles++;
        }
        return phy;
    }

    void observe(bool phy, bool sync) {
#ifdef RUNNING
        const bool runs = get(top.p_running) != 0;
#else
        const bool runs = false;
#endif
        if (sync && runs)
            running_cycles++;
        if (!phy)
            return;
        const bool en = get(top.p_tx__en) != 0;
        if (en) {
            // The first frame of all may begin at any time.
            if (output.empty() && gap < GAP && sent_bytes != 0)
                wrong = true;
            output.push_back(static_cast<uint8_t>(get(top.p_tx)));
            sent_bytes++;
            gap = 0;
        } else {
            gap++;
            if (!output.empty())
                end_frame();
        }
        idle = en || runs || !input.empty() ? 0 : idle + 1;
    }

    void end_frame() {
        bool right = output.size() >= PREAMBLE + LEAST + FCS;
        for (size_t n = 0; right && n < PREAMBLE; n++)
            right = output[n] == (n == PREAMBLE - 1 ? 0xD5 : 0x55);
        if (right) {
            const size_t size = output.size() - PREAMBLE - FCS;
            const uint32_t check = crc(&output[PREAMBLE], size);
            for (size_t n = 0; n < FCS; n++)
                right = right && output[PREAMBLE + size + n] == (check >> 8 * n & 0xFF);
        }
        if (right)
            frames.emplace_back(output.begin() + PREAMBLE, output.end() - FCS);
        else
            wrong = true;
        output.clear();
    }

    cxxrtl_design::p_top top;
    bool one_pass;
    const uint64_t periods[2]; // of the PHY's clock, of clk
    uint64_t next_edge[2];
    uint64_t idle = 0, gap = 0;
    std::deque<uint16_t> input;
    std::vector<uint8_t> output;
    std::deque<std::vector<uint8_t>> frames;
};

} // namespace

extern "C" {

Board *tritloom_open(uint64_t phy_period, uint64_t sync_period) { return new Board(phy_period, sync_period); }
void tritloom_close(Board *board) { delete board; }
void tritloom_frame(Board *board, const uint8_t *bytes, size_t size) { board->frame(bytes, size); }
void tritloom_wire(Board *board, const uint16_t *cycles, size_t size) { board->wire(cycles, size); }
size_t tritloom_run(Board *board, uint64_t limit, uint64_t quiet, size_t most) { return board->run(limit, quiet, most); }
void tritloom_wake(Board *board) { board->wake(); }
size_t tritloom_size(const Board *board) { return board->size(); }
void tritloom_take(Board *board, uint8_t *bytes) { board->take(bytes); }
uint32_t tritloom_wrong(const Board *board) { return board->wrong; }
uint64_t tritloom_count(const Board *board, size_t what) {
    const uint64_t counts[] = {board->cycles, board->sync_cycles, board->running_cycles, board->sent_bytes};
    return counts[what];
}
}
