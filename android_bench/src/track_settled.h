// Numbers that decide something, rounded first: mobileinst_deploy/settled.py.
#pragma once

#include <cmath>

namespace mobileinst::track {

// To the nearest 2^-20; sums and differences of such numbers are exact.
inline double settled(double value) {
  constexpr double kSteps = 1 << 20;
  return std::nearbyint(value * kSteps) / kSteps;
}

}  // namespace mobileinst::track
