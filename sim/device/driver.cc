// Runs a design made by yosys's write_cxxrtl and moves packets through its two streams.
//
// The design is the file that DESIGN names: module top with clk, rst and the streams i and o, whose
// payload is a byte in bits 7:0 and last in bit 8. Python calls the functions at the end.
//
// With UART_DIVISOR, the design has the lines rx and tx instead (8N1, that many cycles a bit), and
// what moves are single bytes.

#include DESIGN

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

template <size_t Bits>
uint32_t get(const cxxrtl::value<Bits> &port) {
    return port.data[0];
}

template <size_t Bits>
uint32_t get(const cxxrtl::wire<Bits> &port) {
    return port.curr.data[0];
}

class Device {
public:
    Device() {
        // A design without feedback is settled by one evaluation; then so is a clock cycle.
        one_pass = top.eval();
        top.commit();
        settle();
    }

    // Takes a byte from each stream with a chance of 1/4 less; 0 ends that.
    void stall(uint64_t seed) { random = seed; }

    void send(const uint8_t *packet, size_t bytes) {
        if (next == input.size()) {
            input.clear();
            next = 0;
        }
        input.insert(input.end(), packet, packet + bytes);
        if (bytes != 0)
            input.back() |= LAST;
    }

#ifdef UART_DIVISOR
    // Runs for `limit` cycles; how many bytes have come.
    size_t run(uint64_t limit) {
        for (; limit != 0; limit--)
            cycle();
        return output.size();
    }

    // Bytes that have not yet gone in whole.
    size_t pending() const { return input.size() - next + (sending != 0); }
#else
    // Runs until a packet is whole or `limit` cycles have passed; its bytes, or 0.
    size_t run(uint64_t limit) {
        for (; limit != 0 && !whole; limit--)
            cycle();
        return whole ? output.size() : 0;
    }

    size_t pending() const { return input.size() - next; }
#endif

    void take(uint8_t *packet) {
        std::memcpy(packet, output.data(), output.size());
        output.clear();
        whole = false;
    }

    uint64_t cycles = 0;

private:
    static constexpr uint16_t LAST = 0x100;

    void settle() {
        while (!top.eval() && top.commit()) {
        }
        top.commit();
    }

    bool idle() {
        if (random == 0)
            return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 32 & 3) == 0;
    }

#ifdef UART_DIVISOR
    static constexpr unsigned BITS = 10; // start, eight, stop

    void cycle() {
        if (sending == 0 && next < input.size() && !idle()) {
            sending = BITS * UART_DIVISOR;
            shift = 1u << (BITS - 1) | (input[next++] & 0xFFu) << 1;
        }
        top.p_rx.data[0] = sending == 0 || (shift & 1);
        if (one_pass) {
            top.prev_p_clk.data[0] = 0;
            top.p_clk.data[0] = 1;
            top.eval();
            sample();
            top.commit();
        } else {
            top.p_clk.data[0] = 0;
            settle();
            sample();
            top.p_clk.data[0] = 1;
            settle();
        }
        if (sending != 0 && --sending % UART_DIVISOR == 0)
            shift >>= 1;
        cycles++;
    }

    // Looks at tx in the middle of each bit, from the edge that starts a byte.
    void sample() {
        const uint32_t line = get(top.p_tx);
        if (receiving == 0) {
            if (line != 0)
                return;
            receiving = BITS * UART_DIVISOR;
        }
        const unsigned elapsed = BITS * UART_DIVISOR - receiving;
        if (elapsed % UART_DIVISOR == UART_DIVISOR / 2)
            received = received >> 1 | line << (BITS - 1);
        // The stop bit is left half way, so that the next edge is seen wherever it is.
        if (elapsed == (BITS - 1) * UART_DIVISOR + UART_DIVISOR / 2) {
            if (line != 0)
                output.push_back(static_cast<uint8_t>(received >> 1));
            receiving = 0;
        } else {
            receiving--;
        }
    }
#else
    void cycle() {
        if (!offered && next < input.size() && !idle()) {
            offered = true;
            top.p_i____payload.data[0] = input[next];
        }
        const bool taking = !idle();
        top.p_i____valid.data[0] = offered;
        top.p_o____ready.data[0] = taking;
        if (one_pass) {
            // Outputs are those before the edge: registers change in commit() only.
            top.prev_p_clk.data[0] = 0;
            top.p_clk.data[0] = 1;
            top.eval();
            transfer(taking);
            top.commit();
        } else {
            top.p_clk.data[0] = 0;
            settle();
            transfer(taking);
            top.p_clk.data[0] = 1;
            settle();
        }
        cycles++;
    }

    void transfer(bool taking) {
        if (offered && get(top.p_i____ready)) {
            offered = false;
            next++;
        }
        if (taking && get(top.p_o____valid)) {
            const uint32_t payload = get(top.p_o____payload);
            output.push_back(static_cast<uint8_t>(payload));
            whole = (payload & LAST) != 0;
        }
    }
#endif

    cxxrtl_design::p_top top;
    bool one_pass;
    std::vector<uint16_t> input;
    size_t next = 0;
    bool offered = false;
    unsigned sending = 0, receiving = 0; // cycles left of the byte on each line
    uint32_t shift = 0, received = 0;
    std::vector<uint8_t> output;
    bool whole = false;
    uint64_t random = 0;
};

} // namespace

extern "C" {

Device *tritloom_open() { return new Device; }
void tritloom_close(Device *device) { delete device; }
void tritloom_stall(Device *device, uint64_t seed) { device->stall(seed); }
void tritloom_send(Device *device, const uint8_t *packet, size_t bytes) { device->send(packet, bytes); }
size_t tritloom_run(Device *device, uint64_t limit) { return device->run(limit); }
size_t tritloom_pending(const Device *device) { return device->pending(); }
void tritloom_take(Device *device, uint8_t *packet) { device->take(packet); }
uint64_t tritloom_cycles(const Device *device) { return device->cycles; }
}
