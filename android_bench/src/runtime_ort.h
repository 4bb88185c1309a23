// ONNX Runtime, opened at run time: what runtime_ort.cc holds, and the bare timing loop of the tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "failure.h"
#include "ort_abi.h"
#include "runtime.h"

namespace mobileinst {

struct Releaser {
  const ort::Api* api = nullptr;
  void operator()(ort::Env* p) const { api->ReleaseEnv(p); }
  void operator()(ort::SessionOptions* p) const { api->ReleaseSessionOptions(p); }
  void operator()(ort::Session* p) const { api->ReleaseSession(p); }
  void operator()(ort::MemoryInfo* p) const { api->ReleaseMemoryInfo(p); }
  void operator()(ort::Value* p) const { api->ReleaseValue(p); }
  void operator()(ort::TypeInfo* p) const { api->ReleaseTypeInfo(p); }
  void operator()(ort::TensorInfo* p) const { api->ReleaseTensorTypeAndShapeInfo(p); }
};

template <typename T>
using Owned = std::unique_ptr<T, Releaser>;

struct Runtime::Impl {
  // Throws Failure(library). Telemetry is switched off before the library is opened.
  explicit Impl(const std::string& path);

  // Throws Failure(kind) with the runtime's own words when the status is an error, and frees it.
  void check(ort::Status* status, Kind kind, const std::string& what) const;

  template <typename T>
  Owned<T> own(T* pointer) const {
    return Owned<T>(pointer, Releaser{api});
  }

  const ort::Api* api = nullptr;
  std::string version;
  Owned<ort::Env> env;
  Owned<ort::MemoryInfo> memory;
};

struct Graph::Impl {
  struct Tensor {
    std::string name;
    int type;
    std::vector<std::int64_t> shape;  // -1 for a free axis
  };

  Impl(const Runtime::Impl& opened, Role of, const std::string& path, const std::string& profile);
  std::vector<Tensor> tensors(bool inputs) const;
  void compare(const std::vector<Tensor>& have, const std::vector<Signature>& want,
               const char* what) const;

  const Runtime::Impl& runtime;
  Role role;
  Owned<ort::Session> session;
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  double load_ms = 0.0;
};

}  // namespace mobileinst
