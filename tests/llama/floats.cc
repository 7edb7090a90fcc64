// Floats as our back end computes them in the order of a device that scales its sums.
//
// floats GROUPS: standard input has records of int32 sums, float32 scales of activations, and float32
// scales of weights, GROUPS of each; standard output gets a float32 for each record.
#include <cstdio>
#include <cstdlib>

#include "ternary.h"

int main(int count, char ** words) {
    const size_t groups = count == 2 ? std::strtoul(words[1], nullptr, 10) : 0;
    if (groups == 0) return 1;
    Layer layer;
    layer.out = 1, layer.block = K_BLOCK, layer.in = int64_t(groups) * K_BLOCK, layer.floats_there = true;
    layer.scales.resize(groups);
    std::vector<int32_t> sums(groups);
    std::vector<float> x(groups);
    while (std::fread(sums.data(), 4, groups, stdin) == groups) {
        if (std::fread(x.data(), 4, groups, stdin) != groups) return 1;
        if (std::fread(layer.scales.data(), 4, groups, stdin) != groups) return 1;
        const float y = output(layer, sums.data(), x.data(), 0);
        std::fwrite(&y, 4, 1, stdout);
    }
}
