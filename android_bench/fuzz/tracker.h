// What holds of a tracker at any time, and options for small ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "bytes.h"
#include "mobileinst_track.h"

namespace fuzz {

inline mobileinst_track_options small_options(Bytes& bytes) {
  mobileinst_track_options o{};
  mobileinst_track_defaults(&o);
  o.queries = bytes.between(1, 6);
  o.classes = bytes.between(1, 3);
  o.kernel_width = bytes.between(1, 5);
  o.automatic = bytes.between(0, 1);
  o.mask_height = bytes.between(1, 3) * (o.automatic != 0 ? 4 : 1);
  o.mask_width = bytes.between(1, 3) * (o.automatic != 0 ? 4 : 1);
  o.clip_length = bytes.between(1, 4);
  o.memory = bytes.between(0, 3);
  o.remembered = bytes.between(1, 3);
  o.score = bytes.between(0, 4) / 4.0;
  o.keep = bytes.between(0, 2) / 2.0;
  o.similarity = bytes.between(-2, 2) / 2.0;
  o.duplicate_iou = bytes.between(0, 4) / 4.0;
  o.overlap = bytes.between(0, 3) / 2.0;
  o.certainty = bytes.between(0, 2) / 2.0;
  if (bytes.between(0, 1) != 0)
    demand(mobileinst_track_fit(&o, bytes.between(1, 60), bytes.between(1, 60)) ==
           MOBILEINST_TRACK_OK);
  return o;
}

// The pixels and the area of compressed run lengths.
inline void measure(const char* counts, std::int64_t& pixels, std::int64_t& area) {
  std::vector<std::int64_t> runs;
  pixels = area = 0;
  while (*counts != 0) {
    std::int64_t value = 0;
    int place = 0;
    bool more = true;
    for (; more; ++counts, place += 5) {
      const int digit = *counts - '0';
      demand(digit >= 0 && digit < 64 && place < 60);
      value |= static_cast<std::int64_t>(digit & 0x1f) << place;
      more = (digit & 0x20) != 0;
      if (!more && (digit & 0x10) != 0) value |= -(std::int64_t{1} << (place + 5));
    }
    if (runs.size() > 2) value += runs[runs.size() - 2];
    demand(value >= 0);
    runs.push_back(value);
    pixels += value;
    if (runs.size() % 2 == 0) area += value;
  }
}

inline std::vector<std::uint8_t> saved(const mobileinst_tracker* tracker) {
  std::size_t size = 0;
  demand(mobileinst_track_save(tracker, nullptr, 0, &size) == MOBILEINST_TRACK_OK);
  std::vector<std::uint8_t> state(size);
  demand(mobileinst_track_save(tracker, state.data(), size - 1, &size) ==
         MOBILEINST_TRACK_TOO_SMALL);
  demand(mobileinst_track_save(tracker, state.data(), size, &size) == MOBILEINST_TRACK_OK);
  return state;
}

// Everything that can be asked is in order, and the state is one that a tracker takes back.
inline void look_over(mobileinst_tracker* tracker, const mobileinst_track_options& o) {
  const std::int32_t count = mobileinst_track_count(tracker);
  demand(count >= 0 && count <= o.queries);
  std::int32_t live = -1;
  demand((mobileinst_track_live_kernels(tracker, &live) != nullptr) == (count > 0));
  demand(live == count);
  std::int64_t before = 0;
  mobileinst_track_instance instance{};
  mobileinst_track_rle mask{};
  for (std::int32_t i = 0; i < count; ++i) {
    demand(mobileinst_track_get(tracker, i, &instance) == MOBILEINST_TRACK_OK);
    demand(instance.id > before && instance.class_index >= 0 && instance.class_index < o.classes);
    demand(instance.score >= 0 && instance.score <= 1);
    before = instance.id;
    demand(mobileinst_track_mask(tracker, i, &mask) == MOBILEINST_TRACK_OK);
    demand(std::strlen(mask.counts) == mask.length && mask.length > 0);
    std::int64_t pixels = 0, area = 0;
    measure(mask.counts, pixels, area);
    demand(pixels == std::int64_t{mask.height} * mask.width && area == mask.area);
    demand(mobileinst_track_logits(tracker, i) != nullptr);
  }
  for (const std::int32_t wrong : {-1, count})
    demand(mobileinst_track_mask(tracker, wrong, &mask) == MOBILEINST_TRACK_BAD_ARGUMENT);
  for (std::int32_t i = 0; i < mobileinst_track_seen_count(tracker); ++i)
    demand(mobileinst_track_seen(tracker, i, &instance) == MOBILEINST_TRACK_OK);

  const auto state = saved(tracker);
  mobileinst_tracker* other = nullptr;
  demand(mobileinst_track_create(&o, &other) == MOBILEINST_TRACK_OK);
  demand(mobileinst_track_load(other, state.data(), state.size()) == MOBILEINST_TRACK_OK);
  demand(saved(other) == state);
  mobileinst_track_destroy(other);
}

// Feeds a frame of any numbers.
inline void feed(mobileinst_tracker* tracker, const mobileinst_track_options& o, Bytes& bytes) {
  const auto n = static_cast<std::size_t>(o.queries);
  const auto pixels = static_cast<std::size_t>(o.mask_height * o.mask_width);
  if (o.automatic != 0) {
    const std::vector<std::uint8_t> picture(pixels * 64 * 3, bytes.take<std::uint8_t>());
    demand(mobileinst_track_look(tracker, picture.data()) == MOBILEINST_TRACK_OK);
  }
  if (mobileinst_track_wants_keyframe(tracker) != 0 || bytes.between(0, 7) == 0) {
    const auto classes = bytes.floats(n * static_cast<std::size_t>(o.classes));
    const auto objectness = bytes.floats(n);
    const auto kernels = bytes.floats(n * static_cast<std::size_t>(o.kernel_width));
    const auto masks = bytes.floats(n * pixels);
    const auto status = mobileinst_track_keyframe(tracker, classes.data(), objectness.data(),
                                                  kernels.data(), masks.data());
    demand(status == MOBILEINST_TRACK_OK || status == MOBILEINST_TRACK_NOT_FINITE);
  } else {
    const auto live = static_cast<std::size_t>(mobileinst_track_count(tracker));
    const auto masks = bytes.floats(live * pixels);
    const auto status = mobileinst_track_reuse(tracker, masks.data());
    demand(status == MOBILEINST_TRACK_OK || status == MOBILEINST_TRACK_NOT_FINITE ||
           (status == MOBILEINST_TRACK_BAD_ARGUMENT && live > 0 && masks.empty()));
  }
}

}  // namespace fuzz
