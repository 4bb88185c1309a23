// The graphs by ncnn, linked in, on one thread: fp32 throughout, or with MOBILEINST_FP16 half
// precision in storage and arithmetic, float32 at the graphs' borders. A graph is a NAME.param with its
// NAME.bin beside it, and its blobs bear the names of the plan's tensors. ncnn knows no batch axis:
// (1,c,h,w) is a Mat of c planes, (1,n,d) one of n rows.
#include "runtime.h"

#include <net.h>
#include <sys/auxv.h>

#include <algorithm>

#include "clock.h"
#include "failure.h"

#ifndef MOBILEINST_FP16
#define MOBILEINST_FP16 0
#endif
#ifndef MOBILEINST_INT8
#define MOBILEINST_INT8 0
#endif
#if NCNN_BF16 || NCNN_INT8 != MOBILEINST_INT8 || NCNN_ARM82 != MOBILEINST_FP16 || NCNN_VULKAN || NCNN_THREADS
#error "this runner measures one arithmetic on one thread: build ncnn by CMakeLists.txt"
#endif

namespace mobileinst {
namespace {

using Shape = std::vector<std::int64_t>;

// From the slowest axis to the fastest, as the plan has it.
Shape shape_of(const ncnn::Mat& mat) {
  switch (mat.dims) {
    case 1: return {mat.w};
    case 2: return {mat.h, mat.w};
    case 3: return {mat.c, mat.h, mat.w};
    case 4: return {mat.c, mat.d, mat.h, mat.w};
    default: return {};
  }
}

// An input of the plan as ncnn takes it, over the same memory.
ncnn::Mat view(const Signature& tensor, std::uint8_t* data) {
  const auto fail = [&](const char* why) {
    throw Failure(Kind::contract, "ncnn cannot take " + tensor.name + " as " +
                                      describe(tensor.dtype, tensor.shape) + ": " + why);
  };
  const auto rank = tensor.shape.size();
  if (tensor.dtype != Dtype::float32) fail("it is not float32");
  if (rank < 2 || rank > 4 || tensor.shape[0] != 1) fail("it is not one batch of 1 to 3 axes");
  const auto length = [&](std::size_t from_last) {
    return static_cast<int>(tensor.shape[rank - from_last]);
  };
  if (rank == 2) return ncnn::Mat(length(1), data);
  if (rank == 3) return ncnn::Mat(length(1), length(2), data);
  ncnn::Mat planes(length(1), length(2), length(3), data);
  if (planes.cstep != static_cast<std::size_t>(planes.w) * static_cast<std::size_t>(planes.h))
    fail("a plane is no multiple of 16 bytes");
  return planes;
}

int find(const std::vector<const char*>& names, const std::vector<int>& indexes,
         const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? -1 : indexes[static_cast<std::size_t>(found - names.begin())];
}

}  // namespace

struct Runtime::Impl {
  std::string version = NCNN_VERSION_STRING;
};

Runtime::Runtime(const std::string& library) : impl_(std::make_unique<Impl>()) {
  if (!library.empty())
    throw Failure(Kind::library, "ncnn is linked into this runner, and the plan names " + library);
#if MOBILEINST_FP16
  constexpr unsigned long kHalfVectors = 1UL << 10;  // HWCAP_ASIMDHP
  if ((::getauxval(AT_HWCAP) & kHalfVectors) == 0)
    throw Failure(Kind::library, "this core has no half-precision arithmetic (ARMv8.2 FP16)");
#endif
}
Runtime::~Runtime() = default;
const char* Runtime::name() const { return MOBILEINST_FP16 ? "ncnn-fp16" : "ncnn"; }
const std::string& Runtime::version() const { return impl_->version; }

struct Graph::Impl {
  Impl(Role of, const std::string& path) : role(of) {
    const std::string what = std::string("the ") + name_of(of) + " graph " + path;
    const auto dot = path.rfind('.');
    if (dot == std::string::npos || path.substr(dot) != ".param")
      throw Failure(Kind::graph, what + " is no .param file");
    auto& option = net.opt;
    option.num_threads = 1;
    // All three or none: half-precision storage alone converts at every step and is far slower.
    option.use_fp16_packed = option.use_fp16_storage = MOBILEINST_FP16 != 0;
    option.use_fp16_arithmetic = MOBILEINST_FP16 != 0;
    option.use_bf16_packed = option.use_bf16_storage = false;
    option.use_int8_inference = option.use_int8_packed = MOBILEINST_INT8 != 0;
    option.use_int8_storage = option.use_int8_arithmetic = MOBILEINST_INT8 != 0;
    option.blob_allocator = &blobs;
    option.workspace_allocator = &workspace;
    const auto start = now();
    if (net.load_param(path.c_str()) != 0 ||
        net.load_model((path.substr(0, dot) + ".bin").c_str()) != 0)
      throw Failure(Kind::graph, what + " cannot be loaded by ncnn");
    load_ms = ms_between(start, now());
  }

  Role role;
  // Freed memory is kept for the next run, as an application would have it.
  ncnn::UnlockedPoolAllocator blobs, workspace;
  ncnn::Net net;
  double load_ms = 0.0;
};

Graph::Graph(const Runtime&, Role role, const std::string& path, const std::string& profile) {
  if (!profile.empty())
    throw Failure(Kind::plan, "ncnn has no profiler: profile the pair with ONNX Runtime");
  impl_ = std::make_unique<Impl>(role, path);
}
Graph::~Graph() = default;
double Graph::load_ms() const { return impl_->load_ms; }
std::string Graph::end_profile() { return {}; }

void Graph::check_contract(const Call& call) const {
  const auto& net = impl_->net;
  const auto fail = [&](const std::string& why) {
    throw Failure(Kind::contract, std::string("the ") + name_of(call.role) + " graph " + why);
  };
  if (net.input_names().size() != call.inputs.size() ||
      net.output_names().size() != call.results.size()) {
    fail("has " + std::to_string(net.input_names().size()) + " inputs and " +
         std::to_string(net.output_names().size()) + " outputs, and the plan gives " +
         std::to_string(call.inputs.size()) + " and " + std::to_string(call.results.size()));
  }
  for (const auto& input : call.inputs) {
    if (find(net.input_names(), net.input_indexes(), input.signature.name) < 0)
      fail("has no input named " + input.signature.name);
  }
  for (const auto& result : call.results) {
    if (find(net.output_names(), net.output_indexes(), result.name) < 0)
      fail("has no output named " + result.name);
  }
}

struct Binding::Impl {
  Impl(const Graph::Impl& of, const Call& to_run, Buffers& buffers) : graph(of), call(to_run) {
    const auto& net = graph.net;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      const auto& signature = call.inputs[i].signature;
      inputs.push_back(view(signature, buffers[i].data()));
      input_blobs.push_back(find(net.input_names(), net.input_indexes(), signature.name));
    }
    for (const auto& result : call.results)
      output_blobs.push_back(find(net.output_names(), net.output_indexes(), result.name));
    outputs.resize(call.results.size());
  }

  const Graph::Impl& graph;
  const Call& call;
  std::vector<ncnn::Mat> inputs, outputs;
  std::vector<int> input_blobs, output_blobs;
  int status = 0;
};

Binding::Binding(const Graph& graph, const Call& call, Buffers& buffers)
    : impl_(std::make_unique<Impl>(graph.impl(), call, buffers)) {}
Binding::Binding(Binding&&) noexcept = default;
Binding::~Binding() = default;

void Binding::run() {
  auto& bound = *impl_;
  auto extractor = bound.graph.net.create_extractor();
  bound.status = 0;
  for (std::size_t i = 0; i < bound.inputs.size(); ++i)
    bound.status |= extractor.input(bound.input_blobs[i], bound.inputs[i]);
  for (std::size_t i = 0; i < bound.outputs.size(); ++i)
    bound.status |= extractor.extract(bound.output_blobs[i], bound.outputs[i]);
}

Results Binding::take() {
  auto& bound = *impl_;
  const auto& call = bound.call;
  if (bound.status != 0)
    throw Failure(Kind::run, std::string("the ") + name_of(call.role) + " graph failed in ncnn");
  Results results;
  for (std::size_t i = 0; i < call.results.size(); ++i) {
    const auto& want = call.results[i];
    ncnn::Mat mat;
    std::swap(mat, bound.outputs[i]);
    Shape shape = shape_of(mat);
    if (shape.size() < want.shape.size()) shape.insert(shape.begin(), 1);
    const bool fp32 = want.dtype == Dtype::float32 && mat.elempack == 1 && mat.elembits() == 32;
    if (!fp32 || shape != want.shape) {
      throw Failure(Kind::contract, std::string("the ") + name_of(call.role) + " graph returned " +
                                        want.name + " as " + std::to_string(mat.elembits()) +
                                        "-bit values of shape " +
                                        describe(Dtype::float32, shape).substr(8) +
                                        " and the plan says " + describe(want.dtype, want.shape));
    }
    // Planes lie apart where they are no multiple of 16 bytes; flat, nothing lies between them.
    auto flat = std::make_shared<ncnn::Mat>(mat.reshape(static_cast<int>(want.elements())));
    if (flat->empty()) throw std::bad_alloc();
    const auto* const data = static_cast<const std::uint8_t*>(flat->data);
    results.push_back({std::move(flat), data, want.bytes()});
  }
  return results;
}

}  // namespace mobileinst
