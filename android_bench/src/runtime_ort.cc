#include "runtime_ort.h"

#include <dlfcn.h>

#include <cstdlib>
#include <utility>

#include "clock.h"

namespace mobileinst {
namespace {

int ort_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return ort::kFloat32;
    case Dtype::uint8: return ort::kUint8;
    case Dtype::int32: return ort::kInt32;
    case Dtype::int64: return ort::kInt64;
  }
  return 0;
}

}  // namespace

Runtime::Impl::Impl(const std::string& path) {
  if (path.empty()) throw Failure(Kind::library, "the plan names no ONNX Runtime library");
  // ONNX Runtime 1.31 and later send telemetry unless told not to: a thread and files that a
  // measurement must not have.
  ::setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = ::dlerror();
    throw Failure(Kind::library,
                  path + " cannot be opened: " + (why != nullptr ? why : "no reason given"));
  }
  const auto get_base = reinterpret_cast<ort::GetApiBase>(::dlsym(library, "OrtGetApiBase"));
  if (get_base == nullptr)
    throw Failure(Kind::library, path + " is not ONNX Runtime: it has no OrtGetApiBase");
  const ort::ApiBase* const base = get_base();
  version = base->GetVersionString();
  api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {
    throw Failure(Kind::library, "ONNX Runtime " + version + " does not offer API version " +
                                     std::to_string(ort::kApiVersion));
  }
  ort::Env* raw_env = nullptr;
  check(api->CreateEnv(ort::kLogErrors, "mobileinst", &raw_env), Kind::library,
        "ONNX Runtime cannot start");
  env = own(raw_env);
  check(api->DisableTelemetryEvents(raw_env), Kind::library, "telemetry cannot be switched off");
  ort::MemoryInfo* raw_memory = nullptr;
  check(api->CreateCpuMemoryInfo(ort::kDeviceAllocator, ort::kDefaultMemory, &raw_memory),
        Kind::library, "ONNX Runtime cannot describe memory");
  memory = own(raw_memory);
}

void Runtime::Impl::check(ort::Status* status, Kind kind, const std::string& what) const {
  if (status == nullptr) return;
  const std::string why = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw Failure(kind, what + ": " + why);
}

Runtime::Runtime(const std::string& library) : impl_(std::make_unique<Impl>(library)) {}
Runtime::~Runtime() = default;
const char* Runtime::name() const { return "onnxruntime"; }
const std::string& Runtime::version() const { return impl_->version; }

Graph::Impl::Impl(const Runtime::Impl& opened, Role of, const std::string& path,
                  const std::string& profile)
    : runtime(opened), role(of) {
  const auto* const api = runtime.api;
  const std::string what =
      std::string("the ") + name_of(role) + " graph " + path + " cannot be loaded";
  const auto check = [&](ort::Status* status) { runtime.check(status, Kind::graph, what); };

  ort::SessionOptions* raw = nullptr;
  check(api->CreateSessionOptions(&raw));
  const auto options = runtime.own(raw);
  check(api->SetIntraOpNumThreads(raw, 1));
  check(api->SetInterOpNumThreads(raw, 1));
  check(api->SetSessionExecutionMode(raw, ort::kSequential));
  check(api->SetSessionGraphOptimizationLevel(raw, ort::kAllOptimisations));
  if (!profile.empty()) check(api->EnableProfiling(raw, profile.c_str()));

  const auto start = now();
  ort::Session* raw_session = nullptr;
  check(api->CreateSession(runtime.env.get(), path.c_str(), raw, &raw_session));
  load_ms = ms_between(start, now());
  session = runtime.own(raw_session);
  inputs = tensors(true);
  outputs = tensors(false);
}

std::vector<Graph::Impl::Tensor> Graph::Impl::tensors(bool of_inputs) const {
  const auto* const api = runtime.api;
  const std::string what = std::string("the ") + name_of(role) + " graph cannot be examined";
  const auto check = [&](ort::Status* status) { runtime.check(status, Kind::graph, what); };

  ort::Allocator* allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  auto* const loaded = session.get();
  std::size_t count = 0;
  check(of_inputs ? api->SessionGetInputCount(loaded, &count)
               : api->SessionGetOutputCount(loaded, &count));
  std::vector<Tensor> found;
  for (std::size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    check(of_inputs ? api->SessionGetInputName(loaded, i, allocator, &name)
                 : api->SessionGetOutputName(loaded, i, allocator, &name));
    Tensor tensor{name, 0, {}};
    check(api->AllocatorFree(allocator, name));

    ort::TypeInfo* type = nullptr;
    check(of_inputs ? api->SessionGetInputTypeInfo(loaded, i, &type)
                 : api->SessionGetOutputTypeInfo(loaded, i, &type));
    const auto owned = runtime.own(type);
    const ort::TensorInfo* info = nullptr;  // belongs to `type`; null for what is not a tensor
    check(api->CastTypeInfoToTensorInfo(type, &info));
    if (info != nullptr) {
      std::size_t rank = 0;
      check(api->GetTensorElementType(info, &tensor.type));
      check(api->GetDimensionsCount(info, &rank));
      tensor.shape.resize(rank);
      check(api->GetDimensions(info, tensor.shape.data(), rank));
    }
    found.push_back(std::move(tensor));
  }
  return found;
}

void Graph::Impl::compare(const std::vector<Tensor>& have, const std::vector<Signature>& want,
                    const char* what) const {
  const auto fail = [&](const std::string& why) {
    throw Failure(Kind::contract, std::string("the ") + name_of(role) + " graph " + why);
  };
  if (have.size() != want.size()) {
    fail("has " + std::to_string(have.size()) + " " + what + "s and the plan gives " +
         std::to_string(want.size()));
  }
  for (const auto& signature : want) {
    const Tensor* match = nullptr;
    for (const auto& tensor : have) {
      if (tensor.name == signature.name) match = &tensor;
    }
    if (match == nullptr) fail(std::string("has no ") + what + " named " + signature.name);
    bool fits =
        match->type == ort_type(signature.dtype) && match->shape.size() == signature.shape.size();
    for (std::size_t axis = 0; fits && axis < signature.shape.size(); ++axis) {
      fits = match->shape[axis] < 0 || match->shape[axis] == signature.shape[axis];
    }
    if (!fits) {
      std::string shape;
      for (const auto length : match->shape)
        shape += (shape.empty() ? "" : ",") + (length < 0 ? "?" : std::to_string(length));
      fail("has the " + std::string(what) + " " + signature.name + " of element type " +
           std::to_string(match->type) + ", shape " + shape + ", and the plan says " +
           describe(signature.dtype, signature.shape));
    }
  }
}

Graph::Graph(const Runtime& runtime, Role role, const std::string& path, const std::string& profile)
    : impl_(std::make_unique<Impl>(runtime.impl(), role, path, profile)) {}
Graph::~Graph() = default;
double Graph::load_ms() const { return impl_->load_ms; }

void Graph::check_contract(const Call& call) const {
  std::vector<Signature> inputs;
  for (const auto& input : call.inputs) inputs.push_back(input.signature);
  impl_->compare(impl_->inputs, inputs, "input");
  impl_->compare(impl_->outputs, call.results, "output");
}

std::string Graph::end_profile() {
  const auto* const api = impl_->runtime.api;
  const auto check = [&](ort::Status* status) {
    impl_->runtime.check(status, Kind::files, "the profile cannot be written");
  };
  ort::Allocator* allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  char* name = nullptr;
  check(api->SessionEndProfiling(impl_->session.get(), allocator, &name));
  std::string path = name;
  check(api->AllocatorFree(allocator, name));
  return path;
}

struct Binding::Impl {
  Impl(const Graph::Impl& of, const Call& to_run, Buffers& buffers) : graph(of), call(to_run) {
    const auto& runtime = graph.runtime;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      const auto& signature = call.inputs[i].signature;
      ort::Value* value = nullptr;
      runtime.check(runtime.api->CreateTensorWithDataAsOrtValue(
                        runtime.memory.get(), buffers[i].data(), buffers[i].size(),
                        signature.shape.data(), signature.shape.size(), ort_type(signature.dtype),
                        &value),
                    Kind::run, "the input " + signature.name + " cannot be made");
      inputs.push_back(runtime.own(value));
      input_values.push_back(value);
      input_names.push_back(signature.name.c_str());
    }
    for (const auto& result : call.results) output_names.push_back(result.name.c_str());
    values.resize(output_names.size());
  }

  Result read(Owned<ort::Value> value, const Signature& want) const {
    const auto& runtime = graph.runtime;
    const auto* const api = runtime.api;
    const auto check = [&](ort::Status* failed) {
      runtime.check(failed, Kind::run, "the result " + want.name + " cannot be read");
    };
    ort::TensorInfo* raw = nullptr;
    check(api->GetTensorTypeAndShape(value.get(), &raw));
    const auto info = runtime.own(raw);
    int type = 0;
    std::size_t rank = 0;
    check(api->GetTensorElementType(raw, &type));
    check(api->GetDimensionsCount(raw, &rank));
    std::vector<std::int64_t> shape(rank);
    check(api->GetDimensions(raw, shape.data(), rank));
    if (type != ort_type(want.dtype) || shape != want.shape) {
      throw Failure(Kind::contract, std::string("the ") + name_of(call.role) + " graph returned " +
                                        want.name + " as " + describe(want.dtype, shape) +
                                        " (element type " + std::to_string(type) +
                                        ") and the plan says " + describe(want.dtype, want.shape));
    }
    void* data = nullptr;
    check(api->GetTensorMutableData(value.get(), &data));
    return {std::shared_ptr<ort::Value>(std::move(value)), static_cast<const std::uint8_t*>(data),
            want.bytes()};
  }

  const Graph::Impl& graph;
  const Call& call;
  std::vector<Owned<ort::Value>> inputs;
  std::vector<const ort::Value*> input_values;
  std::vector<const char*> input_names;
  std::vector<const char*> output_names;
  std::vector<ort::Value*> values;
  ort::Status* status = nullptr;
};

Binding::Binding(const Graph& graph, const Call& call, Buffers& buffers)
    : impl_(std::make_unique<Impl>(graph.impl(), call, buffers)) {}
Binding::Binding(Binding&&) noexcept = default;
Binding::~Binding() = default;

void Binding::run() {
  auto& bound = *impl_;
  bound.status = bound.graph.runtime.api->Run(
      bound.graph.session.get(), nullptr, bound.input_names.data(), bound.input_values.data(),
      bound.input_values.size(), bound.output_names.data(), bound.output_names.size(),
      bound.values.data());
}

Results Binding::take() {
  auto& bound = *impl_;
  const auto& runtime = bound.graph.runtime;
  std::vector<Owned<ort::Value>> owned;
  for (auto*& value : bound.values) owned.push_back(runtime.own(std::exchange(value, nullptr)));
  runtime.check(std::exchange(bound.status, nullptr), Kind::run,
                std::string("the ") + name_of(bound.call.role) + " graph failed");
  Results results;
  for (std::size_t i = 0; i < owned.size(); ++i)
    results.push_back(bound.read(std::move(owned[i]), bound.call.results[i]));
  return results;
}

}  // namespace mobileinst
