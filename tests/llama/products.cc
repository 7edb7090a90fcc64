// Products of random ternary tensors on a CPU back end and on ours, and how many floats differ.
//
// products CPU_LIBRARY BACKEND OUT IN TOKENS [WRONG]: a line for each type, `name differing total`.
// With WRONG there is a `code` 3 among the weights, or among the activations a `nan`, or a `large`
// number, which Q2_0's codes do not reach. Exits with 2 when a back end computes nothing.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace {

struct Product {
    ggml_type type;
    int out, in, tokens;
    std::vector<char> weights;
    std::vector<float> input;
};

std::vector<float> computed(ggml_backend_t backend, const Product & p) {
    ggml_init_params params{ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true};
    ggml_context * context = ggml_init(params);
    ggml_tensor * weights = ggml_new_tensor_2d(context, p.type, p.in, p.out);
    ggml_tensor * input = ggml_new_tensor_2d(context, GGML_TYPE_F32, p.in, p.tokens);
    // Two products of one input: they go to the device together.
    ggml_tensor * first = ggml_mul_mat(context, weights, input);
    ggml_tensor * second = ggml_mul_mat(context, weights, input);
    ggml_cgraph * graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, first);
    ggml_build_forward_expand(graph, second);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    ggml_backend_tensor_set(weights, p.weights.data(), 0, p.weights.size());
    ggml_backend_tensor_set(input, p.input.data(), 0, p.input.size() * sizeof(float));
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) std::exit(2);
    std::vector<float> y(2 * size_t(p.out) * p.tokens);
    ggml_backend_tensor_get(first, y.data(), 0, y.size() / 2 * sizeof(float));
    ggml_backend_tensor_get(second, &y[y.size() / 2], 0, y.size() / 2 * sizeof(float));
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    return y;
}

}  // namespace

int main(int count, char ** words) {
    if (count != 6 && count != 7) return 1;
    const std::string wrong = count == 7 ? words[6] : "";
    ggml_backend_reg_t cpu_reg = ggml_backend_load(words[1]), reg = ggml_backend_load(words[2]);
    if (cpu_reg == nullptr || reg == nullptr) return 1;
    ggml_backend_t cpu = ggml_backend_dev_init(ggml_backend_reg_dev_get(cpu_reg, 0), nullptr);
    ggml_backend_t device = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr);
    std::mt19937 random(15);
    std::normal_distribution<float> normal;
    for (ggml_type type : {GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_Q2_0}) {
        Product p{type, std::atoi(words[3]), std::atoi(words[4]), std::atoi(words[5]), {}, {}};
        std::vector<float> floats(size_t(p.out) * p.in);
        // Each row has its own magnitude, and some blocks are zeros.
        for (size_t n = 0; n < floats.size(); n++) {
            floats[n] = n / 256 % 7 == 3 ? 0.0f : normal(random) * std::exp2(float(n / p.in % 9) - 4);
        }
        for (int n = 0; n < p.in * p.tokens; n++) {
            p.input.push_back(n / 256 % 5 == 2 ? 0.0f : normal(random) * std::exp2(float(n % 11)));
        }
        p.weights.resize(ggml_row_size(type, p.in) * p.out);
        ggml_quantize_chunk(type, floats.data(), p.weights.data(), 0, p.out, p.in, nullptr);
        // The last weight that TQ2_0 has, in the last byte of its codes.
        if (wrong == "code" && type == GGML_TYPE_TQ2_0) p.weights[p.weights.size() - 3] |= 3 << 6;
        if (wrong == "nan") p.input.back() = NAN;
        if (wrong == "large") p.input.back() = 1e7f;
        const std::vector<float> expected = computed(cpu, p), got = computed(device, p);
        size_t differing = 0;
        for (size_t n = 0; n < got.size(); n++) {
            differing += std::memcmp(&expected[n], &got[n], sizeof(float)) != 0;
        }
        std::printf("%s %zu %zu\n", ggml_type_name(type), differing, got.size());
    }
    ggml_backend_free(device);
    ggml_backend_free(cpu);
}
