// Drives the tracker's C interface from stdin for the comparison with mobileinst_deploy/core/tracker.py.
//
//   assign ROWS COLUMNS cost...          answers with the column of each row
//   scores N C h w MASKNESS SHIFT SUPPRESSION    then binary float32: class, objectness, mask logits;
//                                        answers with the status, then every score
//   state HEX                            loads it and feeds a keyframe, answers with both statuses
//   clip N C D h w PH PW CH CW T score keep similarity iou overlap memory remembered automatic change certainty FRAMES
//                                        then binary float32: each frame's pieces, as asked for
// For every frame of a clip it reads the picture's bytes where that is automatic, prints "keyframe" or "reuse n", reads the arrays that belong to it,
// and answers "since; id class score counts; ...". After every third frame it goes on in a new
// tracker from the saved state, which must make no difference.
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "mobileinst_track.h"
#include "track_assign.h"

namespace {

void assignment(std::istream& line) {
  std::size_t rows = 0, columns = 0;
  line >> rows >> columns;
  std::vector<double> cost(rows * columns);
  for (auto& value : cost) line >> value;
  for (const auto column : mobileinst::track::assign(cost, rows, columns))
    std::cout << column << ' ';
  std::cout << std::endl;
}

std::vector<float> floats(std::size_t count) {
  std::vector<float> values(count);
  std::cin.read(reinterpret_cast<char*>(values.data()),
                static_cast<std::streamsize>(count * sizeof(float)));
  return values;
}

void scores(std::istream& line) {
  mobileinst_scoring how{};
  int suppression = 0;
  line >> how.queries >> how.classes >> how.mask_height >> how.mask_width >> how.maskness >>
      how.mask_shift >> suppression;
  how.suppression = static_cast<mobileinst_suppression>(suppression);
  const auto rows = static_cast<std::size_t>(how.queries);
  const auto classes = floats(rows * static_cast<std::size_t>(how.classes));
  const auto objectness = floats(rows);
  const auto masks = floats(rows * static_cast<std::size_t>(how.mask_height) *
                            static_cast<std::size_t>(how.mask_width));
  std::vector<double> found(classes.size());
  std::printf("%d", static_cast<int>(mobileinst_scores(&how, classes.data(), objectness.data(),
                                                       masks.data(), found.data())));
  for (const double score : found) std::printf(" %.17g", score);
  std::fflush(stdout);
  std::cout << std::endl;
}

mobileinst_tracker* renewed(mobileinst_tracker* tracker, const mobileinst_track_options& options) {
  std::size_t size = 0;
  mobileinst_track_save(tracker, nullptr, 0, &size);
  std::vector<unsigned char> state(size);
  if (mobileinst_track_save(tracker, state.data(), size, &size) != MOBILEINST_TRACK_OK)
    return tracker;
  mobileinst_tracker* fresh = nullptr;
  if (mobileinst_track_create(&options, &fresh) != MOBILEINST_TRACK_OK) return tracker;
  if (mobileinst_track_load(fresh, state.data(), size) != MOBILEINST_TRACK_OK)
    std::cout << "unloadable ";
  mobileinst_track_destroy(tracker);
  return fresh;
}

void clip(std::istream& line) {
  mobileinst_track_options o{};
  int frames = 0;
  line >> o.queries >> o.classes >> o.kernel_width >> o.mask_height >> o.mask_width;
  line >> o.picture_height >> o.picture_width >> o.content_height >> o.content_width >>
      o.clip_length;
  line >> o.score >> o.keep >> o.similarity >> o.duplicate_iou >> o.overlap;
  line >> o.memory >> o.remembered;
  line >> o.automatic >> o.change >> o.certainty >> frames;
  mobileinst_tracker* tracker = nullptr;
  if (mobileinst_track_create(&o, &tracker) != MOBILEINST_TRACK_OK) {
    std::cout << "refused" << std::endl;
    return;
  }
  const auto n = static_cast<std::size_t>(o.queries);
  const auto pixels =
      static_cast<std::size_t>(o.mask_height) * static_cast<std::size_t>(o.mask_width);
  for (int k = 0; k < frames; ++k) {
    std::int32_t live = 0;
    mobileinst_track_status status;
    if (o.automatic != 0) {
      std::vector<unsigned char> picture(pixels * 64 * 3);
      std::cin.read(reinterpret_cast<char*>(picture.data()),
                    static_cast<std::streamsize>(picture.size()));
      mobileinst_track_look(tracker, picture.data());
    }
    if (mobileinst_track_wants_keyframe(tracker) != 0) {
      std::cout << "keyframe" << std::endl;
      const auto classes = floats(n * static_cast<std::size_t>(o.classes)), objectness = floats(n);
      const auto kernels = floats(n * static_cast<std::size_t>(o.kernel_width));
      const auto masks = floats(n * pixels);
      status = mobileinst_track_keyframe(tracker, classes.data(), objectness.data(), kernels.data(),
                                         masks.data());
    } else {
      const float* const kernels = mobileinst_track_live_kernels(tracker, &live);
      std::cout << "reuse " << live;
      std::size_t sent = static_cast<std::size_t>(live) * static_cast<std::size_t>(o.kernel_width);
      for (std::size_t i = 0; i < sent; ++i) std::printf(" %.9g", static_cast<double>(kernels[i]));
      std::fflush(stdout);
      std::cout << std::endl;
      const auto masks = floats(static_cast<std::size_t>(live) * pixels);
      status = mobileinst_track_reuse(tracker, masks.data());
    }
    std::cout << static_cast<int>(status) << ' ' << mobileinst_track_since(tracker);
    for (std::int32_t i = 0; i < mobileinst_track_count(tracker); ++i) {
      mobileinst_track_instance instance{};
      mobileinst_track_rle mask{};
      mobileinst_track_get(tracker, i, &instance);
      mobileinst_track_mask(tracker, i, &mask);
      std::printf("\t%lld %d %.17g %d %d %s", static_cast<long long>(instance.id),
                  instance.class_index, instance.score, mask.height, mask.width, mask.counts);
      std::fflush(stdout);
    }
    std::cout << std::endl;
    if (k % 3 == 2) tracker = renewed(tracker, o);
  }
  mobileinst_track_destroy(tracker);
}

// Loads hexadecimal bytes as a state of a small tracker, and goes on from it when it is accepted.
void state(std::istream& line) {
  std::string hex;
  line >> hex;
  std::vector<unsigned char> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<unsigned char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  mobileinst_track_options o{};
  mobileinst_track_defaults(&o);
  o.queries = o.classes = o.kernel_width = 2;
  o.mask_height = o.mask_width = 4;
  o.automatic = 1;
  mobileinst_tracker* tracker = nullptr;
  if (mobileinst_track_create(&o, &tracker) != MOBILEINST_TRACK_OK) return;
  static const unsigned char kNothing = 0;
  const auto status =
      mobileinst_track_load(tracker, bytes.empty() ? &kNothing : bytes.data(), bytes.size());
  const std::vector<float> ones(32, 1.0F);
  const std::vector<unsigned char> white(32 * 32 * 3, 255);
  mobileinst_track_look(tracker, white.data());
  const auto next =
      mobileinst_track_keyframe(tracker, ones.data(), ones.data(), ones.data(), ones.data());
  std::cout << static_cast<int>(status) << ' ' << static_cast<int>(next);
  if (bytes.empty()) {  // what a sound state looks like
    std::size_t size = 0;
    mobileinst_track_save(tracker, nullptr, 0, &size);
    bytes.resize(size);
    mobileinst_track_save(tracker, bytes.data(), size, &size);
    std::cout << ' ';
    for (const auto byte : bytes) std::printf("%02x", static_cast<unsigned>(byte));
    std::fflush(stdout);
  }
  std::cout << std::endl;
  mobileinst_track_destroy(tracker);
}

}  // namespace

int main() {
  std::string text;
  while (std::getline(std::cin, text)) {
    std::istringstream line(text);
    std::string what;
    line >> what;
    what == "assign"   ? assignment(line)
    : what == "scores" ? scores(line)
    : what == "state"  ? state(line)
                       : clip(line);
  }
}
