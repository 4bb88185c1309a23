// The monotonic clock.
#pragma once

#include <time.h>

namespace mobileinst {

using Instant = timespec;

inline Instant now() {
  Instant instant{};
  ::clock_gettime(CLOCK_MONOTONIC, &instant);
  return instant;
}

inline double ms_between(const Instant& from, const Instant& to) {
  return static_cast<double>(to.tv_sec - from.tv_sec) * 1e3 +
         static_cast<double>(to.tv_nsec - from.tv_nsec) * 1e-6;
}

}  // namespace mobileinst
