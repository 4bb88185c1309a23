// What runs the graphs, behind one small interface. The build links one implementation of it:
// runtime_ort.cc, ONNX Runtime opened at run time, or ../ncnn/runtime_ncnn.cc, ncnn linked in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace mobileinst {

// One process opens one runtime and keeps it until it ends.
class Runtime {
 public:
  // Takes the plan's library, empty for none. Throws Failure(library).
  explicit Runtime(const std::string& library);
  ~Runtime();

  const char* name() const;  // "onnxruntime", "ncnn"
  const std::string& version() const;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// A result that the runtime allocated; its dtype and shape are those of the call's signature.
struct Result {
  std::shared_ptr<void> owner;
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

// What one run returned, in the order of the call's `results`.
using Results = std::vector<Result>;

// One graph, loaded for one thread, sequential, fp32, fully optimised.
class Graph {
 public:
  // `profile` is the prefix of the profiler's file, empty for none. Throws Failure(graph), and
  // Failure(plan) for a profile that the runtime cannot make.
  Graph(const Runtime& runtime, Role role, const std::string& path, const std::string& profile);
  ~Graph();

  // Throws Failure(contract) unless the graph takes and returns what the call says.
  void check_contract(const Call& call) const;

  double load_ms() const;

  // Ends profiling and returns the path of the file that was written. Throws Failure(files).
  std::string end_profile();

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// A call bound to its graph and to the buffers of its inputs, which stay where they are.
class Binding {
 public:
  using Buffers = std::vector<std::vector<std::uint8_t>>;

  // Throws Failure(run).
  Binding(const Graph& graph, const Call& call, Buffers& buffers);
  Binding(Binding&&) noexcept;
  ~Binding();

  // Inference and nothing else; what went wrong in it is told by `take`.
  void run();

  // The last run's results. Throws Failure(run), and Failure(contract) when a result's shape or
  // dtype is not the plan's.
  Results take();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobileinst
