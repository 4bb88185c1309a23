// include/mobileinst_track.h over the tracker: arguments are checked here, and no exception passes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "mobileinst_track.h"
#include "track_core.h"

struct mobileinst_tracker {
  explicit mobileinst_tracker(const mobileinst_track_options& options) : tracker(options) {}
  mobileinst::track::Tracker tracker;
};

namespace {

template <typename Work>
mobileinst_track_status guarded(Work work) noexcept {
  try {
    return work();
  } catch (...) {  // nothing here throws but the allocator
    return MOBILEINST_TRACK_OUT_OF_MEMORY;
  }
}

template <typename T>
bool within(T value, T low, T high) {
  return low <= value && value <= high;  // false for NaN
}

constexpr int32_t kMostLogits = 4096, kMostPixels = 32768, kStride = 8;

constexpr int32_t kMostQueries = 4096, kMostValues = 65536;

bool usable(const mobileinst_scoring& how) {
  return within(how.queries, 1, kMostQueries) && within(how.classes, 1, kMostValues) &&
         within(how.mask_height, 1, kMostLogits) && within(how.mask_width, 1, kMostLogits) &&
         within(how.maskness, 0, 1) && within(how.mask_shift, -100.0, 100.0) &&
         within(static_cast<int>(how.suppression), 0, 2);
}

bool usable(const mobileinst_track_options& o) {
  if (!within(o.queries, 1, kMostQueries) || !within(o.classes, 1, kMostValues) ||
      !within(o.kernel_width, 1, kMostValues))
    return false;
  if (!within(o.mask_height, 1, kMostLogits) || !within(o.mask_width, 1, kMostLogits)) return false;
  const bool no_picture = o.picture_height == 0 && o.picture_width == 0 && o.content_height == 0 &&
                          o.content_width == 0;
  if (!no_picture &&
      (!within(o.picture_height, 1, kMostPixels) || !within(o.picture_width, 1, kMostPixels) ||
       !within(o.content_height, 1, kStride * o.mask_height) ||
       !within(o.content_width, 1, kStride * o.mask_width))) {
    return false;
  }
  return within(o.clip_length, 1, 1000000) && within(o.score, 0.0, 1.0) &&
         within(o.keep, 0.0, 1.0) && within(o.similarity, -1.0, 1.0) &&
         within(o.duplicate_iou, 0.0, 1.0) && within(o.overlap, 0.0, 10.0) && o.memory >= 0 &&
         o.remembered >= 1 &&
         (o.automatic == 0 ||
          (o.automatic == 1 && within(o.change, 0.0, 255.0) && within(o.certainty, 0.0, 1.0) &&
           o.mask_height % 4 == 0 && o.mask_width % 4 == 0));
}

}  // namespace

void mobileinst_track_defaults(mobileinst_track_options* options) {
  if (options == nullptr) return;
  *options = {};
  options->clip_length = 3;
  options->score = 0.3;
  options->keep = 0.5;
  options->similarity = 0.5;
  options->duplicate_iou = 0.5;
  options->overlap = 0.6;
  options->memory = 30;
  options->remembered = 10;
  options->change = 16.0;
  options->certainty = 0.9;
}

mobileinst_track_status mobileinst_track_fit(mobileinst_track_options* options,
                                             int32_t picture_height, int32_t picture_width) {
  if (options == nullptr || !within(picture_height, 1, kMostPixels) ||
      !within(picture_width, 1, kMostPixels) || !within(options->mask_height, 1, kMostLogits) ||
      !within(options->mask_width, 1, kMostLogits)) {
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  }
  const int32_t height = kStride * options->mask_height, width = kStride * options->mask_width;
  const double scale = std::min(static_cast<double>(height) / picture_height,
                                static_cast<double>(width) / picture_width);
  const auto content = [scale](int32_t side, int32_t most) {
    const auto fitted = static_cast<int32_t>(std::nearbyint(side * scale));
    return std::min(std::max(1, fitted), most);
  };
  options->picture_height = picture_height;
  options->picture_width = picture_width;
  options->content_height = content(picture_height, height);
  options->content_width = content(picture_width, width);
  return MOBILEINST_TRACK_OK;
}

mobileinst_track_status mobileinst_track_create(const mobileinst_track_options* options,
                                                mobileinst_tracker** tracker) {
  if (tracker != nullptr) *tracker = nullptr;
  if (options == nullptr || tracker == nullptr || !usable(*options))
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] {
    *tracker = new mobileinst_tracker(*options);
    return MOBILEINST_TRACK_OK;
  });
}

void mobileinst_track_destroy(mobileinst_tracker* tracker) { delete tracker; }

mobileinst_track_status mobileinst_track_look(mobileinst_tracker* tracker, const uint8_t* picture) {
  if (tracker == nullptr || picture == nullptr) return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] {
    tracker->tracker.look(picture);
    return MOBILEINST_TRACK_OK;
  });
}

int mobileinst_track_wants_keyframe(const mobileinst_tracker* tracker) {
  return tracker == nullptr || tracker->tracker.wants_keyframe() ? 1 : 0;
}

int64_t mobileinst_track_since(const mobileinst_tracker* tracker) {
  return tracker == nullptr ? -1 : tracker->tracker.since();
}

mobileinst_track_status mobileinst_track_keyframe(mobileinst_tracker* tracker,
                                                  const float* class_logits,
                                                  const float* objectness_logits,
                                                  const float* kernels, const float* mask_logits) {
  if (tracker == nullptr || class_logits == nullptr || objectness_logits == nullptr ||
      kernels == nullptr || mask_logits == nullptr) {
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  }
  return guarded([&] {
    return tracker->tracker.keyframe(class_logits, objectness_logits, kernels, mask_logits);
  });
}

const float* mobileinst_track_live_kernels(const mobileinst_tracker* tracker, int32_t* n) {
  const bool some = tracker != nullptr && !tracker->tracker.live().empty();
  if (n != nullptr) *n = some ? static_cast<int32_t>(tracker->tracker.live().size()) : 0;
  return some ? tracker->tracker.kernels().data() : nullptr;
}

mobileinst_track_status mobileinst_track_reuse(mobileinst_tracker* tracker,
                                               const float* mask_logits) {
  if (tracker == nullptr || (mask_logits == nullptr && !tracker->tracker.live().empty()))
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] { return tracker->tracker.reuse(mask_logits); });
}

int32_t mobileinst_track_count(const mobileinst_tracker* tracker) {
  return tracker == nullptr ? 0 : static_cast<int32_t>(tracker->tracker.live().size());
}

mobileinst_track_status mobileinst_track_get(const mobileinst_tracker* tracker, int32_t index,
                                             mobileinst_track_instance* instance) {
  if (index < 0 || index >= mobileinst_track_count(tracker) || instance == nullptr)
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  *instance = tracker->tracker.live()[static_cast<std::size_t>(index)].instance();
  return MOBILEINST_TRACK_OK;
}

mobileinst_track_status mobileinst_track_mask(mobileinst_tracker* tracker, int32_t index,
                                              mobileinst_track_rle* mask) {
  if (index < 0 || index >= mobileinst_track_count(tracker) || mask == nullptr)
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] {
    const auto& found = tracker->tracker.mask(static_cast<std::size_t>(index));
    const auto& sampler = tracker->tracker.sampler();
    *mask = {sampler.height(), sampler.width(), found.counts.c_str(), found.counts.size(),
             found.area};
    return MOBILEINST_TRACK_OK;
  });
}

const float* mobileinst_track_logits(const mobileinst_tracker* tracker, int32_t index) {
  if (index < 0 || index >= mobileinst_track_count(tracker)) return nullptr;
  return tracker->tracker.logits(static_cast<std::size_t>(index));
}

int32_t mobileinst_track_seen_count(const mobileinst_tracker* tracker) {
  return tracker == nullptr ? 0 : static_cast<int32_t>(tracker->tracker.seen().size());
}

mobileinst_track_status mobileinst_track_seen(const mobileinst_tracker* tracker, int32_t index,
                                              mobileinst_track_instance* instance) {
  if (index < 0 || index >= mobileinst_track_seen_count(tracker) || instance == nullptr)
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  *instance = tracker->tracker.seen()[static_cast<std::size_t>(index)];
  return MOBILEINST_TRACK_OK;
}

mobileinst_track_status mobileinst_track_save(const mobileinst_tracker* tracker, void* buffer,
                                              size_t capacity, size_t* needed) {
  if (needed != nullptr) *needed = 0;
  if (tracker == nullptr || needed == nullptr) return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] {
    const auto state = tracker->tracker.save();
    *needed = state.size();
    if (buffer == nullptr) return MOBILEINST_TRACK_OK;
    if (capacity < state.size()) return MOBILEINST_TRACK_TOO_SMALL;
    std::memcpy(buffer, state.data(), state.size());
    return MOBILEINST_TRACK_OK;
  });
}

mobileinst_track_status mobileinst_track_load(mobileinst_tracker* tracker, const void* state,
                                              size_t size) {
  if (tracker == nullptr || state == nullptr) return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded(
      [&] { return tracker->tracker.load(static_cast<const std::uint8_t*>(state), size); });
}

mobileinst_track_status mobileinst_scores(const mobileinst_scoring* how, const float* class_logits,
                                          const float* objectness_logits, const float* mask_logits,
                                          double* scores) {
  if (how == nullptr || class_logits == nullptr || objectness_logits == nullptr ||
      mask_logits == nullptr || scores == nullptr || !usable(*how))
    return MOBILEINST_TRACK_BAD_ARGUMENT;
  return guarded([&] {
    const auto rows = static_cast<std::size_t>(how->queries);
    const auto pixels =
        static_cast<std::size_t>(how->mask_height) * static_cast<std::size_t>(how->mask_width);
    if (!mobileinst::track::usable(class_logits, rows * static_cast<std::size_t>(how->classes)) ||
        !mobileinst::track::usable(objectness_logits, rows) ||
        !mobileinst::track::usable(mask_logits, rows * pixels))
      return MOBILEINST_TRACK_NOT_FINITE;
    mobileinst::track::settle_scores(*how, class_logits, objectness_logits, mask_logits, scores);
    return MOBILEINST_TRACK_OK;
  });
}
