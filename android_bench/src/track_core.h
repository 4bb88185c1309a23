// The tracker behind include/mobileinst_track.h. Its rules are those of mobileinst_deploy/core/tracker.py,
// in the same order.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mobileinst_track.h"
#include "track_masks.h"
#include "track_schedule.h"

namespace mobileinst::track {

using Options = mobileinst_track_options;
using Status = mobileinst_track_status;
using Instance = mobileinst_track_instance;

struct Track {
  std::int64_t id = 0;
  std::int64_t keyframes = 1;  // how many showed it
  std::int64_t missed = 0;     // keyframes since the last one that did
  double objectness = 0.0;     // mean logit over those keyframes
  std::vector<float> kernel;   // the mean direction, from unit()
  std::vector<float> classes;  // mean logits

  int class_index() const;
  double score() const;
  Instance instance() const;
};

// A mask as bits, for overlaps.
struct Bits {
  Bits(const float* logits, std::size_t pixels);
  explicit Bits(std::vector<std::uint64_t> bits);
  std::vector<std::uint64_t> words;
  std::size_t area = 0;
  std::size_t first = 0, last = 0;  // no bit is set outside of these words, `last` excluded
};

// Intersection over union; 0 of two empty ones.
float iou(const Bits& a, const Bits& b);

// One query of a keyframe.
struct Query {
  std::size_t index = 0;
  float score = 0.0F;
  Bits place;
};

class Tracker {
 public:
  explicit Tracker(const Options& options);

  void look(const std::uint8_t* picture) { schedule_.look(picture); }
  bool wants_keyframe() const {
    return since_ < 0 || since_ + 1 >= options_.clip_length || schedule_.wants_keyframe();
  }
  std::int64_t since() const { return since_; }
  Status keyframe(const float* classes, const float* objectness, const float* kernels,
                  const float* masks);
  Status reuse(const float* masks);

  const std::vector<float>& kernels() const { return kernels_; }
  const std::vector<Track>& live() const { return live_; }
  const std::vector<Instance>& seen() const { return seen_; }
  const RunLengths& mask(std::size_t index);
  const float* logits(std::size_t index) const { return masks_.data() + index * pixels_; }
  const MaskSampler& sampler() const { return sampler_; }

  std::vector<std::uint8_t> save() const;
  Status load(const std::uint8_t* state, std::size_t size);

 private:
  std::vector<Query> distinct(const float* classes, const float* objectness,
                              const float* masks) const;
  std::vector<double> nearness(const std::vector<Query>& found, std::size_t known) const;
  void take_masks(const float* masks, const std::vector<std::size_t>& which);

  std::size_t queries_, classes_, width_, pixels_;
  Options options_;
  MaskSampler sampler_;
  SceneSchedule schedule_;
  std::vector<Track> live_, hidden_;  // live ones in ascending order of identity
  std::vector<Instance> seen_;
  std::vector<float> kernels_;  // of the live ones, as the network made them
  std::vector<float> masks_;    // logits of the latest frame
  std::vector<Bits> places_;    // where its live instances lie
  std::vector<RunLengths> counted_;  // of the latest frame, those that were asked for
  std::int64_t born_ = 0;
  std::int64_t since_ = -1;  // frames since the keyframe; -1 before the first
};

// No network gives more; beyond it, means would overflow.
constexpr float kLargest = 1e30F;

// Whether every value is a number of at most kLargest.
bool usable(const float* values, std::size_t count);

inline double sigmoid(double value) { return 1 / (1 + std::exp(-value)); }

// The score of a class, in double, so that what is rounded to float is rounded as the host does.
double combined(float class_logit, double objectness);

// See mobileinst_scores; the arguments are checked before.
void settle_scores(const mobileinst_scoring& how, const float* class_logits,
                   const float* objectness_logits, const float* mask_logits, double* scores);

}  // namespace mobileinst::track
