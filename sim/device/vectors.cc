// Sends vectors through a block that write_cxxrtl of yosys made, one in each cycle in which the block
// takes it, and stores its results. The macro DESIGN names the design's file. Vectors are copied into
// the 32-bit chunks of CXXRTL as they are, so the host must be little-endian.

#include DESIGN

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

template <size_t Bits>
const cxxrtl::value<Bits> &current(const cxxrtl::value<Bits> &port) {
    return port;
}

template <size_t Bits>
const cxxrtl::value<Bits> &current(const cxxrtl::wire<Bits> &port) {
    return port.curr;
}

void settle(cxxrtl_design::p_top &top) {
    while (!top.eval() && top.commit()) {
    }
    top.commit();
}

} // namespace

extern "C" {

// Returns the number of results, which is less than `count` if `limit` cycles pass.
uint64_t tritloom_vectors(const uint32_t *inputs, uint32_t *results, uint64_t count, uint64_t limit) {
    cxxrtl_design::p_top top;
    const size_t input_words = sizeof top.p_i__data.data / sizeof(uint32_t);
    const size_t result_words = sizeof current(top.p_o__data).data / sizeof(uint32_t);
    uint64_t sent = 0, received = 0;
    top.p_rst.data[0] = 0;
    top.p_o__ready.data[0] = 1;
    for (; received != count && limit != 0; limit--) {
        top.p_clk.data[0] = 0;
        top.p_i__valid.data[0] = sent != count;
        if (sent != count)
            std::memcpy(top.p_i__data.data, inputs + sent * input_words, sizeof top.p_i__data.data);
        settle(top);
        if (sent != count && current(top.p_i__ready).data[0])
            sent++;
        if (current(top.p_o__valid).data[0]) {
            std::memcpy(results + received * result_words, current(top.p_o__data).data,
                        sizeof current(top.p_o__data).data);
            received++;
        }
        top.p_clk.data[0] = 1;
        settle(top);
    }
    return received;
}
}
