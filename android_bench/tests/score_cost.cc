// What a dense network's selection costs at one keyframe, outside its graphs:
// `score_cost N C h w MASKNESS SUPPRESSION` prints milliseconds, the median of 11 rounds, and marks
// the last round for counter/counter.c. Finds are discs of random places and sizes.
#include <sys/prctl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../src/clock.h"
#include "mobileinst_track.h"

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  mobileinst_scoring how{};
  how.queries = std::atoi(argv[1]);
  how.classes = std::atoi(argv[2]);
  how.mask_height = std::atoi(argv[3]);
  how.mask_width = std::atoi(argv[4]);
  how.maskness = std::atoi(argv[5]);
  how.suppression = static_cast<mobileinst_suppression>(std::atoi(argv[6]));
  const auto rows = static_cast<std::size_t>(how.queries);
  const auto width = static_cast<std::size_t>(how.mask_width);
  const auto pixels = static_cast<std::size_t>(how.mask_height) * width;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> place(0.0F, 1.0F);
  std::vector<float> classes(rows * static_cast<std::size_t>(how.classes)), objectness(rows);
  std::vector<float> masks(rows * pixels);
  for (auto& value : classes) value = normal(random);
  for (auto& value : objectness) value = normal(random);
  for (std::size_t r = 0; r < rows; ++r) {
    const float y = place(random) * static_cast<float>(how.mask_height);
    const float x = place(random) * static_cast<float>(how.mask_width);
    const float radius = 0.25F * place(random) * static_cast<float>(how.mask_height);
    for (std::size_t i = 0; i < pixels; ++i) {
      const float dy = static_cast<float>(i / width) - y, dx = static_cast<float>(i % width) - x;
      masks[r * pixels + i] = dy * dy + dx * dx < radius * radius ? 3.0F : -3.0F;
    }
  }
  std::vector<double> scores(classes.size()), ms;
  for (int round = 0; round < 11; ++round) {
    constexpr int kMark = 0x6d61726b;
    if (round == 10) prctl(kMark, 0UL, 0UL, 0UL, 0UL);
    const auto begin = mobileinst::now();
    if (mobileinst_scores(&how, classes.data(), objectness.data(), masks.data(), scores.data()) !=
        MOBILEINST_TRACK_OK)
      return 1;
    ms.push_back(mobileinst::ms_between(begin, mobileinst::now()));
    if (round == 10) prctl(kMark, 1UL, 0UL, 0UL, 0UL);
  }
  std::nth_element(ms.begin(), ms.begin() + 5, ms.end());
  const auto left = std::count_if(scores.begin(), scores.end(), [](double s) { return s > 0.3; });
  std::printf("%.2f ms, %td scores above 0.3\n", ms[5], left);
}
