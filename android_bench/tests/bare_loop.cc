// What Run costs without the runner around it: bare_loop PLAN prints the milliseconds of each
// graph's run in loops that read the clock only at their two ends. Loops of both graphs alternate,
// as the runner's own schedule does, so that the two can be compared; each is about a millisecond
// long, so that on a busy machine most of them are not interrupted.
#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

#include "clock.h"
#include "core.h"
#include "engine.h"
#include "failure.h"
#include "runtime_ort.h"

using namespace mobileinst;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const auto plan = load_plan(argv[1]);
    if (plan.core) pin_to(*plan.core);
    Engine engine(plan, false);
    const auto& runtime = engine.runtime().impl();
    const auto* const api = runtime.api;
    std::map<Role, std::vector<double>> ms;
    for (int round = 0; round < plan.warmups + plan.runs; ++round) {
      for (const auto& call : plan.calls) {
        std::vector<std::vector<float>> buffers;
        std::vector<Owned<ort::Value>> owned;
        std::vector<const ort::Value*> inputs;
        std::vector<const char*> input_names;
        std::vector<const char*> output_names;
        for (const auto& input : call.inputs) {
          buffers.emplace_back(input.signature.elements(), 1.0F);
          ort::Value* value = nullptr;
          runtime.check(api->CreateTensorWithDataAsOrtValue(
                            runtime.memory.get(), buffers.back().data(), input.signature.bytes(),
                            input.signature.shape.data(), input.signature.shape.size(),
                            ort::kFloat32, &value),
                        Kind::run, "input");
          owned.push_back(runtime.own(value));
          inputs.push_back(value);
          input_names.push_back(input.signature.name.c_str());
        }
        for (const auto& result : call.results) output_names.push_back(result.name.c_str());
        auto* const session = engine.graphs().at(call.role).impl().session.get();
        const double known = ms[call.role].empty() ? 1.0 : ms[call.role].back();
        const int repeats = std::max(1, static_cast<int>(1.0 / known));
        std::vector<ort::Value*> outputs(output_names.size());
        const auto start = now();
        for (int repeat = 0; repeat < repeats; ++repeat) {
          std::fill(outputs.begin(), outputs.end(), nullptr);
          auto* const status =
              api->Run(session, nullptr, input_names.data(), inputs.data(), inputs.size(),
                       output_names.data(), output_names.size(), outputs.data());
          runtime.check(status, Kind::run, "run");
          for (auto* const output : outputs) api->ReleaseValue(output);
        }
        const double each = ms_between(start, now()) / repeats;
        ms[call.role].push_back(each);
      }
    }
    for (auto& [role, samples] : ms) {
      samples.erase(samples.begin(), samples.begin() + plan.warmups);
      std::sort(samples.begin(), samples.end());
      std::printf("%s %.6f\n", name_of(role), samples[samples.size() / 2]);
    }
  } catch (const Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return static_cast<int>(failure.kind);
  }
  return 0;
}
