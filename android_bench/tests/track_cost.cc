// What association costs at one keyframe: `track_cost KNOWN FOUND WIDTH` prints microseconds of
// processor time, the median of 201 rounds over kernels of length 1 that point anywhere; alone, and
// with the overlaps of discs on the grid of the mask logits of a 384x640 picture.
// scripts/association.py is the same.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include "track_associate.h"
#include "track_core.h"

namespace {

std::vector<float> directions(std::size_t count, std::size_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count * width);
  for (std::size_t i = 0; i < count; ++i) {
    float* const row = values.data() + i * width;
    float squares = 0.0F;
    for (std::size_t k = 0; k < width; ++k) {
      row[k] = normal(random);
      squares += row[k] * row[k];
    }
    for (std::size_t k = 0; k < width; ++k) row[k] /= std::sqrt(squares);
  }
  return values;
}

std::vector<const float*> rows(const std::vector<float>& values, std::size_t width) {
  std::vector<const float*> found;
  for (std::size_t i = 0; i < values.size(); i += width) found.push_back(values.data() + i);
  return found;
}

// What this thread has computed so far: what else a machine does hardly changes it.
double computed_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

constexpr int kHeight = 48, kWidth = 80;

struct Disc {
  float y, x, radius;

  mobileinst::track::Bits bits() const {
    std::vector<float> logits;
    for (int i = 0; i < kHeight * kWidth; ++i) {
      const float dy = static_cast<float>(i / kWidth) - y, dx = static_cast<float>(i % kWidth) - x;
      logits.push_back(dy * dy + dx * dx < radius * radius ? 3.0F : -3.0F);
    }
    return {logits.data(), logits.size()};
  }
};

std::vector<Disc> discs(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> place(0.0F, 1.0F);
  std::vector<Disc> found;
  for (std::size_t i = 0; i < count; ++i)
    found.push_back({place(random) * kHeight, place(random) * kWidth, place(random) * kHeight / 4});
  return found;
}

std::vector<mobileinst::track::Bits> bits(const std::vector<Disc>& discs) {
  std::vector<mobileinst::track::Bits> found;
  for (const auto& disc : discs) found.push_back(disc.bits());
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto number = [&](int i) { return static_cast<std::size_t>(std::atoi(argv[i])); };
  const std::size_t m = number(1), n = number(2), width = number(3);
  const auto known = directions(m, width, 1);
  auto found = directions(n, width, 2);
  auto before = discs(m, 3), now = discs(n, 4);
  // Half of the instances are seen again, one place to the right.
  const std::size_t half = std::min(m, n) / 2;
  std::copy_n(known.begin(), half * width, found.begin());
  for (std::size_t i = 0; i < half; ++i) now[i] = {before[i].y, before[i].x + 1, before[i].radius};
  const auto was = bits(before), is = bits(now);
  for (const bool overlaps : {false, true}) {
    std::vector<double> us;
    std::size_t matched = 0;
    for (int round = 0; round < 201; ++round) {
      const double begin = computed_us();
      std::vector<double> nearness(m * n, 0.0);
      if (overlaps) {
        for (std::size_t i = 0; i < nearness.size(); ++i)
          nearness[i] = 0.6 * static_cast<double>(
                                  mobileinst::track::iou(is[i / m], was[i % m]));
      }
      const auto match = mobileinst::track::associate(rows(known, width), rows(found, width),
                                                      width, 0.5, std::move(nearness));
      us.push_back(computed_us() - begin);
      matched += static_cast<std::size_t>(
          std::count_if(match.begin(), match.end(), [](std::ptrdiff_t which) { return which >= 0; }));
    }
    std::nth_element(us.begin(), us.begin() + 100, us.end());
    std::printf("%s: %.1f us, %zu of %s matched\n", overlaps ? "with overlaps" : "kernels alone",
                us[100], matched / 201, argv[2]);
  }
}
