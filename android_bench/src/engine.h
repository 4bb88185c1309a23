// Calls made ready to run: the graphs they need, their input tensors, and timed runs of them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plan.h"
#include "runtime.h"

namespace mobileinst {

struct Timing {
  double prepare_ms = 0.0;  // filling the input tensors
  double run_ms = 0.0;      // inference alone
};

class Engine;

// A call with its files read and its tensors made. Running it fills the tensors anew each time, as
// every new picture would.
class ReadyCall {
 public:
  // Throws Failure(files) for an unreadable or corrupt input.
  ReadyCall(Engine& engine, const Call& call);

  // Throws Failure(run), and Failure(contract) when a result's shape is not the plan's. With
  // `marks` >= 0 the run itself lies between two marks, `marks` and `marks` + 1, that an
  // instruction counter under qemu sees and every kernel ignores.
  Timing run(long marks = -1);

  // Where the caller puts the values of an input that comes from neither file nor result, before each run.
  void* given(std::size_t input) { return buffers_[input].data(); }

  const Call& call() const { return call_; }
  const Results& results() const { return *results_; }  // of the last run

  // Throws Failure(nonfinite) when a result holds NaN or infinity.
  void check_finite() const;

 private:
  struct Source {
    std::vector<std::uint8_t> stored;  // as in the file; empty when taken over from a frame call
    std::string taken_over;
    Dtype dtype{};
  };
  void prepare();

  Engine& engine_;
  const Call& call_;
  std::vector<Source> sources_;
  Binding::Buffers buffers_;
  std::optional<Binding> binding_;
  std::shared_ptr<Results> results_;
};

class Engine {
 public:
  // Opens the runtime and loads every graph that a call names; with `profile`, each with a profiler
  // writing into the plan's folder.
  Engine(const Plan& plan, bool profile);

  const Runtime& runtime() const { return runtime_; }
  std::map<Role, Graph>& graphs() { return graphs_; }

 private:
  friend class ReadyCall;
  // The latest frame call's results, for the calls that take one over.
  struct Latest {
    const Call* call = nullptr;
    std::shared_ptr<Results> results;
  };

  Runtime runtime_;
  std::map<Role, Graph> graphs_;
  Latest latest_;
};

}  // namespace mobileinst
