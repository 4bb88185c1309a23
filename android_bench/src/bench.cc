// Mode bench: the interleaved schedule of each T, every sample kept.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>

#include "clock.h"
#include "core.h"
#include "modes.h"

namespace mobileinst {
namespace {

struct Sample {
  Role role;
  int clip;
  double start_ms;
  Timing timing;
  int core;
  long khz;
};

class Recorder {
 public:
  explicit Recorder(std::optional<int> core) : core_(core) {}

  // Runs once and keeps the sample. Core and clock are read after the run, outside both of its
  // timers.
  void run(ReadyCall& ready, int clip, const Instant& origin, std::vector<Sample>& samples) {
    const auto start = now();
    const auto timing = ready.run();
    const int core = current_core();
    samples.push_back({ready.call().role, clip, ms_between(origin, start), timing, core,
                       clock_.khz(core_.value_or(core))});
  }

 private:
  std::optional<int> core_;
  CoreClock clock_;
};

void write(Json& json, const std::vector<Sample>& samples) {
  json.open('[');
  for (const auto& sample : samples) {
    json.open('{').key("role").text(name_of(sample.role)).key("clip").whole(sample.clip);
    json.key("start_ms").ms(sample.start_ms).key("prepare_ms").ms(sample.timing.prepare_ms);
    json.key("run_ms").ms(sample.timing.run_ms).key("cpu");
    sample.core < 0 ? json.null() : json.whole(sample.core);
    json.key("khz");
    sample.khz < 0 ? json.null() : json.whole(sample.khz);
    json.close('}');
  }
  json.close(']');
}

// A camera of so many frames a second with room for one: whoever is ready takes the newest frame
// and misses those that it was too slow for.
class Camera {
 public:
  Camera(double pace, const Instant& origin) : pace_(pace), origin_(origin) {}

  // Waits for a frame that was not taken yet.
  void wait() {
    if (pace_ <= 0.0) return;
    const double arrived = std::floor(ms_between(origin_, now()) * pace_ / 1e3);
    taken_ = std::max(arrived, taken_ + 1.0);
    sleep_until(origin_, taken_ * 1e3 / pace_);
  }

 private:
  double pace_;
  Instant origin_;
  double taken_ = -1.0;
};

// At most one line a second, so that telling does not disturb what is measured.
class Progress {
 public:
  void tell(const std::string& label, double done, double total) {
    const auto instant = now();
    if (told_ && ms_between(last_, instant) < 1000.0) return;
    std::fprintf(stderr, "progress\t%s\t%.1f\t%.1f\n", label.c_str(), std::min(done, total), total);
    std::fflush(stderr);
    last_ = instant;
    told_ = true;
  }

 private:
  Instant last_{};
  bool told_ = false;
};

}  // namespace

void run_bench(Engine& engine, const Plan& plan, Json& json) {
  ReadyCall frame(engine, plan.calls[0]);
  std::optional<ReadyCall> reuse;
  if (plan.calls.size() > 1) reuse.emplace(engine, plan.calls[1]);
  Recorder recorder(plan.core);
  Progress progress;
  std::vector<Sample> samples;

  auto origin = now();
  for (int round = 0; round < plan.warmups; ++round) {
    recorder.run(frame, round, origin, samples);
    if (reuse) recorder.run(*reuse, round, origin, samples);
    progress.tell("warm-up", round + 1, plan.warmups);
  }
  write(json.key("warmups"), samples);

  json.key("schedules").open('[');
  for (const int clip_length : plan.clip_lengths) {
    samples.clear();
    samples.reserve(static_cast<std::size_t>(plan.runs) * static_cast<std::size_t>(clip_length));
    origin = now();
    double wall_ms = 0.0;
    const double least_ms = plan.seconds * 1e3;
    Camera camera(plan.pace, origin);
    for (int clip = 0; clip < plan.runs || wall_ms < least_ms; ++clip) {
      if (samples.size() + static_cast<std::size_t>(clip_length) > kMaxSamples) break;
      camera.wait();
      recorder.run(frame, clip, origin, samples);
      for (int t = 1; t < clip_length; ++t) {
        camera.wait();
        recorder.run(*reuse, clip, origin, samples);
      }
      wall_ms = ms_between(origin, now());
      const double share =
          std::min((clip + 1.0) / plan.runs, least_ms > 0 ? wall_ms / least_ms : 1.0);
      progress.tell("T = " + std::to_string(clip_length), share * plan.runs, plan.runs);
    }
    frame.check_finite();
    if (clip_length > 1) reuse->check_finite();
    json.open('{').key("clip_length").whole(clip_length).key("wall_ms").ms(wall_ms);
    write(json.key("samples"), samples);
    json.close('}');
  }
  json.close(']');
}

}  // namespace mobileinst
