// ONNX Runtime, opened at run time: the library, a loaded graph, and what a run returns.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "failure.h"
#include "ort_abi.h"
#include "plan.h"

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

// One process opens one library and keeps it until it ends.
class Runtime {
 public:
  // Throws Failure(library). Telemetry is switched off before the library is opened.
  explicit Runtime(const std::string& path);

  const ort::Api* api() const { return api_; }
  const ort::Env* env() const { return env_.get(); }
  const std::string& version() const { return version_; }

  // Throws Failure(kind) with the runtime's own words when the status is an error, and frees it.
  void check(ort::Status* status, Kind kind, const std::string& what) const;

  template <typename T>
  Owned<T> own(T* pointer) const {
    return Owned<T>(pointer, Releaser{api_});
  }

 private:
  const ort::Api* api_ = nullptr;
  std::string version_;
  Owned<ort::Env> env_;
};

// A result that the runtime allocated, with the dtype and shape it really has.
struct Result {
  Owned<ort::Value> value;
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

// What one run returned, in the order of the call's `results`.
using Results = std::vector<Result>;

// One graph, loaded for one thread, sequential, fully optimised.
class Graph {
 public:
  // `profile` is the prefix of the profiler's file, empty for none. Throws Failure(graph).
  Graph(const Runtime& runtime, Role role, const std::string& path, const std::string& profile);

  // Throws Failure(contract) unless the graph takes and returns exactly what the call says.
  void check_contract(const Call& call) const;

  ort::Session* session() const { return session_.get(); }
  double load_ms() const { return load_ms_; }

  // Ends profiling and returns the path of the file that was written. Throws Failure(files).
  std::string end_profile();

 private:
  struct Tensor {
    std::string name;
    int type;
    std::vector<std::int64_t> shape;  // -1 for a free axis
  };
  std::vector<Tensor> tensors(bool inputs) const;
  void compare(const std::vector<Tensor>& have, const std::vector<Signature>& want,
               const char* what) const;

  const Runtime& runtime_;
  Role role_;
  Owned<ort::Session> session_;
  std::vector<Tensor> inputs_;
  std::vector<Tensor> outputs_;
  double load_ms_ = 0.0;
};

int ort_type(Dtype dtype);

}  // namespace mobileinst
