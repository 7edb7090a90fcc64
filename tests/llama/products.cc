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

struct Weights {
    ggml_type type;
    std::vector<char> data;
};

struct Sizes {
    int out, in, tokens;
};

// Four products: two of one input, which go to the device together, then two of another input and
// of two types, whose codes may differ.
std::vector<float> computed(ggml_backend_t backend, const Sizes & sizes, const Weights & a, const Weights & b,
                            const std::vector<float> & x, const std::vector<float> & z) {
    ggml_init_params params{ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true};
    ggml_context * context = ggml_init(params);
    ggml_tensor * tensors[2], * inputs[2];
    for (int n = 0; n < 2; n++) {
        tensors[n] = ggml_new_tensor_2d(context, n ? b.type : a.type, sizes.in, sizes.out);
        inputs[n] = ggml_new_tensor_2d(context, GGML_TYPE_F32, sizes.in, sizes.tokens);
    }
    ggml_cgraph * graph = ggml_new_graph(context);
    std::vector<ggml_tensor *> products;
    for (int n = 0; n < 4; n++) {
        products.push_back(ggml_mul_mat(context, tensors[n == 3], inputs[n >= 2]));
        ggml_build_forward_expand(graph, products[n]);
    }
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    for (int n = 0; n < 2; n++) {
        const std::vector<char> & data = n ? b.data : a.data;
        const std::vector<float> & input = n ? z : x;
        ggml_backend_tensor_set(tensors[n], data.data(), 0, data.size());
        ggml_backend_tensor_set(inputs[n], input.data(), 0, input.size() * sizeof(float));
    }
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) std::exit(2);
    const size_t size = size_t(sizes.out) * sizes.tokens;
    std::vector<float> y(4 * size);
    for (int n = 0; n < 4; n++) ggml_backend_tensor_get(products[n], &y[n * size], 0, size * sizeof(float));
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    return y;
}

std::mt19937 random32(15);
std::normal_distribution<float> normal;

// Each row has its own magnitude, and some blocks are zeros. One weight of Q2_0 is 2.
Weights random_weights(ggml_type type, const Sizes & sizes) {
    std::vector<float> floats(size_t(sizes.out) * sizes.in);
    for (size_t n = 0; n < floats.size(); n++) {
        floats[n] = n / 256 % 7 == 3 ? 0.0f : normal(random32) * std::exp2(float(n / sizes.in % 9) - 4);
    }
    Weights weights{type, std::vector<char>(ggml_row_size(type, sizes.in) * sizes.out)};
    ggml_quantize_chunk(type, floats.data(), weights.data.data(), 0, sizes.out, sizes.in, nullptr);
    if (type == GGML_TYPE_Q2_0) weights.data.back() |= char(3 << 6);
    return weights;
}

std::vector<float> random_input(const Sizes & sizes) {
    std::vector<float> input;
    for (int n = 0; n < sizes.in * sizes.tokens; n++) {
        input.push_back(n / 256 % 5 == 2 ? 0.0f : normal(random32) * std::exp2(float(n % 11)));
    }
    return input;
}

}  // namespace

int main(int count, char ** words) {
    if (count != 6 && count != 7) return 1;
    const std::string wrong = count == 7 ? words[6] : "";
    ggml_backend_reg_t cpu_reg = ggml_backend_load(words[1]), reg = ggml_backend_load(words[2]);
    if (cpu_reg == nullptr || reg == nullptr) return 1;
    ggml_backend_t cpu = ggml_backend_dev_init(ggml_backend_reg_dev_get(cpu_reg, 0), nullptr);
    ggml_backend_t device = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr);
    const Sizes sizes{std::atoi(words[3]), std::atoi(words[4]), std::atoi(words[5])};
    const ggml_type types[] = {GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_Q2_0};
    for (int t = 0; t < 3; t++) {
        Weights a = random_weights(types[t], sizes);
        const Weights b = random_weights(types[(t + 1) % 3], sizes);
        std::vector<float> x = random_input(sizes);
        const std::vector<float> z = random_input(sizes);
        // The last weight that TQ2_0 has, in the last byte of its codes.
        if (wrong == "code" && types[t] == GGML_TYPE_TQ2_0) a.data[a.data.size() - 3] |= char(3 << 6);
        if (wrong == "nan") x.back() = NAN;
        if (wrong == "large") x.back() = 1e7f;
        const std::vector<float> expected = computed(cpu, sizes, a, b, x, z), got = computed(device, sizes, a, b, x, z);
        size_t differing = 0;
        for (size_t n = 0; n < got.size(); n++) {
            differing += std::memcmp(&expected[n], &got[n], sizeof(float)) != 0;
        }
        std::printf("%s %zu %zu\n", ggml_type_name(types[t]), differing, got.size());
    }
    ggml_backend_free(device);
    ggml_backend_free(cpu);
}
