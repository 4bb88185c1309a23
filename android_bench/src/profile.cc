// Modes profile and count: rounds over the plan's calls, watched by ONNX Runtime's profiler or by
// an instruction counter.
#include <vector>

#include "modes.h"

namespace mobileinst {
namespace {

std::vector<ReadyCall> make_ready(Engine& engine, const Plan& plan) {
  std::vector<ReadyCall> ready;
  ready.reserve(plan.calls.size());
  for (const auto& call : plan.calls) ready.emplace_back(engine, call);
  return ready;
}

}  // namespace

void run_profile(Engine& engine, const Plan& plan, Json& json) {
  auto ready = make_ready(engine, plan);
  json.key("calls").open('[');
  for (int round = 0; round < plan.warmups + plan.runs; ++round) {
    for (auto& call : ready) {
      const auto timing = call.run();
      if (round < plan.warmups) continue;
      open_call(json, call.call(), timing);
      json.close('}');
    }
  }
  for (const auto& call : ready) call.check_finite();
  json.close(']').key("profiles").open('{');
  for (auto& [role, graph] : engine.graphs()) {
    const std::string path = graph.end_profile();
    json.key(name_of(role)).text(path.substr(path.rfind('/') + 1));
  }
  json.close('}');
}

void run_count(Engine& engine, const Plan& plan, Json& json) {
  auto ready = make_ready(engine, plan);
  for (int round = 0; round < plan.warmups; ++round) {
    for (auto& call : ready) call.run();
  }
  std::vector<Timing> timings;
  timings.reserve(ready.size() * static_cast<std::size_t>(plan.runs));
  long value = 0;
  for (int round = 0; round < plan.runs; ++round) {
    for (auto& call : ready) {
      timings.push_back(call.run(value));
      value += 2;
    }
  }
  for (const auto& call : ready) call.check_finite();
  json.key("calls").open('[');
  for (std::size_t k = 0; k < timings.size(); ++k) {
    open_call(json, plan.calls[k % ready.size()], timings[k]);
    json.close('}');
  }
  json.close(']').key("marks").open('[');
  for (std::size_t k = 0; k < timings.size(); ++k) {
    const std::size_t call = k % ready.size();
    json.open('{')
        .key("call")
        .whole(static_cast<std::int64_t>(call))
        .key("role")
        .text(name_of(plan.calls[call].role));
    json.key("begin")
        .whole(static_cast<std::int64_t>(2 * k))
        .key("end")
        .whole(static_cast<std::int64_t>(2 * k + 1))
        .close('}');
  }
  json.close(']');
}

}  // namespace mobileinst
