// The DRAM of dram.h alone, for simulations in Python. Python calls the functions at the end.

#include "dram.h"

namespace {

constexpr size_t MOST_PORTS = 4;

} // namespace

extern "C" {

Dram *tritloom_dram_open() { return new Dram; }
void tritloom_dram_close(Dram *dram) { delete dram; }
bool tritloom_dram_set(Dram *dram, const char *name, int64_t value) { return dram->set(name, value); }
void tritloom_dram_start(Dram *dram, size_t ports) { dram->start(ports); }

// A cycle. For each port: arrives, beat, beats and leaves go in; room and due come out.
void tritloom_dram_step(Dram *dram, size_t ports, const uint64_t *in, uint8_t *out) {
    Dram::Input inputs[MOST_PORTS] = {};
    for (size_t n = 0; n < ports; n++)
        inputs[n] = {in[4 * n] != 0, in[4 * n + 1], static_cast<unsigned>(in[4 * n + 2]),
                     in[4 * n + 3] != 0};
    dram->step(inputs);
    for (size_t n = 0; n < ports; n++) {
        const Dram::Output output = dram->output(n);
        out[2 * n] = output.room;
        out[2 * n + 1] = output.due;
    }
}
}
