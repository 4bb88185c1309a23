#include "track_core.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "track_associate.h"

namespace mobileinst::track {
namespace {

std::vector<std::uint64_t> positive(const float* logits, std::size_t pixels) {
  std::vector<std::uint64_t> words((pixels + 63) / 64, 0);
  for (std::size_t i = 0; i < pixels; ++i) {
    if (logits[i] > 0) words[i / 64] |= std::uint64_t{1} << (i % 64);
  }
  return words;
}

}  // namespace

double combined(float class_logit, double objectness) {
  return std::sqrt(sigmoid(static_cast<double>(class_logit)) * sigmoid(objectness));
}

Bits::Bits(const float* logits, std::size_t pixels) : Bits(positive(logits, pixels)) {}

Bits::Bits(std::vector<std::uint64_t> bits) : words(std::move(bits)), first(words.size()) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == 0) continue;
    area += static_cast<std::size_t>(__builtin_popcountll(words[i]));
    first = std::min(first, i);
    last = i + 1;
  }
}

float iou(const Bits& a, const Bits& b) {
  std::size_t common = 0;
  for (std::size_t i = std::max(a.first, b.first); i < std::min(a.last, b.last); ++i)
    common += static_cast<std::size_t>(__builtin_popcountll(a.words[i] & b.words[i]));
  const std::size_t either = a.area + b.area - common;
  return either == 0 ? 0.0F : static_cast<float>(common) / static_cast<float>(either);
}

bool usable(const float* values, std::size_t count) {
  // No branch, so that it runs at memory speed. False for NaN.
  int good = 1;
  for (std::size_t i = 0; i < count; ++i) good &= static_cast<int>(std::abs(values[i]) <= kLargest);
  return good != 0;
}

int Track::class_index() const {
  return static_cast<int>(std::max_element(classes.begin(), classes.end()) - classes.begin());
}

double Track::score() const {
  return combined(classes[static_cast<std::size_t>(class_index())], objectness);
}

Instance Track::instance() const { return {id, class_index(), score()}; }

Tracker::Tracker(const Options& options)
    : queries_(static_cast<std::size_t>(options.queries)),
      classes_(static_cast<std::size_t>(options.classes)),
      width_(static_cast<std::size_t>(options.kernel_width)),
      pixels_(static_cast<std::size_t>(options.mask_height) *
              static_cast<std::size_t>(options.mask_width)),
      options_(options),
      sampler_(options.mask_height, options.mask_width, options.picture_height,
               options.picture_width, options.content_height, options.content_width),
      schedule_(options) {}

// The queries that show an instance, one query for each, ascending: that order does not turn over
// when two runtimes differ in the last digit, and so nor do the identities given by it.
std::vector<Query> Tracker::distinct(const float* classes, const float* objectness,
                                     const float* masks) const {
  const auto lowest = static_cast<float>(options_.score * options_.keep);
  std::vector<std::pair<float, std::size_t>> strong;  // scores, queries
  for (std::size_t q = 0; q < queries_; ++q) {
    const float* const row = classes + q * classes_;
    const auto score = static_cast<float>(
        combined(*std::max_element(row, row + classes_), static_cast<double>(objectness[q])));
    if (score >= lowest) strong.emplace_back(score, q);
  }
  std::stable_sort(strong.begin(), strong.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto most = static_cast<float>(options_.duplicate_iou);
  std::vector<Query> stays;
  for (const auto& [score, q] : strong) {
    Bits place(masks + q * pixels_, pixels_);
    if (place.area == 0) continue;
    const bool duplicate = std::any_of(stays.begin(), stays.end(), [&](const Query& other) {
      return iou(place, other.place) >= most;
    });
    if (!duplicate) stays.push_back({q, score, std::move(place)});
  }
  std::sort(stays.begin(), stays.end(),
            [](const Query& a, const Query& b) { return a.index < b.index; });
  return stays;
}

// What the masks of each pair add to the cosine, found by known. Where a hidden track is nobody knows.
std::vector<double> Tracker::nearness(const std::vector<Query>& found, std::size_t known) const {
  std::vector<double> near(found.size() * known, 0.0);
  if (options_.overlap == 0) return near;
  for (std::size_t f = 0; f < found.size(); ++f) {
    for (std::size_t k = 0; k < places_.size(); ++k) {
      near[f * known + k] =
          options_.overlap * static_cast<double>(iou(found[f].place, places_[k]));
    }
  }
  return near;
}

Status Tracker::keyframe(const float* classes, const float* objectness, const float* kernels,
                         const float* masks) {
  if (!usable(classes, queries_ * classes_) || !usable(objectness, queries_) ||
      !usable(kernels, queries_ * width_) || !usable(masks, queries_ * pixels_)) {
    return MOBILEINST_TRACK_NOT_FINITE;
  }
  const auto found = distinct(classes, objectness, masks);
  std::vector<std::vector<float>> directions;
  for (const auto& query : found)
    directions.push_back(unit(kernels + query.index * width_, width_));

  std::vector<Track> known = std::move(live_);
  for (auto& track : hidden_) known.push_back(std::move(track));
  std::vector<const float*> before, now;
  for (const auto& track : known) before.push_back(track.kernel.data());
  for (const auto& direction : directions) now.push_back(direction.data());
  const auto match =
      associate(before, now, width_, options_.similarity, nearness(found, known.size()));

  for (auto& track : known) ++track.missed;
  seen_.clear();
  std::vector<std::pair<std::size_t, std::size_t>> shown;  // places in `known`, queries
  for (std::size_t f = 0; f < found.size(); ++f) {
    const std::size_t query = found[f].index;
    const float* const logits = classes + query * classes_;
    const auto object = static_cast<double>(objectness[query]);
    std::size_t place = known.size();
    if (match[f] >= 0) {
      place = static_cast<std::size_t>(match[f]);
      auto& track = known[place];
      track.missed = 0;
      const auto count = static_cast<float>(++track.keyframes);
      const float share = std::min(count, static_cast<float>(options_.remembered));
      for (std::size_t i = 0; i < width_; ++i)
        track.kernel[i] += (directions[f][i] - track.kernel[i]) / share;
      track.kernel = unit(track.kernel.data(), width_);
      for (std::size_t c = 0; c < classes_; ++c)
        track.classes[c] += (logits[c] - track.classes[c]) / count;
      track.objectness += (object - track.objectness) / static_cast<double>(track.keyframes);
    } else if (found[f].score >= static_cast<float>(options_.score)) {
      known.push_back({++born_, 1, 0, object, std::move(directions[f]),
                       std::vector<float>(logits, logits + classes_)});
    } else {
      continue;
    }
    seen_.push_back(known[place].instance());
    if (known[place].score() >= options_.score) shown.emplace_back(place, query);
  }
  std::sort(shown.begin(), shown.end(),
            [&](const auto& a, const auto& b) { return known[a.first].id < known[b.first].id; });

  kernels_.clear();
  std::vector<std::size_t> which;
  std::vector<char> lives(known.size(), 0);
  live_.clear();
  for (const auto& [place, query] : shown) {
    lives[place] = 1;
    // The graph gets the kernels as the network made them; only association compares directions.
    kernels_.insert(kernels_.end(), kernels + query * width_, kernels + (query + 1) * width_);
    which.push_back(query);
    live_.push_back(std::move(known[place]));
  }
  hidden_.clear();
  for (std::size_t place = 0; place < known.size(); ++place) {
    if (lives[place] == 0 && known[place].missed <= options_.memory)
      hidden_.push_back(std::move(known[place]));
  }
  take_masks(masks, which);
  schedule_.observe(masks_, true);
  since_ = 0;
  return MOBILEINST_TRACK_OK;
}

Status Tracker::reuse(const float* masks) {
  if (since_ < 0) return MOBILEINST_TRACK_NO_KEYFRAME;
  if (!live_.empty() && !usable(masks, live_.size() * pixels_))
    return MOBILEINST_TRACK_NOT_FINITE;
  std::vector<std::size_t> which(live_.size());
  for (std::size_t i = 0; i < which.size(); ++i) which[i] = i;
  take_masks(masks, which);
  schedule_.observe(masks_, false);
  ++since_;
  return MOBILEINST_TRACK_OK;
}

void Tracker::take_masks(const float* masks, const std::vector<std::size_t>& which) {
  masks_.clear();
  places_.clear();
  for (const auto i : which) {
    masks_.insert(masks_.end(), masks + i * pixels_, masks + (i + 1) * pixels_);
    places_.emplace_back(masks + i * pixels_, pixels_);
  }
  counted_.assign(which.size(), {});
}

const RunLengths& Tracker::mask(std::size_t index) {
  auto& found = counted_[index];
  if (found.counts.empty()) found = sampler_.run_lengths(masks_.data() + index * pixels_);
  return found;
}

}  // namespace mobileinst::track
