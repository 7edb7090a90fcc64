// A back end of ggml: a device computes the matrix products with ternary weights.
//
// ggml loads this shared object (GGML_BACKEND_PATH, or ggml_backend_load). It claims MUL_MAT whose
// weights are TQ1_0, TQ2_0 or Q2_0 and nothing else. It reaches the device through the socket of
// `tritloom serve` (TRITLOOM_SOCKET); the messages are those of host/serve/wire.py. Codes are made
// here. The device gives exact integer sums, and floats are made here; a device with float units
// scales the sums itself and gives floats.
//
// Codes, as TRITLOOM_CODES says:
//   block  ggml's own, q8_K or q8_0: one scale a block of 256 or 32 inputs. The floats are those of
//          ggml's plain C code, every operation rounded once; a device with float units adds Q2_0
//          in an order of its own (`output_of_device`). This is the default.
//   token  BitLinear's, one scale a token, for tensors that have one scale themselves.
// TRITLOOM_VERIFY: which products are computed here as well and compared: first (of each tensor, the
// default), always, off.
//
// Compile it with -ffp-contract=off: a product that is fused with the sum after it is not rounded.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "products.h"

#include "ggml-backend-impl.h"

namespace {

constexpr size_t OBJECT_BYTES = 32;  // of ggml's object beside a tensor in a context

// ---------------------------------------------------------------- graphs

void write_outputs(ggml_tensor * y, const std::vector<float> & floats) {
    for (int64_t t = 0; t < y->ne[1]; t++) {
        std::memcpy(static_cast<char *>(y->data) + t * y->nb[1], &floats[t * y->ne[0]], sizeof(float) * y->ne[0]);
    }
}

struct Buffer {
    char * data;
    std::map<const void *, Layer> layers;  // by the address of their data
};

Layer & layer_of(const ggml_tensor * weights) {
    const ggml_tensor * owner = weights->view_src != nullptr ? weights->view_src : weights;
    auto & layers = static_cast<Buffer *>(owner->buffer->context)->layers;
    auto found = layers.find(weights->data);
    if (found == layers.end()) {
        found = layers.emplace(weights->data, decoded(weights, weights->data)).first;
        load(found->second);
    }
    return found->second;
}

// The products of some nodes that have one input and codes of one kind.
bool compute_together(const std::vector<ggml_tensor *> & nodes) {
    const int64_t tokens = ggml_nrows(nodes[0]->src[1]);
    const Codes codes = coded(nodes[0]->src[1], layer_of(nodes[0]->src[0]));
    if (!codes.finite) {
        say("%s: an activation is NaN or too large for its codes", nodes[0]->src[0]->name);
        return false;
    }
    std::vector<Layer *> device;
    for (ggml_tensor * node : nodes) {
        Layer & layer = layer_of(node->src[0]);
        if (layer.on_device) device.push_back(&layer);
    }
    std::vector<Results> all;
    if (!device.empty() && !products_of_device(device, codes, tokens, all)) {
        say("%s: %s", device[0]->name.c_str(), state.server.error.c_str());
        return false;
    }
    size_t next = 0;
    for (ggml_tensor * node : nodes) {
        Layer & layer = layer_of(node->src[0]);
        if (layer.on_device) {
            const Results & results = all[next++];
            if (!verified(layer, codes, tokens, results)) return false;
            write_outputs(node, layer.floats_there ? results.floats : floats_of(layer, codes, results.sums));
            state.on_device++;
        } else {
            write_outputs(node, floats_of(layer, codes, sums_here(layer, codes, tokens)));
            state.here++;
        }
    }
    return true;
}

bool is_product(const ggml_tensor * node) {
    return node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
}

// Whether two products have one input and codes of one kind.
bool joins(const ggml_tensor * node, const ggml_tensor * first) {
    const Layer & layer = layer_of(node->src[0]);
    const Layer & other = layer_of(first->src[0]);
    return node->src[1] == first->src[1] && layer.block == other.block && layer.per_token == other.per_token;
}

ggml_status compute(ggml_backend_t, ggml_cgraph * graph) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    // Products of one input that follow each other are computed together. One that comes later is
    // not moved ahead: its output may lie where an input of a product between them is.
    std::vector<ggml_tensor *> nodes;
    for (int n = 0; n < ggml_graph_n_nodes(graph); n++) {
        ggml_tensor * node = ggml_graph_node(graph, n);
        if (!is_product(node)) continue;
        if (layer_of(node->src[0]).bad) return GGML_STATUS_FAILED;
        if (!nodes.empty() && !joins(node, nodes[0])) {
            if (!compute_together(nodes)) return GGML_STATUS_FAILED;
            nodes.clear();
        }
        nodes.push_back(node);
    }
    if (!nodes.empty() && !compute_together(nodes)) return GGML_STATUS_FAILED;
    return GGML_STATUS_SUCCESS;
}

// ---------------------------------------------------------------- buffers

void forget(Buffer & buffer, const void * from, size_t size) {
    auto * low = static_cast<const char *>(from);
    for (auto it = buffer.layers.begin(); it != buffer.layers.end();) {
        auto * at = static_cast<const char *>(it->first);
        if (at < low || at >= low + size) {
            ++it;
            continue;
        }
        unload(it->second);
        it = buffer.layers.erase(it);
    }
}

Buffer & of(ggml_backend_buffer_t buffer) { return *static_cast<Buffer *>(buffer->context); }

void buffer_free(ggml_backend_buffer_t buffer) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    forget(of(buffer), of(buffer).data, buffer->size);
    std::free(of(buffer).data);
    delete &of(buffer);
}

void * buffer_base(ggml_backend_buffer_t buffer) { return of(buffer).data; }

bool is_ternary(const ggml_tensor * tensor) {
    return tensor->type == GGML_TYPE_TQ1_0 || tensor->type == GGML_TYPE_TQ2_0 || tensor->type == GGML_TYPE_Q2_0;
}

void buffer_set(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    forget(of(buffer), tensor->data, ggml_nbytes(tensor));
    std::memcpy(static_cast<char *>(tensor->data) + offset, data, size);
    // A model's weights are loaded as soon as they are here, so that it is said at once what fits.
    const bool weights = ggml_backend_buffer_get_usage(buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    if (weights && is_ternary(tensor) && offset + size == ggml_nbytes(tensor)) layer_of(tensor);
}

void buffer_get(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    std::memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
}

void buffer_fill(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    forget(of(buffer), tensor->data, ggml_nbytes(tensor));
    std::memset(static_cast<char *>(tensor->data) + offset, value, size);
}

void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    forget(of(buffer), of(buffer).data, buffer->size);
    std::memset(of(buffer).data, value, buffer->size);
}

const char * type_name(ggml_backend_buffer_type_t) { return "Tritloom"; }
size_t type_alignment(ggml_backend_buffer_type_t) { return 64; }
bool type_is_host(ggml_backend_buffer_type_t) { return false; }

ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i face{};
    face.free_buffer = buffer_free;
    face.get_base = buffer_base;
    face.set_tensor = buffer_set;
    face.get_tensor = buffer_get;
    face.memset_tensor = buffer_fill;
    face.clear = buffer_clear;
    auto * data = static_cast<char *>(std::aligned_alloc(64, (size + 127) / 64 * 64));
    return data == nullptr ? nullptr : ggml_backend_buffer_init(type, face, new Buffer{data, {}}, size);
}

// ---------------------------------------------------------------- device and back end

const char * backend_name(ggml_backend_t) { return "Tritloom"; }

void backend_free(ggml_backend_t backend) {
    // llama.cpp makes back ends that it does not use.
    if (state.on_device + state.here > 0) {
        say("%ld products on %s, %ld on this computer", state.on_device, state.device.c_str(), state.here);
    }
    delete backend;
}

const char * device_name(ggml_backend_dev_t) { return "Tritloom"; }
const char * device_about(ggml_backend_dev_t) { return state.device.c_str(); }
void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 0; }
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }

void device_props(ggml_backend_dev_t device, ggml_backend_dev_props * props) {
    std::memset(props, 0, sizeof *props);
    props->name = device_name(device);
    props->description = device_about(device);
    props->type = device_type(device);
}

ggml_backend_t device_init(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = {0x74, 0x72, 0x69, 0x74, 0x6c, 0x6f, 0x6f, 0x6d, 0x67, 0x67, 0x6d, 0x6c, 0, 0, 0, 1};
    auto * backend = new ggml_backend{};
    backend->guid = &guid;
    backend->device = device;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.graph_compute = compute;
    return backend;
}

ggml_backend_buffer_type_t device_buffers(ggml_backend_dev_t device) {
    static ggml_backend_buffer_type type{};
    type.iface.get_name = type_name;
    type.iface.alloc_buffer = type_alloc;
    type.iface.get_alignment = type_alignment;
    type.iface.is_host = type_is_host;
    type.device = device;
    return &type;
}

// Whether an empty device would have room for such a layer.
bool fits(const ggml_tensor * weights) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    const int64_t out = weights->ne[1], in = weights->ne[0];
    const int64_t codes = weights->type == GGML_TYPE_Q2_0 ? Q_CODES : K_BLOCK;
    const int64_t group = state.per_token ? 0 : codes;
    return room_for(out, in, group) != Room::NONE;
}

bool device_supports(ggml_backend_dev_t, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        case GGML_OP_MUL_MAT: {
            const ggml_tensor * weights = op->src[0];
            const ggml_tensor * input = op->src[1];
            return is_ternary(weights) && input->type == GGML_TYPE_F32 && ggml_is_contiguous(weights) &&
                   ggml_is_contiguous(input) && ggml_nrows(weights) == weights->ne[1] &&
                   ggml_nrows(input) == input->ne[1] && fits(weights);
        }
        default:
            return false;
    }
}

bool device_takes(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) { return type == device_buffers(device); }

const char * reg_name(ggml_backend_reg_t) { return "Tritloom"; }
size_t reg_count(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
    static ggml_backend_device device{};
    device.iface.get_name = device_name;
    device.iface.get_description = device_about;
    device.iface.get_memory = device_memory;
    device.iface.get_type = device_type;
    device.iface.get_props = device_props;
    device.iface.init_backend = device_init;
    device.iface.get_buffer_type = device_buffers;
    device.iface.supports_op = device_supports;
    device.iface.supports_buft = device_takes;
    device.reg = reg;
    return &device;
}

void * reg_address(ggml_backend_reg_t, const char *) { return nullptr; }

// ---------------------------------------------------------------- start

// Whether the ggml that loads this is the one that it was compiled for.
bool is_same_ggml() {
    const std::string version = ggml_version();
    if (version != TRITLOOM_GGML_VERSION || ggml_tensor_overhead() != OBJECT_BYTES + sizeof(ggml_tensor)) {
        say("this ggml is %s, the back end was built for %s; build it with its headers: tritloom llama build --ggml DIR",
            version.c_str(), TRITLOOM_GGML_VERSION);
        return false;
    }
    return true;
}

bool is_one_of(const char * name, const char * value, std::initializer_list<const char *> choices, int & index) {
    index = 0;
    if (value == nullptr) return true;
    for (const char * choice : choices) {
        if (std::strcmp(value, choice) == 0) return true;
        index++;
    }
    std::string known;
    for (const char * choice : choices) known += (known.empty() ? "" : ", ") + std::string(choice);
    say("%s must be one of %s, not %s", name, known.c_str(), value);
    return false;
}

// Read the environment, and connect. False, and a line that says why, if there is no device.
bool start() {
    int codes, verify;
    if (!is_one_of("TRITLOOM_CODES", std::getenv("TRITLOOM_CODES"), {"block", "token"}, codes) ||
        !is_one_of("TRITLOOM_VERIFY", std::getenv("TRITLOOM_VERIFY"), {"first", "always", "off"}, verify)) {
        return false;
    }
    state.per_token = codes == 1;
    state.verify = Verify(verify);
    const char * path = std::getenv("TRITLOOM_SOCKET");
    if (path == nullptr) {
        say("TRITLOOM_SOCKET is not set; start tritloom serve, and set it to the path of its socket");
        return false;
    }
    std::vector<char> answer;
    if (!state.server.connect_to(path) || !state.server.ask(INFO, {}, {}, answer)) {
        say("%s", state.server.error.c_str());
        return false;
    }
    const std::string info(answer.begin(), answer.end()), key = "\"url\": \"";
    const size_t from = info.find(key);
    state.device = from == std::string::npos ? "a device"
                                             : info.substr(from + key.size(), info.find('"', from + key.size()) - from - key.size());
    say("ternary products run on %s, with %s codes", state.device.c_str(), state.per_token ? "token" : "block");
    return true;
}

}  // namespace

// What ggml calls when it has loaded this. Without a device it is as if there were no such back end.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() {
    static ggml_backend_reg reg{GGML_BACKEND_API_VERSION, {reg_name, reg_count, reg_device, reg_address}, nullptr};
    static const bool ready = is_same_ggml() && start();
    return ready ? &reg : nullptr;
}
