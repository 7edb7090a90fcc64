// Layers on the device, and their products: what the back ends of a process share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "server.h"
#include "ternary.h"

namespace {

enum class Verify { FIRST, ALWAYS, OFF };

// What an empty device would do with a layer, as the answer to FITS says it.
enum class Room : uint32_t { NONE, SUMS, FLOATS };

// All that the back ends of a process share.
struct State {
    std::mutex mutex;  // for all below
    Server server;
    std::string device;  // what the server says it is
    bool per_token = false;
    Verify verify = Verify::FIRST;
    std::map<std::tuple<int64_t, int64_t, int64_t>, Room> room;  // by out, in and group
    long on_device = 0, here = 0;
};
State state;

// A number that the server answers; 0 if it refuses.
uint32_t ask_number(Kind kind, const std::vector<uint32_t> & shape, const std::vector<int8_t> & data) {
    std::vector<char> answer;
    if (!state.server.ask(kind, shape, data, answer) || answer.size() != 4) return 0;
    uint32_t number;
    std::memcpy(&number, answer.data(), 4);
    return number;
}

Room room_for(int64_t out, int64_t in, int64_t group) {
    auto found = state.room.find({out, in, group});
    if (found == state.room.end()) {
        const uint32_t room = ask_number(FITS, {uint32_t(out), uint32_t(in), uint32_t(group)}, {});
        found = state.room.insert({{out, in, group}, Room(room)}).first;
    }
    return found->second;
}

std::vector<uint32_t> shape_of(const Layer & layer) {
    const int64_t group = layer.per_token ? 0 : layer.codes();
    return {uint32_t(layer.out), uint32_t(layer.in), uint32_t(group)};
}

// The scales of all groups in half precision, then the weights.
std::vector<int8_t> scaled_weights(const Layer & layer) {
    std::vector<ggml_fp16_t> halves;
    halves.reserve(layer.out * layer.groups());
    for (int64_t n = 0; n < layer.out; n++) {
        for (int64_t g = 0; g < layer.groups(); g++) halves.push_back(ggml_fp32_to_fp16(layer.scale_of(n, g)));
    }
    auto * bytes = reinterpret_cast<const int8_t *>(halves.data());
    std::vector<int8_t> data(bytes, bytes + 2 * halves.size());
    data.insert(data.end(), layer.weights.begin(), layer.weights.end());
    return data;
}

void unload(Layer & layer) {
    std::vector<char> answer;
    for (uint32_t * part : {&layer.low, &layer.high}) {
        if (*part != 0) state.server.ask(UNLOAD, {*part}, {}, answer);
        *part = 0;
    }
    layer.on_device = false;
}

// Write a tensor to the device. One that it has no room for is computed here, and this is said.
void load(Layer & layer) {
    if (layer.bad) {
        say("%s: a code 3, which has no meaning in its type; the tensor is not computed", layer.name.c_str());
        return;
    }
    layer.per_token = state.per_token && layer.uniform;
    const auto shape = shape_of(layer);
    layer.floats_there = room_for(layer.out, layer.in, shape[2]) == Room::FLOATS;
    std::vector<int8_t> low = layer.floats_there ? scaled_weights(layer) : layer.weights, high;
    if (!layer.floats_there && std::count(low.begin(), low.end(), 2) > 0) {
        high.resize(low.size());
        for (size_t k = 0; k < low.size(); k++) high[k] = low[k] == 2, low[k] -= high[k];
    }
    layer.low = ask_number(layer.floats_there ? LOAD_SCALED : LOAD, shape, low);
    if (layer.low != 0 && !high.empty()) layer.high = ask_number(LOAD, shape, high);
    layer.on_device = layer.low != 0 && (high.empty() || layer.high != 0);
    if (!layer.on_device) {
        const std::string why = state.server.error;
        unload(layer);
        say("%s: on this computer, not on the device: %s", layer.name.c_str(), why.c_str());
    }
}

// What the device gives for a layer: sums, or floats [tokens, out] if it scales them.
struct Results {
    Sums sums;
    std::vector<float> floats;
};

// Take the next numbers of an answer. False if it has fewer.
template <typename Number> bool take(const char *& at, const char * end, size_t count, std::vector<Number> & numbers) {
    if (size_t(end - at) < count * sizeof(Number)) return false;
    numbers.resize(count);
    std::memcpy(numbers.data(), at, count * sizeof(Number));
    at += count * sizeof(Number);
    return true;
}

// Products of some layers with one input, in one message. False if the device cannot. Whether the
// device scales the sums follows from the inputs and their groups, so it does for all or for none.
bool products_of_device(const std::vector<Layer *> & layers, const Codes & codes, int64_t tokens,
                        std::vector<Results> & all) {
    const bool floats = layers[0]->floats_there;
    std::vector<uint32_t> head = {uint32_t(tokens), uint32_t(layers[0]->in), 0};
    if (floats) head.push_back(uint32_t(layers[0]->groups()));
    for (const Layer * layer : layers) {
        head[2] += layer->high != 0 ? 2 : 1;
        head.push_back(layer->low);
        if (layer->high != 0) head.push_back(layer->high);
    }
    if (floats) {
        const size_t begin = head.size();
        head.resize(begin + codes.scales.size());
        std::memcpy(&head[begin], codes.scales.data(), sizeof(float) * codes.scales.size());
    }
    std::vector<char> answer;
    if (!state.server.ask(floats ? SCALED : PRODUCTS, head, codes.codes, answer)) return false;
    const char *at = answer.data(), *end = at + answer.size();
    for (const Layer * layer : layers) {
        Results results;
        const size_t rows = tokens * layer->out, sums = rows * layer->groups();
        Sums high(0);
        if (floats ? !take(at, end, rows, results.floats)
                   : !take(at, end, sums, results.sums) || (layer->high != 0 && !take(at, end, sums, high))) {
            state.server.error = "the server's answer is too short";
            return false;
        }
        for (size_t n = 0; n < high.size(); n++) results.sums[n] += high[n];
        all.push_back(std::move(results));
    }
    return true;
}

// The floats of a layer, [tokens, out], from its sums.
std::vector<float> floats_of(const Layer & layer, const Codes & codes, const Sums & sums) {
    const int64_t groups = layer.groups();
    std::vector<float> floats(sums.size() / groups);
    for (size_t k = 0; k < floats.size(); k++) {
        const int64_t t = k / layer.out, n = k % layer.out;
        floats[k] = output(layer, &sums[k * groups], &codes.scales[t * groups], n);
    }
    return floats;
}

// Whether two numbers are one: the sign of a zero, and what is beyond all numbers, do not count.
bool is_same(float x, float y) { return x == y || (!std::isfinite(x) && !std::isfinite(y)); }

// Whether the device's results are right, where they are compared.
bool verified(Layer & layer, const Codes & codes, int64_t tokens, const Results & results) {
    if (state.verify == Verify::OFF || (state.verify == Verify::FIRST && layer.checked)) return true;
    const Sums sums = sums_here(layer, codes, tokens);
    const char * advice = "run tritloom info --selftest";
    for (size_t n = 0; n < results.sums.size(); n++) {
        if (results.sums[n] == sums[n]) continue;
        say("%s: the device gave %d, not %d, for sum %zu; %s", layer.name.c_str(), results.sums[n], sums[n], n, advice);
        return false;
    }
    const auto floats = layer.floats_there ? floats_of(layer, codes, sums) : std::vector<float>();
    for (size_t n = 0; n < floats.size(); n++) {
        if (is_same(results.floats[n], floats[n])) continue;
        say("%s: the device gave %.9g, not %.9g, for float %zu; %s", layer.name.c_str(), results.floats[n], floats[n], n,
            advice);
        return false;
    }
    layer.checked = true;
    if (state.verify != Verify::ALWAYS) std::vector<int8_t>().swap(layer.weights);
    return true;
}

}  // namespace
