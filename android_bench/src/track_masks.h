// Masks as run lengths, straight from mask logits: no picture-sized array in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mobileinst::track {

// One mask.
struct RunLengths {
  std::string counts;     // COCO's compressed form; never empty once made
  std::int64_t area = 0;  // its pixels
};

// Where a picture's pixels lie among the mask logits, and the run lengths of the pixels whose
// bilinear sample is above 0.
class MaskSampler {
 public:
  // Logits of `height` x `width` over a network input of 8 times that; the picture fills
  // `content_*` of it from the top left. A picture of no pixels stands for the logits' own grid.
  MaskSampler(int height, int width, int picture_height, int picture_width, int content_height,
              int content_width);

  int height() const { return static_cast<int>(rows_.low.size()); }
  int width() const { return static_cast<int>(columns_.low.size()); }

  // The mask of one map of logits.
  RunLengths run_lengths(const float* logits);

 private:
  struct Axis {
    int length = 0;                 // of the logits
    std::vector<double> positions;  // of each pixel among the logits, ascending
    std::vector<int> low;           // the logit before
    std::vector<float> weight;      // of the logit after
    std::vector<int> first;         // by logit: the first pixel with that `low`; one entry more
  };
  static Axis axis(int logits, int picture, int content);
  void emit(bool value, std::int64_t count);
  void columns_between(const float* logits, int left, int right, int top, int bottom);

  Axis rows_, columns_;
  std::vector<float> column_;
  std::vector<std::int64_t> runs_;
};

// Run lengths, zeros first, to COCO's compressed form.
std::string compress(const std::vector<std::int64_t>& runs);

}  // namespace mobileinst::track
