// Runs layers on a Core that write_cxxrtl of yosys made: loads the activations, feeds the weight words
// of a run, fetches the results. The macro DESIGN names the design's file. Records are copied into
// the 32-bit chunks of CXXRTL as they are, so the host must be little-endian.

#include DESIGN

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

template <size_t Bits>
const uint32_t *words(const cxxrtl::value<Bits> &port) {
    return port.data;
}

template <size_t Bits>
const uint32_t *words(const cxxrtl::wire<Bits> &port) {
    return port.curr.data;
}

template <size_t Bits>
void set(cxxrtl::value<Bits> &port, const uint8_t *bytes, size_t count) {
    std::memset(port.data, 0, sizeof port.data);
    std::memcpy(port.data, bytes, std::min(count, sizeof port.data));
}

// A stream into the design: offers one record after another.
struct Source {
    const uint8_t *next;
    size_t record;
    size_t left;

    template <class Valid, class Payload>
    void offer(Valid &valid, Payload &payload) const {
        valid.data[0] = left != 0;
        if (left != 0)
            set(payload, next, record);
    }

    void advance() {
        next += record;
        left--;
    }
};

class Device {
public:
    Device() {
        top.p_rst.data[0] = 0;
        top.eval();
        top.commit();
        settle();
    }

    // Loads all records. Returns whether the design took them within `limit` cycles.
    bool load(Source loads, uint64_t limit) {
        return store(loads, limit, top.p_i__load____valid, top.p_i__load____payload,
                     top.p_i__load____ready);
    }

    // The same with scales of activations. A design without them takes no record.
    bool load_scales(Source scales, uint64_t limit) {
        return store_scales(scales, limit, top, 0);
    }

    // Runs a layer. Returns its cycles, from the one after the run was taken to the one in which
    // `done` is high; 0 if they exceed `limit`.
    uint64_t run(const uint8_t *shape, size_t bytes, Source image, uint64_t limit) {
        Source request{shape, bytes, 1};
        uint64_t cycles = 0;
        bool done = false;
        while (!done && cycles < limit) {
            const bool running = request.left == 0;
            request.offer(top.p_i__run____valid, top.p_i__run____payload);
            image.offer(top.p_i__word____valid, top.p_i__word____payload);
            edge([&] {
                if (!running && words(top.p_i__run____ready)[0])
                    request.advance();
                if (image.left != 0 && words(top.p_i__word____ready)[0])
                    image.advance();
                done = running && words(top.p_done)[0];
            });
            cycles += running;
        }
        top.p_i__word____valid.data[0] = 0;
        return done && image.left == 0 ? cycles : 0;
    }

    // Fetches the row groups 0 to groups - 1. Returns whether all came within `limit` cycles.
    bool fetch(uint32_t groups, uint8_t *results, size_t record, uint64_t limit) {
        uint32_t requested = 0, received = 0;
        top.p_o____ready.data[0] = 1;
        for (; received != groups && limit != 0; limit--) {
            top.p_i__fetch____valid.data[0] = requested != groups;
            top.p_i__fetch____payload.data[0] = requested;
            edge([&] {
                if (requested != groups && words(top.p_i__fetch____ready)[0])
                    requested++;
                if (words(top.p_o____valid)[0])
                    std::memcpy(results + record * received++, words(top.p_o____payload), record);
            });
        }
        top.p_i__fetch____valid.data[0] = 0;
        return received == groups;
    }

private:
    template <class Valid, class Payload, class Ready>
    bool store(Source records, uint64_t limit, Valid &valid, Payload &payload, const Ready &ready) {
        for (; records.left != 0 && limit != 0; limit--) {
            records.offer(valid, payload);
            edge([&] {
                if (words(ready)[0])
                    records.advance();
            });
        }
        valid.data[0] = 0;
        return records.left == 0;
    }

    // Chosen if the design has the port.
    template <class Top>
    auto store_scales(Source scales, uint64_t limit, Top &design, int)
        -> decltype(design.p_i__scale____valid, true) {
        return store(scales, limit, design.p_i__scale____valid, design.p_i__scale____payload,
                     design.p_i__scale____ready);
    }

    template <class Top>
    bool store_scales(Source scales, uint64_t, Top &, long) {
        return scales.left == 0;
    }

    void settle() {
        while (!top.eval() && top.commit()) {
        }
        top.commit();
    }

    // Calls `sample` with the outputs before the clock edge, then lets the registers change.
    template <class Sample>
    void edge(Sample sample) {
        top.p_clk.data[0] = 0;
        settle();
        sample();
        top.p_clk.data[0] = 1;
        settle();
    }

    cxxrtl_design::p_top top;
};

} // namespace

extern "C" {

Device *tritloom_open() { return new Device; }
void tritloom_close(Device *device) { delete device; }

bool tritloom_load(Device *device, const uint8_t *loads, size_t record, size_t count, uint64_t limit) {
    return device->load({loads, record, count}, limit);
}

bool tritloom_load_scales(Device *device, const uint8_t *scales, size_t record, size_t count,
                          uint64_t limit) {
    return device->load_scales({scales, record, count}, limit);
}

uint64_t tritloom_run(Device *device, const uint8_t *shape, size_t bytes, const uint8_t *image,
                      size_t word_bytes, size_t count, uint64_t limit) {
    return device->run(shape, bytes, {image, word_bytes, count}, limit);
}

bool tritloom_fetch(Device *device, uint32_t groups, uint8_t *results, size_t record, uint64_t limit) {
    return device->fetch(groups, results, record, limit);
}
}
