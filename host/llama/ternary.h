// Tensors of ternary weights, codes of activations, and the floats of a product.
//
// Compile it with -ffp-contract=off: a product that is fused with the sum after it is not rounded.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "ggml.h"

namespace {

constexpr int64_t K_BLOCK = 256;  // inputs of a block of TQ1_0, TQ2_0 and q8_K
constexpr int64_t Q_BLOCK = 64;   // of Q2_0
constexpr int64_t Q_CODES = 32;   // of q8_0

// A tensor of ternary weights. `low` and `high` are layers on the device, 0 for none; the weights
// are those of `low` plus those of `high`, which is there only if some weight is 2.
struct Layer {
    std::string name;
    int64_t out = 0, in = 0, block = 0;  // block: weights of a scale
    std::vector<int8_t> weights;         // [out, in]; empty while nothing here needs them
    std::vector<float> scales;           // [out, in / block]
    float scale = 0;                     // of all blocks that are not zeros, if they have one
    bool uniform = true;
    bool bad = false;                    // has a code without a meaning
    bool on_device = false;
    bool checked = false;
    bool per_token = false;              // how its codes are made
    bool floats_there = false;           // the device scales the sums, in an order of its own
    uint32_t low = 0, high = 0;

    int64_t codes() const { return per_token ? in : block == Q_BLOCK ? Q_CODES : K_BLOCK; }
    int64_t groups() const { return in / codes(); }
    float scale_of(int64_t n, int64_t group) const { return scales[n * (in / block) + group * codes() / block]; }
};

// Digit 0 to 4 in base 3 of a byte, the most significant first, as a weight.
int8_t trit(uint8_t byte, int digit) {
    static const uint8_t powers[] = {1, 3, 9, 27, 81};
    return int8_t((uint8_t(byte * powers[digit]) * 3 >> 8) - 1);
}

// Weight k of a block of TQ1_0: 32 bytes with five trits each, then 16, then 4 bytes with four.
int8_t tq1_weight(const uint8_t * codes, int k) {
    if (k < 160) return trit(codes[k % 32], k / 32);
    if (k < 240) return trit(codes[32 + (k - 160) % 16], (k - 160) / 16);
    return trit(codes[48 + (k - 240) % 4], (k - 240) / 4);
}

// Weight k of a block of TQ2_0: two halves of 32 bytes, the lowest bits of all of them first.
int8_t tq2_weight(const uint8_t * codes, int k) {
    return int8_t((codes[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3) - 1);
}

int8_t q2_weight(const uint8_t * codes, int k) { return int8_t((codes[k / 4] >> k % 4 * 2 & 3) - 1); }

Layer decoded(const ggml_tensor * tensor, const void * data) {
    Layer layer;
    layer.name = tensor->name;
    layer.in = tensor->ne[0], layer.out = tensor->ne[1];
    const bool pairs = tensor->type == GGML_TYPE_Q2_0, base3 = tensor->type == GGML_TYPE_TQ1_0;
    layer.block = pairs ? Q_BLOCK : K_BLOCK;
    const size_t bytes = ggml_type_size(tensor->type);
    layer.weights.reserve(layer.out * layer.in);
    auto * at = static_cast<const uint8_t *>(data);
    for (int64_t n = 0; n < layer.out * layer.in / layer.block; n++, at += bytes) {
        const uint8_t * codes = pairs ? at + 2 : at;
        for (int k = 0; k < layer.block; k++) {
            const int8_t weight = pairs   ? q2_weight(codes, k)
                                  : base3 ? tq1_weight(codes, k)
                                          : tq2_weight(codes, k);
            layer.bad |= !pairs && weight > 1;
            layer.weights.push_back(weight);
        }
        ggml_fp16_t half;
        std::memcpy(&half, pairs ? at : at + bytes - 2, 2);
        const float scale = ggml_fp16_to_fp32(half);
        layer.scales.push_back(scale);
        if (scale != 0 && layer.scale != 0 && scale != layer.scale) layer.uniform = false;
        if (scale != 0) layer.scale = scale;
    }
    return layer;
}

// ggml's q8_K: the value of largest magnitude becomes -127, so the scale has the other sign.
float codes_of_256(const float * x, int8_t * codes) {
    float largest = 0;
    for (int k = 0; k < K_BLOCK; k++) {
        if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
    }
    if (largest == 0) {
        std::memset(codes, 0, K_BLOCK);
        return 0;
    }
    const float inverse = -127.0f / largest;
    for (int k = 0; k < K_BLOCK; k++) {
        codes[k] = int8_t(std::min(127.0f, std::nearbyintf(inverse * x[k])));
    }
    return 1.0f / inverse;
}

// ggml's q8_0 as on x86: the scale is rounded to half precision, the codes are made without that.
float codes_of_32(const float * x, int8_t * codes) {
    float largest = 0;
    for (int k = 0; k < Q_CODES; k++) largest = std::max(largest, std::fabs(x[k]));
    const float inverse = largest != 0 ? 127.0f / largest : 0.0f;
    for (int k = 0; k < Q_CODES; k++) codes[k] = int8_t(std::nearbyintf(inverse * x[k]));
    return ggml_fp16_to_fp32(ggml_fp32_to_fp16(largest / 127.0f));
}

// BitLinear's codes of a token; the float sum is the integer sum divided by what this gives.
float codes_of_token(const float * x, int64_t size, int8_t * codes) {
    float largest = 0;
    for (int64_t k = 0; k < size; k++) largest = std::max(largest, std::fabs(x[k]));
    const float scale = 127.0f / std::max(largest, 1e-5f);
    for (int64_t k = 0; k < size; k++) {
        codes[k] = int8_t(std::max(-128.0f, std::min(127.0f, std::nearbyintf(x[k] * scale))));
    }
    return scale;
}

// The codes of all tokens of an input, and their scales.
struct Codes {
    std::vector<int8_t> codes;   // [tokens, in]
    std::vector<float> scales;   // [tokens, in / inputs of a scale]
    bool finite = true;
};

Codes coded(const ggml_tensor * input, const Layer & layer) {
    Codes result;
    const int64_t in = input->ne[0], tokens = ggml_nrows(input), inputs = layer.codes();
    result.codes.resize(tokens * in);
    for (int64_t t = 0; t < tokens; t++) {
        auto * x = reinterpret_cast<const float *>(static_cast<const char *>(input->data) + t * input->nb[1]);
        for (int64_t k = 0; k < in; k++) result.finite &= bool(std::isfinite(x[k]));
        if (!result.finite) return result;
        for (int64_t k = 0; k < in; k += inputs) {
            int8_t * codes = &result.codes[t * in + k];
            const float scale = layer.per_token     ? codes_of_token(x, in, codes)
                                : inputs == Q_CODES ? codes_of_32(x + k, codes)
                                                    : codes_of_256(x + k, codes);
            result.scales.push_back(scale);
            result.finite &= bool(std::isfinite(scale));
        }
    }
    return result;
}

using Sums = std::vector<int32_t>;  // [tokens, out, groups]

Sums sums_here(const Layer & layer, const Codes & codes, int64_t tokens) {
    Sums sums(tokens * layer.out * layer.groups());
    const int64_t size = layer.codes();
    auto * sum = sums.data();
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t n = 0; n < layer.out; n++) {
            for (int64_t g = 0; g < layer.groups(); g++, sum++) {
                const int8_t * weight = &layer.weights[n * layer.in + g * size];
                const int8_t * code = &codes.codes[t * layer.in + g * size];
                for (int64_t k = 0; k < size; k++) *sum += weight[k] * code[k];
            }
        }
    }
    return sums;
}

// A device with float units takes and gives zero where a number is below the smallest normal one.
float flushed(float x) { return std::fabs(x) < FLT_MIN ? 0.0f : x; }

// The product that such a device gives: rounded to 24 bits before it is compared.
float device_product(float a, float b) {
    const double exact = double(flushed(a)) * double(flushed(b));
    const double least = double(FLT_MIN) * (1 - 1.0 / (1 << 25));  // it rounds to the smallest normal number
    return std::fabs(exact) < least ? 0.0f : float(exact);
}

// One output as a device computes it that scales the sums: `GroupFloat`.
float output_of_device(const Layer & layer, const int32_t * sums, const float * x, int64_t n) {
    float total = 0;
    for (int64_t g = 0; g < layer.groups(); g++) {
        const float scale = device_product(x[g], layer.scale_of(n, g));
        const float term = device_product(float(sums[g]), scale);
        const float sum = total + term;
        total = flushed(sum);
    }
    return total;
}

// Output n, from its group sums. Without units on the device, the order and the roundings are those
// of ggml's plain C.
float output(const Layer & layer, const int32_t * sums, const float * x, int64_t n) {
    if (layer.per_token) return float(sums[0]) / x[0] * layer.scale;
    if (layer.floats_there) return output_of_device(layer, sums, x, n);
    const float * w = &layer.scales[n * (layer.in / layer.block)];
    float total = 0;
    if (layer.block == Q_BLOCK) {
        for (int64_t b = 0; b < layer.in / Q_BLOCK; b++) {
            const float first = float(sums[2 * b]) * x[2 * b];
            const float second = float(sums[2 * b + 1]) * x[2 * b + 1];
            const float both = first + second;
            const float scaled = w[b] * both;
            total = total + scaled;
        }
    } else {
        for (int64_t b = 0; b < layer.in / K_BLOCK; b++) {
            const float scale = x[b] * w[b];
            const float scaled = float(sums[b]) * scale;
            total = total + scaled;
        }
    }
    return total;
}

}  // namespace
