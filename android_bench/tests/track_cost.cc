// What kernel association costs at one keyframe: `track_cost KNOWN FOUND WIDTH` prints microseconds,
// the median of 201 rounds over kernels of length 1 that point anywhere.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../src/clock.h"
#include "track_associate.h"

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto number = [&](int i) { return static_cast<std::size_t>(std::atoi(argv[i])); };
  const auto known = directions(number(1), number(3), 1);
  auto found = directions(number(2), number(3), 2);
  // Half of the instances are seen again.
  std::copy_n(known.begin(), std::min(known.size(), found.size()) / 2, found.begin());
  const std::vector<double> apart(number(1) * number(2), 0.0);
  std::vector<double> us;
  std::size_t matched = 0;
  for (int round = 0; round < 201; ++round) {
    const auto begin = mobileinst::now();
    const auto match =
        mobileinst::track::associate(rows(known, number(3)), rows(found, number(3)), number(3), 0.5,
                                     apart);
    us.push_back(1e3 * mobileinst::ms_between(begin, mobileinst::now()));
    matched += static_cast<std::size_t>(std::count_if(match.begin(), match.end(),
                                                      [](std::ptrdiff_t m) { return m >= 0; }));
  }
  std::nth_element(us.begin(), us.begin() + 100, us.end());
  std::printf("%.1f us, %zu of %s matched\n", us[100], matched / 201, argv[2]);
}
