#include "runtime.h"

#include <dlfcn.h>

#include <cstdlib>

#include "clock.h"

namespace mobileinst {

Runtime::Runtime(const std::string& path) {
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
  version_ = base->GetVersionString();
  api_ = base->GetApi(ort::kApiVersion);
  if (api_ == nullptr) {
    throw Failure(Kind::library, "ONNX Runtime " + version_ + " does not offer API version " +
                                     std::to_string(ort::kApiVersion));
  }
  ort::Env* env = nullptr;
  check(api_->CreateEnv(ort::kLogErrors, "mobileinst", &env), Kind::library,
        "ONNX Runtime cannot start");
  env_ = own(env);
  check(api_->DisableTelemetryEvents(env), Kind::library, "telemetry cannot be switched off");
}

void Runtime::check(ort::Status* status, Kind kind, const std::string& what) const {
  if (status == nullptr) return;
  const std::string why = api_->GetErrorMessage(status);
  api_->ReleaseStatus(status);
  throw Failure(kind, what + ": " + why);
}

Graph::Graph(const Runtime& runtime, Role role, const std::string& path, const std::string& profile)
    : runtime_(runtime), role_(role) {
  const auto* const api = runtime.api();
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
  ort::Session* session = nullptr;
  check(api->CreateSession(runtime.env(), path.c_str(), raw, &session));
  load_ms_ = ms_between(start, now());
  session_ = runtime.own(session);
  inputs_ = tensors(true);
  outputs_ = tensors(false);
}

std::vector<Graph::Tensor> Graph::tensors(bool inputs) const {
  const auto* const api = runtime_.api();
  const std::string what = std::string("the ") + name_of(role_) + " graph cannot be examined";
  const auto check = [&](ort::Status* status) { runtime_.check(status, Kind::graph, what); };

  ort::Allocator* allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  auto* const session = session_.get();
  std::size_t count = 0;
  check(inputs ? api->SessionGetInputCount(session, &count)
               : api->SessionGetOutputCount(session, &count));
  std::vector<Tensor> found;
  for (std::size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    check(inputs ? api->SessionGetInputName(session, i, allocator, &name)
                 : api->SessionGetOutputName(session, i, allocator, &name));
    Tensor tensor{name, 0, {}};
    check(api->AllocatorFree(allocator, name));

    ort::TypeInfo* type = nullptr;
    check(inputs ? api->SessionGetInputTypeInfo(session, i, &type)
                 : api->SessionGetOutputTypeInfo(session, i, &type));
    const auto owned = runtime_.own(type);
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

void Graph::check_contract(const Call& call) const {
  std::vector<Signature> inputs;
  for (const auto& input : call.inputs) inputs.push_back(input.signature);
  compare(inputs_, inputs, "input");
  compare(outputs_, call.results, "output");
}

void Graph::compare(const std::vector<Tensor>& have, const std::vector<Signature>& want,
                    const char* what) const {
  const auto fail = [&](const std::string& why) {
    throw Failure(Kind::contract, std::string("the ") + name_of(role_) + " graph " + why);
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

std::string Graph::end_profile() {
  const auto* const api = runtime_.api();
  const auto check = [&](ort::Status* status) {
    runtime_.check(status, Kind::files, "the profile cannot be written");
  };
  ort::Allocator* allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  char* name = nullptr;
  check(api->SessionEndProfiling(session_.get(), allocator, &name));
  std::string path = name;
  check(api->AllocatorFree(allocator, name));
  return path;
}

int ort_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return ort::kFloat32;
    case Dtype::uint8: return ort::kUint8;
    case Dtype::int32: return ort::kInt32;
    case Dtype::int64: return ort::kInt64;
  }
  return 0;
}

}  // namespace mobileinst
