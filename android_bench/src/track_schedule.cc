#include "track_schedule.h"

#include <cmath>
#include <cstdlib>
#include <utility>

#include "track_settled.h"

namespace mobileinst::track {
namespace {

constexpr std::size_t kCell = 32, kStep = 4;  // pixels: of a cell's side, from sample to sample
constexpr std::int32_t kSamples = 3 * (kCell / kStep) * (kCell / kStep);  // of a cell

// How far inside their masks pixels are from the threshold: the mean of tanh(logit / 2), 0 to 1,
// settled.
double certainty(const std::vector<float>& logits) {
  double sum = 0.0;
  std::size_t inside = 0;
  for (const float logit : logits) {
    if (!(logit > 0)) continue;
    sum += std::tanh(static_cast<double>(logit) / 2);
    ++inside;
  }
  return inside > 0 ? settled(sum / static_cast<double>(inside)) : 0.0;
}

}  // namespace

SceneSchedule::SceneSchedule(const mobileinst_track_options& options)
    : automatic_(options.automatic != 0),
      change_(options.change),
      certainty_(options.certainty),
      rows_(static_cast<std::size_t>(options.mask_height) * 8 / kCell),
      columns_(static_cast<std::size_t>(options.mask_width) * 8 / kCell),
      cells_(automatic_ ? rows_ * columns_ : 0) {}

void SceneSchedule::look(const std::uint8_t* picture) {
  if (!automatic_) return;
  // Sums of whole numbers: equal to the host's to the last bit, in whatever order they are added.
  coming_.assign(cells_, 0);
  for (std::size_t y = 0; y < rows_ * kCell; y += kStep) {
    const std::uint8_t* const row = picture + 3 * y * columns_ * kCell;
    std::int32_t* const cells = coming_.data() + y / kCell * columns_;
    for (std::size_t x = 0; x < columns_ * kCell; x += kStep)
      cells[x / kCell] += row[3 * x] + row[3 * x + 1] + row[3 * x + 2];
  }
}

bool SceneSchedule::wants_keyframe() const {
  if (!automatic_) return false;
  if (scene_.sure_now < certainty_ * scene_.sure_then) return true;
  if (coming_.empty()) return false;
  if (scene_.keyframe.empty()) return true;
  std::int64_t difference = 0;
  for (std::size_t i = 0; i < cells_; ++i) difference += std::abs(coming_[i] - scene_.keyframe[i]);
  const auto samples = static_cast<double>(cells_ * kSamples);
  return static_cast<double>(difference) / samples > change_;
}

void SceneSchedule::observe(const std::vector<float>& masks, bool keyframe) {
  if (!automatic_) return;
  scene_.sure_now = certainty(masks);
  if (keyframe) {
    scene_.sure_then = scene_.sure_now;
    scene_.keyframe = std::move(coming_);
  }
  coming_.clear();
}

void SceneSchedule::restore(Scene scene) {
  scene_ = std::move(scene);
  coming_.clear();
}

bool SceneSchedule::sane(const Scene& scene) {
  const auto share = [](double value) { return value >= 0 && value <= 1; };  // false for NaN
  if (!share(scene.sure_then) || !share(scene.sure_now)) return false;
  for (const auto cell : scene.keyframe) {
    if (cell < 0 || cell > 255 * kSamples) return false;
  }
  return true;
}

}  // namespace mobileinst::track
