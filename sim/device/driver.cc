// Runs a design that write_cxxrtl of yosys made, and moves packets through its two streams.
//
// The macro DESIGN names the design's file. Its module top has clk, rst and the streams i and o. A
// payload has the bytes of a beat, the first one lowest, and last above them. Beats are copied into
// the 32-bit chunks of CXXRTL as they are, so the host must be little-endian. Python calls the
// functions at the end of this file.
//
// With the macro UART_DIVISOR the design has the lines rx and tx instead of the streams: 8N1, each
// bit UART_DIVISOR cycles long. Then single bytes move, not packets.
//
// With the macro STORES the design has a model of its memory's chip, with the output violation and
// the ports store_0, … to words that are kept here. STORES has for each of them
// STORE(number, number of the store whose words it uses, words).
//
// With the macro DRAM, which has DRAM_PORT(number) for each of DRAM_PORTS ports, the model has the
// ports dram_0, … to the DRAM of dram.h.
//
// With the macros MEMORY_HZ and CLOCK_HZ the design has a second clock, memory_clk, of the first of
// these frequencies; clk has the second one. The model of the memory's chip is at memory_clk. Where
// edges of both clocks fall together, each side sees what the other had before.
//
// With the macro MARKS the cycles are kept in which the outputs good and running tell of a packet
// and of a layer.

#include DESIGN
#ifdef DRAM
#include "dram.h"
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
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

template <size_t Bits>
const uint32_t *words(const cxxrtl::value<Bits> &port) {
    return port.data;
}

template <size_t Bits>
const uint32_t *words(const cxxrtl::wire<Bits> &port) {
    return port.curr.data;
}

#ifdef STORES
// Words outside of the design. A page of the computer's memory is taken when it is first written.
class Store {
public:
    ~Store() { std::free(bytes); }

    void allocate(size_t count, size_t word_bytes) {
        size = count * word_bytes;
        bytes = static_cast<uint8_t *>(std::calloc(count, word_bytes));
        if (bytes == nullptr)
            throw std::bad_alloc();
    }

    uint8_t *bytes = nullptr;
    size_t size = 0;
};

// A port to a store: reads a word for the next cycle, and writes the bytes that `write` marks.
class StorePort {
public:
    template <size_t Bits, class Address, class Write, class Data>
    void access(Store &store, const Address &address, const Write &write, const Data &data) {
        constexpr size_t bytes = Bits / 8;
        static_assert(bytes <= sizeof word, "a store's words have at most 1024 bits");
        const size_t place = static_cast<size_t>(get(address)) * bytes;
        if (place + bytes > store.size) {
            std::memset(word, 0, bytes);
            return;
        }
        uint8_t *at = store.bytes + place;
        std::memcpy(word, at, bytes);
        const uint32_t *mask = words(write);
        const uint32_t *from = words(data);
        for (size_t n = 0; n < bytes; n++)
            if (mask[n / 32] >> n % 32 & 1)
                at[n] = static_cast<uint8_t>(from[n / 4] >> n % 4 * 8);
    }

    uint8_t word[128];
};
#endif

class Device {
public:
    Device() {
#ifdef STORES
#define STORE(n, of, count)                                                                        \
    if (n == of)                                                                                   \
        stores[n].allocate(count, decltype(top.p_store__##n##____word)::bits / 8);
        STORES
#undef STORE
#endif
        // If one evaluation settles the design, it has no combinational feedback between modules,
        // and one evaluation is enough for each clock cycle, too.
        one_pass = top.eval();
        top.commit();
        settle();
    }

    // Lets each stream pause in a quarter of the cycles, at random; a seed of 0 ends that.
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
    // Runs for `limit` cycles. Returns the number of bytes that have come out.
    size_t run(uint64_t limit) {
        for (; limit != 0 && violation == 0; limit--)
            cycle();
        return output.size();
    }

    // Number of bytes that have not gone in completely.
    size_t pending() const { return input.size() - next + (sending != 0); }
#else
    // Runs until a whole packet has come out or `limit` cycles have passed. Returns the number of
    // bytes of the packet, or 0.
    size_t run(uint64_t limit) {
        for (; limit != 0 && !whole && violation == 0; limit--)
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
    uint32_t violation = 0; // number of the rule that the memory has broken
#ifdef STORES
    Store stores[4];
#endif
#ifdef DRAM
    Dram dram;

    void start_dram() {
        dram.start(DRAM_PORTS);
        give_dram();
    }
#endif

    // Cycles of sound packets; the first cycle of each layer; its last one.
    std::vector<uint64_t> marks[3];

private:
    // Uses the outputs of this cycle, before the clock edge.
    void mark() {
#ifdef MARKS
        if (get(top.p_good))
            marks[0].push_back(cycles);
        const bool running = get(top.p_running) != 0;
        if (running && !was_running)
            marks[1].push_back(cycles);
        if (!running && was_running)
            marks[2].push_back(cycles - 1);
        was_running = running;
#endif
    }

    static constexpr uint16_t LAST = 0x100;

    void settle() {
        while (!top.eval() && top.commit()) {
        }
        top.commit();
    }

    // A cycle of clk, and all edges of memory_clk in it, the last one perhaps at its end.
    // `before` uses the outputs before the edge of clk.
    template <class Before>
    void clock(Before before) {
#ifdef MEMORY_HZ
        memory_phase += MEMORY_HZ;
        while (memory_phase > CLOCK_HZ) {
            memory_phase -= CLOCK_HZ;
            edge(false, true, [] {});
        }
        const bool both = memory_phase == CLOCK_HZ;
        if (both)
            memory_phase = 0;
        edge(true, both, before);
#else
        edge(true, true, before);
#endif
    }

    // A rising edge of clk, of memory_clk, or of both.
    template <class Before>
    void edge(bool of_clk, bool of_memory, Before before) {
        if (one_pass) {
            // Registers change in commit(), so the outputs here are those before the clock edge.
            set_clocks(of_clk, of_memory);
            top.eval();
            before();
            if (of_memory)
                access_stores();
            top.commit();
        } else {
            lower_clocks(of_clk, of_memory);
            settle();
            before();
            if (of_memory)
                access_stores();
            raise_clocks(of_clk, of_memory);
            settle();
        }
        if (of_memory)
            give_words();
    }

    void set_clocks(bool of_clk, bool of_memory) {
        if (of_clk) {
            top.prev_p_clk.data[0] = 0;
            top.p_clk.data[0] = 1;
        }
#ifdef MEMORY_HZ
        if (of_memory) {
            top.prev_p_memory__clk.data[0] = 0;
            top.p_memory__clk.data[0] = 1;
        }
#endif
    }

    void lower_clocks(bool of_clk, bool of_memory) {
        if (of_clk)
            top.p_clk.data[0] = 0;
#ifdef MEMORY_HZ
        if (of_memory)
            top.p_memory__clk.data[0] = 0;
#endif
    }

    void raise_clocks(bool of_clk, bool of_memory) {
        if (of_clk)
            top.p_clk.data[0] = 1;
#ifdef MEMORY_HZ
        if (of_memory)
            top.p_memory__clk.data[0] = 1;
#endif
    }

    bool idle() {
        if (random == 0)
            return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 32 & 3) == 0;
    }

    // Uses the model's outputs of this cycle, before the clock edge.
    void access_stores() {
#ifdef STORES
        if (violation == 0)
            violation = get(top.p_violation);
#define STORE(n, of, count)                                                                        \
    ports[n].access<decltype(top.p_store__##n##____word)::bits>(                                   \
        stores[of], top.p_store__##n##____address, top.p_store__##n##____write,                    \
        top.p_store__##n##____data);
        STORES
#undef STORE
#endif
#ifdef DRAM
        Dram::Input inputs[DRAM_PORTS];
#define DRAM_PORT(n)                                                                               \
    inputs[n] = {get(top.p_dram__##n##____arrives) != 0, get(top.p_dram__##n##____beat),            \
                 get(top.p_dram__##n##____beats), get(top.p_dram__##n##____leaves) != 0};
        DRAM
#undef DRAM_PORT
        dram.step(inputs);
#endif
    }

    // Gives the words of this cycle's addresses to the next cycle.
    void give_words() {
#ifdef STORES
#define STORE(n, of, count)                                                                        \
    std::memcpy(top.p_store__##n##____word.data, ports[n].word,                                    \
                decltype(top.p_store__##n##____word)::bits / 8);
        STORES
#undef STORE
#endif
#ifdef DRAM
        give_dram();
#endif
    }

#ifdef DRAM
    // What the DRAM lets each port do in the next cycle.
    void give_dram() {
#define DRAM_PORT(n)                                                                               \
    top.p_dram__##n##____room.data[0] = dram.output(n).room;                                        \
    top.p_dram__##n##____due.data[0] = dram.output(n).due;
        DRAM
#undef DRAM_PORT
    }
#endif

#ifdef UART_DIVISOR
    static constexpr unsigned BITS = 10; // a start bit, eight data bits, a stop bit

    void cycle() {
        if (sending == 0 && next < input.size() && !idle()) {
            sending = BITS * UART_DIVISOR;
            shift = 1u << (BITS - 1) | (input[next++] & 0xFFu) << 1;
        }
        top.p_rx.data[0] = sending == 0 || (shift & 1);
        clock([&] { sample(); });
        if (sending != 0 && --sending % UART_DIVISOR == 0)
            shift >>= 1;
        cycles++;
    }

    // Reads tx in the middle of each bit, counted from the falling edge that starts a byte.
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
        // A byte ends in the middle of its stop bit, so that an early start bit is not missed.
        if (elapsed == (BITS - 1) * UART_DIVISOR + UART_DIVISOR / 2) {
            if (line != 0)
                output.push_back(static_cast<uint8_t>(received >> 1));
            receiving = 0;
        } else {
            receiving--;
        }
    }
#else
    static constexpr size_t BEAT = (decltype(cxxrtl_design::p_top::p_i____payload)::bits - 1) / 8;
    static constexpr uint8_t UNUSED = 0xA5; // what follows a packet in its last beat

    // Offers the next bytes, up to the end of their packet.
    void offer() {
        uint8_t beat[BEAT];
        std::memset(beat, UNUSED, BEAT);
        offered = 0;
        bool last = false;
        while (!last && offered < BEAT && next + offered < input.size()) {
            const uint16_t byte = input[next + offered];
            beat[offered++] = static_cast<uint8_t>(byte);
            last = (byte & LAST) != 0;
        }
        std::memcpy(top.p_i____payload.data, beat, BEAT);
        uint32_t &above = top.p_i____payload.data[BEAT / 4];
        const unsigned place = BEAT % 4 * 8;
        above = (above & ((1u << place) - 1)) | static_cast<uint32_t>(last) << place;
    }

    void cycle() {
        if (offered == 0 && next < input.size() && !idle())
            offer();
        const bool taking = !idle();
        top.p_i____valid.data[0] = offered != 0;
        top.p_o____ready.data[0] = taking;
        clock([&] {
            transfer(taking);
            mark();
        });
        cycles++;
    }

    void transfer(bool taking) {
        if (offered != 0 && get(top.p_i____ready)) {
            next += offered;
            offered = 0;
        }
        if (taking && get(top.p_o____valid)) {
            const uint32_t *beat = words(top.p_o____payload);
            output.resize(output.size() + BEAT);
            std::memcpy(&output[output.size() - BEAT], beat, BEAT);
            whole = (beat[BEAT / 4] >> BEAT % 4 * 8 & 1) != 0;
            // A packet says its length; what follows it in its last beat is no part of it.
            const size_t excess = output.size() - (output[0] | output[1] << 8);
            if (whole && excess < BEAT)
                output.resize(output.size() - excess);
        }
    }
#endif

    cxxrtl_design::p_top top;
    bool one_pass;
    bool was_running = false;
#ifdef STORES
    StorePort ports[4];
#endif
    std::vector<uint16_t> input;
    size_t next = 0;
    size_t offered = 0; // bytes of the beat at the input
    unsigned sending = 0, receiving = 0; // cycles that remain of the byte on each line
    uint32_t shift = 0, received = 0;
    std::vector<uint8_t> output;
    bool whole = false;
    uint64_t random = 0;
#ifdef MEMORY_HZ
    uint64_t memory_phase = 0; // time since the last edge of memory_clk, in 1 / (both frequencies)
#endif
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
uint32_t tritloom_violation(const Device *device) { return device->violation; }

#ifdef STORES
size_t tritloom_store_size(const Device *device, size_t number) { return device->stores[number].size; }
void tritloom_store_read(const Device *device, size_t number, size_t start, uint8_t *bytes, size_t count) {
    std::memcpy(bytes, device->stores[number].bytes + start, count);
}
void tritloom_store_write(Device *device, size_t number, size_t start, const uint8_t *bytes, size_t count) {
    std::memcpy(device->stores[number].bytes + start, bytes, count);
}
#endif

#ifdef DRAM
bool tritloom_dram_set(Device *device, const char *name, int64_t value) { return device->dram.set(name, value); }
void tritloom_dram_start(Device *device) { device->start_dram(); }
#endif

size_t tritloom_marks(const Device *device, size_t kind, uint64_t *cycles) {
    const std::vector<uint64_t> &marks = device->marks[kind];
    if (cycles != nullptr)
        std::memcpy(cycles, marks.data(), marks.size() * sizeof cycles[0]);
    return marks.size();
}

uint64_t tritloom_cycles(const Device *device) { return device->cycles; }
}
