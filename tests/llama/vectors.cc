// Codes of activations and sums of blocks by a CPU back end of ggml and by ours, each an integer.
//
// vectors CPU_LIBRARY CODES SUMS: a line for each type, `name differing codes differing sums`.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ternary.h"

namespace {

using Traits = const ggml_type_traits_cpu * (*)(ggml_type);

std::mt19937_64 random64(15);

// Floats of all magnitudes that a half-precision scale reaches, with ties of the rounding, equal
// magnitudes of both signs, zeros and subnormals among them.
void fill(std::vector<float> & x, int block) {
    std::normal_distribution<float> normal;
    for (size_t from = 0; from < x.size(); from += block) {
        const uint64_t kind = random64() % 8;
        const float size = std::exp2(float(int(random64() % 28) - 14));
        for (int k = 0; k < block; k++) {
            const float step = float(int(random64() % 509) - 254) / 2;  // halves: ties if 127 is there
            x[from + k] = kind == 0 ? step * size : kind == 1 ? (random64() % 2 ? size : -size) : normal(random64) * size;
        }
        if (kind == 0) x[from + random64() % block] = random64() % 2 ? 127 * size : -127 * size;
        if (kind == 2) x[from + random64() % block] = std::numeric_limits<float>::denorm_min();
        if (kind == 3 && random64() % 8 == 0) std::fill(&x[from], &x[from] + block, 0.0f);
    }
}

int8_t random_code() { return int8_t(int(random64() % 255) - 127); }

// How many of at least `wanted` codes differ.
size_t differing_codes(ggml_type type, Traits traits, size_t wanted) {
    const bool pairs = type == GGML_TYPE_Q2_0;
    const int block = pairs ? Q_CODES : K_BLOCK, batch = 1 << 16;
    auto quantize = traits(pairs ? GGML_TYPE_Q8_0 : GGML_TYPE_Q8_K)->from_float;
    std::vector<float> x(batch);
    std::vector<block_q8_0> zero(batch / Q_CODES);
    std::vector<block_q8_K> super(batch / K_BLOCK);
    std::vector<int8_t> codes(block);
    size_t differing = 0;
    for (size_t done = 0; done < wanted; done += batch) {
        fill(x, block);
        quantize(x.data(), pairs ? static_cast<void *>(zero.data()) : super.data(), batch);
        for (int n = 0; n < batch / block; n++) {
            const float scale = pairs ? codes_of_32(&x[n * block], codes.data()) : codes_of_256(&x[n * block], codes.data());
            const float expected = pairs ? ggml_fp16_to_fp32(zero[n].d) : super[n].d;
            const int8_t * right = pairs ? zero[n].qs : super[n].qs;
            for (int k = 0; k < block; k++) differing += codes[k] != right[k];
            differing += scale != expected;
        }
    }
    return differing;
}

// A row of random weights of a type, every scale 1.
std::vector<uint8_t> random_row(ggml_type type, int blocks) {
    const size_t bytes = ggml_type_size(type);
    std::vector<uint8_t> row(bytes * blocks);
    for (int b = 0; b < blocks; b++) {
        uint8_t * at = &row[b * bytes];
        for (size_t n = 0; n < bytes; n++) {
            if (type == GGML_TYPE_TQ1_0) {
                at[n] = uint8_t((random64() % 243 * 256 + 242) / 243);
            } else {
                const int fields = type == GGML_TYPE_Q2_0 ? 4 : 3;
                for (int f = 0; f < 4; f++) at[n] |= uint8_t(random64() % fields << 2 * f);
            }
        }
        const ggml_fp16_t one = ggml_fp32_to_fp16(1);
        std::memcpy(type == GGML_TYPE_Q2_0 ? at : at + bytes - 2, &one, 2);
    }
    return row;
}

// How many of at least `wanted` sums of a block differ. With all scales 1 ggml's float is the sum.
size_t differing_sums(ggml_type type, Traits traits, size_t wanted) {
    const int rows = 64, blocks = 64, tokens = 64;
    const bool pairs = type == GGML_TYPE_Q2_0;
    const int codes = pairs ? Q_CODES : K_BLOCK, block = pairs ? Q_BLOCK : K_BLOCK, in = blocks * block;
    auto dot = traits(type)->vec_dot;
    size_t differing = 0;
    for (size_t done = 0; done < wanted; done += size_t(rows) * tokens * in / codes) {
        ggml_tensor tensor{};
        tensor.type = type, tensor.ne[0] = in, tensor.ne[1] = rows;
        std::vector<uint8_t> data;
        for (int n = 0; n < rows; n++) {
            const auto row = random_row(type, blocks);
            data.insert(data.end(), row.begin(), row.end());
        }
        const Layer layer = decoded(&tensor, data.data());
        Codes input;
        std::vector<block_q8_K> super(tokens * blocks);
        std::vector<block_q8_0> first(tokens * in / Q_CODES), second(first.size());
        for (int n = 0; n < tokens * in; n++) {
            const int8_t code = random_code();
            input.codes.push_back(code);
            if (pairs) {  // a block of weights has two blocks of codes: each alone, the other's scale 0
                first[n / Q_CODES].qs[n % Q_CODES] = second[n / Q_CODES].qs[n % Q_CODES] = code;
                const ggml_fp16_t one = ggml_fp32_to_fp16(1), none = ggml_fp32_to_fp16(0);
                const bool odd = n / Q_CODES % 2;
                first[n / Q_CODES].d = odd ? none : one, second[n / Q_CODES].d = odd ? one : none;
            } else {
                block_q8_K & b = super[n / K_BLOCK];
                b.d = 1, b.qs[n % K_BLOCK] = code, b.bsums[n % K_BLOCK / 16] += code;
            }
        }
        const Sums sums = sums_here(layer, input, tokens);
        const size_t bytes = ggml_type_size(type);
        size_t at = 0;
        for (int t = 0; t < tokens; t++) {
            for (int n = 0; n < rows; n++) {
                for (int b = 0; b < blocks; b++) {
                    const uint8_t * weights = &data[(n * blocks + b) * bytes];
                    for (int half = 0; half < (pairs ? 2 : 1); half++, at++) {
                        const void * x = !pairs ? static_cast<void *>(&super[t * blocks + b]) : &(half ? second : first)[2 * (t * blocks + b)];
                        float sum;
                        dot(block, &sum, 0, weights, 0, x, 0, 1);
                        differing += sum != float(sums[at]);
                    }
                }
            }
        }
    }
    return differing;
}

}  // namespace

int main(int count, char ** words) {
    if (count != 4 || ggml_backend_load(words[1]) == nullptr) return 1;
    void * library = dlopen(words[1], RTLD_NOW);
    auto traits = reinterpret_cast<Traits>(dlsym(library, "ggml_get_type_traits_cpu"));
    if (traits == nullptr) return 1;
    for (ggml_type type : {GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_Q2_0}) {
        std::printf("%s %zu codes", ggml_type_name(type), differing_codes(type, traits, std::atoll(words[2])));
        std::printf(" %zu sums\n", differing_sums(type, traits, std::atoll(words[3])));
    }
}
