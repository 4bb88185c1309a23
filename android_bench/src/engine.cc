#include "engine.h"

#include <sys/prctl.h>

#include <cmath>
#include <cstring>

#include "clock.h"
#include "failure.h"
#include "files.h"

namespace mobileinst {
namespace {

// A prctl option that no kernel knows: EINVAL, and nothing else happens.
constexpr int kMark = 0x6d61726b;

void mark(long value) {
  if (value >= 0) ::prctl(kMark, static_cast<unsigned long>(value), 0UL, 0UL, 0UL);
}

}  // namespace

Engine::Engine(const Plan& plan, bool profile) : runtime_(plan.library) {
  for (const auto& call : plan.calls) {
    auto found = graphs_.find(call.role);
    if (found == graphs_.end()) {
      const std::string prefix = profile ? plan.folder + "/" + name_of(call.role) : "";
      found = graphs_.try_emplace(call.role, runtime_, call.role, plan.graphs.at(call.role), prefix)
                  .first;
    }
    found->second.check_contract(call);
  }
}

ReadyCall::ReadyCall(Engine& engine, const Call& call) : engine_(engine), call_(call) {
  for (const auto& input : call.inputs) {
    Source source;
    source.dtype = input.stored;
    source.taken_over = input.result;
    if (!input.file.empty()) {
      const std::size_t bytes = input.signature.elements() * size_of(input.stored);
      source.stored = read_file(input.file, bytes);
      if (source.stored.size() != bytes) {
        throw Failure(Kind::files, input.file + " holds " + std::to_string(source.stored.size()) +
                                       " bytes instead of " + std::to_string(bytes));
      }
      if (crc32(source.stored.data(), bytes) != input.crc)
        throw Failure(Kind::files, input.file + " differs from its CRC-32");
    }
    sources_.push_back(std::move(source));
    buffers_.emplace_back(input.signature.bytes());
  }
  binding_.emplace(engine.graphs_.at(call.role), call_, buffers_);
}

void ReadyCall::prepare() {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const auto& source = sources_[i];
    auto& buffer = buffers_[i];
    if (source.taken_over.empty() && call_.inputs[i].file.empty()) continue;  // given
    if (!source.taken_over.empty()) {
      const auto& latest = engine_.latest_;
      for (std::size_t k = 0; k < latest.call->results.size(); ++k) {
        if (latest.call->results[k].name == source.taken_over)
          std::memcpy(buffer.data(), (*latest.results)[k].data, buffer.size());
      }
    } else if (source.dtype != call_.inputs[i].signature.dtype) {
      auto* const wide = reinterpret_cast<float*>(buffer.data());
      for (std::size_t k = 0; k < source.stored.size(); ++k)
        wide[k] = static_cast<float>(source.stored[k]);
    } else {
      std::memcpy(buffer.data(), source.stored.data(), buffer.size());
    }
  }
}

Timing ReadyCall::run(long marks) {
  const auto start = now();
  prepare();
  const auto prepared = now();
  // The last run's results go back to the arena first, as they would in an application's loop.
  results_.reset();
  if (call_.role == Role::frame) engine_.latest_ = {};
  mark(marks);
  const auto begin = now();
  binding_->run();
  const auto end = now();
  mark(marks < 0 ? marks : marks + 1);

  results_ = std::make_shared<Results>(binding_->take());
  if (call_.role == Role::frame) engine_.latest_ = {&call_, results_};
  return {ms_between(start, prepared), ms_between(begin, end)};
}

void ReadyCall::check_finite() const {
  for (std::size_t i = 0; i < results_->size(); ++i) {
    if (call_.results[i].dtype != Dtype::float32) continue;
    const auto* const values = reinterpret_cast<const float*>((*results_)[i].data);
    std::size_t bad = 0;
    for (std::size_t k = 0; k < call_.results[i].elements(); ++k)
      bad += std::isfinite(values[k]) ? 0 : 1;
    if (bad > 0) {
      throw Failure(Kind::nonfinite, std::to_string(bad) + " of " +
                                         std::to_string(call_.results[i].elements()) +
                                         " values of " + call_.results[i].name + " from the " +
                                         name_of(call_.role) + " graph are NaN or infinite");
    }
  }
}

}  // namespace mobileinst
