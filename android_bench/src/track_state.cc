// A tracker's state as bytes: a header, what the schedule remembers, the tracks, the live kernels, and
// where the live ones lie, a bit a mask logit.
// What is read back may come from a stranger: it is taken only if a tracker can have left it.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "track_associate.h"
#include "track_core.h"

namespace mobileinst::track {
namespace {

constexpr char kMagic[8] = {'M', 'I', 'T', 'R', 'A', 'C', 'K', '3'};
constexpr std::int64_t kMost = std::int64_t{1} << 48;
constexpr std::uint64_t kMostTracks = 1U << 20;

class Writer {
 public:
  template <typename T>
  void put(const T& value) {
    put_all(&value, 1);
  }
  template <typename T>
  void put_all(const T* values, std::size_t count) {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(values);
    out.insert(out.end(), bytes, bytes + count * sizeof(T));
  }
  std::vector<std::uint8_t> out;
};

class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  template <typename T>
  T get() {
    T value{};
    get_all(&value, 1);
    return value;
  }
  template <typename T>
  void get_all(T* values, std::size_t count) {
    good_ = good_ && left_ / sizeof(T) >= count;
    if (!good_ || count == 0) return;
    std::memcpy(values, data_, count * sizeof(T));
    data_ += count * sizeof(T);
    left_ -= count * sizeof(T);
  }
  bool good() const { return good_; }
  bool ended() const { return good_ && left_ == 0; }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
  bool good_ = true;
};

}  // namespace

std::vector<std::uint8_t> Tracker::save() const {
  Writer state;
  state.put_all(kMagic, sizeof kMagic);
  for (const std::uint64_t value : {std::uint64_t{classes_}, std::uint64_t{width_},
                                    std::uint64_t{live_.size()}, std::uint64_t{hidden_.size()}}) {
    state.put(value);
  }
  state.put(born_);
  state.put(since_);
  const auto& scene = schedule_.scene();
  state.put(std::uint64_t{scene.keyframe.size()});
  state.put_all(scene.keyframe.data(), scene.keyframe.size());
  state.put(scene.sure_then);
  state.put(scene.sure_now);
  for (const auto* tracks : {&live_, &hidden_}) {
    for (const auto& track : *tracks) {
      state.put(track.id);
      state.put(track.keyframes);
      state.put(track.missed);
      state.put(track.objectness);
      state.put_all(track.kernel.data(), width_);
      state.put_all(track.classes.data(), classes_);
    }
  }
  state.put_all(kernels_.data(), kernels_.size());
  for (const auto& place : places_) state.put_all(place.words.data(), place.words.size());
  return state.out;
}

Status Tracker::load(const std::uint8_t* data, std::size_t size) {
  Reader state(data, size);
  char magic[sizeof kMagic] = {};
  state.get_all(magic, sizeof magic);
  const auto classes = state.get<std::uint64_t>(), width = state.get<std::uint64_t>();
  const auto live = state.get<std::uint64_t>(), hidden = state.get<std::uint64_t>();
  const auto born = state.get<std::int64_t>(), since = state.get<std::int64_t>();
  if (!state.good() || std::memcmp(magic, kMagic, sizeof magic) != 0 || classes != classes_ ||
      width != width_ || live > queries_ || hidden > kMostTracks || born < 0 || born > kMost ||
      since < -1 || since > kMost || (since < 0 && live + hidden > 0)) {
    return MOBILEINST_TRACK_BAD_STATE;
  }
  SceneSchedule::Scene scene;
  const auto cells = state.get<std::uint64_t>();
  if (cells != 0 && cells != schedule_.cells()) return MOBILEINST_TRACK_BAD_STATE;
  scene.keyframe.resize(cells);
  state.get_all(scene.keyframe.data(), cells);
  scene.sure_then = state.get<double>();
  scene.sure_now = state.get<double>();
  if (!SceneSchedule::sane(scene)) return MOBILEINST_TRACK_BAD_STATE;
  std::vector<Track> tracks;
  std::vector<std::int64_t> ids;
  for (std::uint64_t i = 0; i < live + hidden && state.good(); ++i) {
    Track track;
    track.id = state.get<std::int64_t>();
    track.keyframes = state.get<std::int64_t>();
    track.missed = state.get<std::int64_t>();
    track.objectness = state.get<double>();
    track.kernel.resize(width_);
    track.classes.resize(classes_);
    state.get_all(track.kernel.data(), width_);
    state.get_all(track.classes.data(), classes_);
    const bool lives = i < live;
    const bool sane = track.id >= 1 && track.id <= born && track.keyframes >= 1 &&
                      track.keyframes <= kMost && track.missed >= 0 &&
                      track.missed <= (lives ? 0 : kMost) &&
                      std::abs(track.objectness) <= static_cast<double>(kLargest) &&
                      is_unit(track.kernel) && usable(track.classes.data(), classes_) &&
                      (i == 0 || !lives || ids.back() < track.id);
    if (!sane) return MOBILEINST_TRACK_BAD_STATE;
    ids.push_back(track.id);
    tracks.push_back(std::move(track));
  }
  std::vector<float> kernels(static_cast<std::size_t>(live) * width_);
  state.get_all(kernels.data(), kernels.size());
  std::vector<Bits> places;
  const std::uint64_t beyond = pixels_ % 64 == 0 ? 0 : ~std::uint64_t{0} << (pixels_ % 64);
  for (std::uint64_t i = 0; i < live && state.good(); ++i) {
    std::vector<std::uint64_t> words((pixels_ + 63) / 64);
    state.get_all(words.data(), words.size());
    if ((words.back() & beyond) != 0) return MOBILEINST_TRACK_BAD_STATE;
    places.emplace_back(std::move(words));
  }
  std::sort(ids.begin(), ids.end());
  if (!state.ended() || std::adjacent_find(ids.begin(), ids.end()) != ids.end() ||
      !usable(kernels.data(), kernels.size())) {
    return MOBILEINST_TRACK_BAD_STATE;
  }
  const auto middle = tracks.begin() + static_cast<std::ptrdiff_t>(live);
  hidden_.assign(std::make_move_iterator(middle), std::make_move_iterator(tracks.end()));
  tracks.erase(middle, tracks.end());
  live_ = std::move(tracks);
  kernels_ = std::move(kernels);
  places_ = std::move(places);
  born_ = born;
  since_ = since;
  schedule_.restore(std::move(scene));
  seen_.clear();
  // No frame's logits: those of the frame fed last are not part of a state.
  masks_.assign(live_.size() * pixels_, -1.0F);
  counted_.assign(live_.size(), {});
  return MOBILEINST_TRACK_OK;
}

}  // namespace mobileinst::track
