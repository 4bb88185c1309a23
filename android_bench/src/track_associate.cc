#include "track_associate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "track_assign.h"
#include "track_settled.h"

namespace mobileinst::track {
namespace {

constexpr double kShortest = 1e-12;  // a kernel shorter than this points nowhere

// Several sums side by side: of a single one no compiler may change the order, and so use a core's
// vectors.
template <typename A, typename B>
double dot(const A* a, const B* b, std::size_t count) {
  constexpr std::size_t kSums = 4;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (std::size_t k = 0; k < kSums; ++k)
      sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Directions in 16-bit fixed point, to tell quickly which pairs are hopeless: two integer
// instructions multiply and add what takes four to eight of float32. Rows are filled up with zeros.
class Coarse {
 public:
  static constexpr std::size_t kBlock = 16;  // values that are sure to be there together
  static constexpr std::size_t kRows = 4;    // rows that are multiplied at once
  static constexpr float kOne = 1 << 14;

  Coarse(const std::vector<const float*>& directions, std::size_t width)
      : stride_((width + kBlock - 1) / kBlock * kBlock),
        values_((directions.size() + kRows - 1) * stride_) {
    for (std::size_t row = 0; row < directions.size(); ++row) {
      std::int16_t* const out = values_.data() + row * stride_;
      for (std::size_t i = 0; i < width; ++i)
        out[i] = static_cast<std::int16_t>(static_cast<std::int32_t>(directions[row][i] * kOne));
    }
  }

  // The products of a row of this with kRows rows of the other. By Cauchy and Schwarz no part of a
  // sum leaves 32 bits.
  void dots(std::size_t row, const Coarse& other, std::size_t first, std::int32_t* products) const {
    const std::int16_t* const a = values_.data() + row * stride_;
    const std::int16_t* const b = other.values_.data() + first * stride_;
    const std::int16_t* const c = b + stride_;
    const std::int16_t* const d = c + stride_;
    const std::int16_t* const e = d + stride_;
    std::int32_t sums[kRows] = {};
    for (std::size_t i = 0; i < stride_ / kBlock * kBlock; ++i) {
      sums[0] += static_cast<std::int32_t>(a[i]) * static_cast<std::int32_t>(b[i]);
      sums[1] += static_cast<std::int32_t>(a[i]) * static_cast<std::int32_t>(c[i]);
      sums[2] += static_cast<std::int32_t>(a[i]) * static_cast<std::int32_t>(d[i]);
      sums[3] += static_cast<std::int32_t>(a[i]) * static_cast<std::int32_t>(e[i]);
    }
    std::copy_n(sums, kRows, products);
  }

  // How far a product may be from the true one: every value is less than one step off, so a
  // direction is less than sqrt(width) steps off, and the other one is kOne long.
  static double error(std::size_t width) {
    const double off = std::sqrt(static_cast<double>(width));
    return 1.01 * off * (2 * static_cast<double>(kOne) + off);
  }

 private:
  std::size_t stride_;
  std::vector<std::int16_t> values_;
};

// Puts into each pair's nearness what the pair lies above the threshold, negative or zero to be the
// assignment's cost, so that a hopeless pair is worth as much as none and never pushes a good pair
// aside. In place: of many pairs a second table costs as much as the products.
void to_costs(const std::vector<const float*>& rows, const std::vector<const float*>& columns,
              std::size_t width, double similarity, std::vector<double>& nearness) {
  const double lowest = settled(similarity);
  const double one = static_cast<double>(Coarse::kOne);
  const double hopeless = lowest * one * one - Coarse::error(width);
  const Coarse coarse_rows(rows, width), coarse_columns(columns, width);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::int32_t products[Coarse::kRows];
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (c % Coarse::kRows == 0) coarse_rows.dots(r, coarse_columns, c, products);
      double& pair = nearness[r * columns.size() + c];
      const double near = settled(pair);
      pair = 0.0;
      if (static_cast<double>(products[c % Coarse::kRows]) + near * one * one < hopeless) continue;
      const double worth = settled(dot(rows[r], columns[c], width)) + near - lowest;
      pair = -std::max(worth, 0.0);
    }
  }
}

}  // namespace

std::vector<float> unit(const float* kernel, std::size_t width) {
  // In double, where no square overflows or vanishes.
  const double length = std::sqrt(dot(kernel, kernel, width));
  std::vector<float> direction(width, 0.0F);
  if (!(length > kShortest)) return direction;
  for (std::size_t i = 0; i < width; ++i)
    direction[i] = static_cast<float>(static_cast<double>(kernel[i]) / length);
  return direction;
}

bool is_unit(const std::vector<float>& direction) {
  const double square = dot(direction.data(), direction.data(), direction.size());
  if (std::abs(square - 1) <= 1e-4) return true;
  return std::all_of(direction.begin(), direction.end(), [](float v) { return v == 0; });
}

std::vector<std::ptrdiff_t> associate(const std::vector<const float*>& known,
                                      const std::vector<const float*>& found, std::size_t width,
                                      double similarity, std::vector<double> nearness) {
  std::vector<std::ptrdiff_t> match(found.size(), -1);
  if (known.empty() || found.empty()) return match;
  const bool tall = found.size() > known.size();  // the assignment wants the shorter side as rows
  const auto& rows = tall ? known : found;
  const auto& columns = tall ? found : known;
  std::vector<double> turned(tall ? nearness.size() : 0);
  for (std::size_t i = 0; i < turned.size(); ++i)
    turned[i % known.size() * found.size() + i / known.size()] = nearness[i];
  auto& cost = tall ? turned : nearness;
  to_costs(rows, columns, width, similarity, cost);
  const auto pairs = assign(cost, rows.size(), columns.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (!(cost[r * columns.size() + pairs[r]] < 0)) continue;
    (tall ? match[pairs[r]] : match[r]) = static_cast<std::ptrdiff_t>(tall ? r : pairs[r]);
  }
  return match;
}

}  // namespace mobileinst::track
