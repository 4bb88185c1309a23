// What include/mobileinst_track.h promises about threads and lifetimes, to be run under sanitizers.
//
//   within     everything is used to the end of its documented life: nothing to report
//   late WHAT  counts | tracker: used after its end, which AddressSanitizer must report
//   threads    a tracker for each thread, and one handed from thread to thread: nothing to report
//   race       two threads feed one tracker at once, which ThreadSanitizer must report
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mobileinst_track.h"

namespace {

constexpr int kQueries = 3, kWidth = 4, kSide = 16, kFrames = 30;

void check(mobileinst_track_status status) {
  if (status == MOBILEINST_TRACK_OK) return;
  std::fprintf(stderr, "status %d\n", static_cast<int>(status));
  std::exit(1);
}

mobileinst_tracker* created() {
  mobileinst_track_options o{};
  mobileinst_track_defaults(&o);
  o.queries = kQueries;
  o.classes = 1;
  o.kernel_width = kWidth;
  o.mask_height = o.mask_width = kSide;
  o.duplicate_iou = 1.0;
  mobileinst_tracker* tracker = nullptr;
  check(mobileinst_track_create(&o, &tracker));
  return tracker;
}

// Feeds one frame, in which checkered masks move; gives what the tracker says of it.
std::string fed(mobileinst_tracker* tracker, int frame) {
  std::vector<float> ones(kQueries * kWidth, 5.0F), kernels(kQueries * kWidth, 0.0F);
  std::vector<float> masks(kQueries * kSide * kSide);
  for (int q = 0; q < kQueries; ++q) {
    kernels[static_cast<std::size_t>(q * kWidth + q)] = 1.0F;
    for (int i = 0; i < kSide * kSide; ++i)
      masks[static_cast<std::size_t>(q * kSide * kSide + i)] =
          (i + frame) % (q + 2) == 0 ? 1.0F : -1.0F;
  }
  if (mobileinst_track_wants_keyframe(tracker) != 0) {
    check(mobileinst_track_keyframe(tracker, ones.data(), ones.data(), kernels.data(),
                                    masks.data()));
  } else {
    check(mobileinst_track_reuse(tracker, masks.data()));
  }
  std::string said;
  for (std::int32_t i = 0; i < mobileinst_track_count(tracker); ++i) {
    mobileinst_track_instance instance{};
    mobileinst_track_rle mask{};
    check(mobileinst_track_get(tracker, i, &instance));
    check(mobileinst_track_mask(tracker, i, &mask));
    said += std::to_string(instance.id) + ' ' + mask.counts + '\n';
  }
  return said;
}

std::string followed() {
  mobileinst_tracker* const tracker = created();
  std::string said;
  for (int frame = 0; frame < kFrames; ++frame) said += fed(tracker, frame);
  mobileinst_track_destroy(tracker);
  return said;
}

int within() {
  mobileinst_tracker* const tracker = created();
  fed(tracker, 0);
  std::int32_t n = 0;
  const float* const kernels = mobileinst_track_live_kernels(tracker, &n);
  const std::vector<float> before(kernels, kernels + n * kWidth);
  std::vector<mobileinst_track_rle> masks(static_cast<std::size_t>(n));
  for (std::int32_t i = 0; i < n; ++i)
    check(mobileinst_track_mask(tracker, i, &masks[static_cast<std::size_t>(i)]));
  const float* const logits = mobileinst_track_logits(tracker, n - 1);
  std::vector<unsigned char> state(1 << 20);
  std::size_t size = 0;
  check(mobileinst_track_save(tracker, state.data(), state.size(), &size));
  // Nothing was fed since: all of it is still there.
  std::size_t length = 0;
  for (const auto& mask : masks) length += std::strlen(mask.counts) - mask.length;
  float sum = 0;
  for (int i = 0; i < kSide * kSide; ++i) sum += logits[i];
  fed(tracker, 1);
  fed(tracker, 2);  // the kernels are their keyframe's, and live until the next one
  const bool same = std::memcmp(before.data(), kernels, before.size() * sizeof(float)) == 0;
  mobileinst_track_destroy(tracker);
  mobileinst_track_destroy(nullptr);
  return length == 0 && sum != 0 && same && n == kQueries ? 0 : 1;
}

int late(const std::string& what) {
  mobileinst_tracker* const tracker = created();
  fed(tracker, 0);
  mobileinst_track_rle mask{};
  check(mobileinst_track_mask(tracker, 0, &mask));
  if (what == "counts") {
    fed(tracker, 1);
    return mask.counts[0];
  }
  mobileinst_track_destroy(tracker);
  return mobileinst_track_count(tracker);
}

int threads() {
  const std::string want = followed();
  std::vector<std::string> said(4);
  std::vector<std::thread> running;
  for (auto& mine : said) running.emplace_back([&mine] { mine = followed(); });
  for (auto& thread : running) thread.join();
  running.clear();
  for (const auto& mine : said) {
    if (mine != want) return 1;
  }
  mobileinst_tracker* const tracker = created();
  std::mutex turn;
  int frame = 0;
  std::string shared;
  for (int i = 0; i < 3; ++i) {
    running.emplace_back([&] {
      for (bool more = true; more;) {
        const std::lock_guard<std::mutex> mine(turn);
        more = frame < kFrames;
        if (more) shared += fed(tracker, frame++);
      }
    });
  }
  for (auto& thread : running) thread.join();
  mobileinst_track_destroy(tracker);
  return shared == want ? 0 : 1;
}

int race() {
  mobileinst_tracker* const tracker = created();
  const auto feed = [tracker] { fed(tracker, 0); };
  std::thread one(feed), other(feed);
  one.join();
  other.join();
  mobileinst_track_destroy(tracker);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "within") return within();
  if (what == "late") return late(argc > 2 ? argv[2] : "");
  if (what == "threads") return threads();
  return what == "race" ? race() : 2;
}
