// The monotonic clock.
#pragma once

#include <errno.h>
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

// Sleeps until so long after an instant; returns at once when that has passed.
inline void sleep_until(const Instant& from, double ms) {
  Instant until = from;
  const auto whole = static_cast<time_t>(ms / 1e3);
  until.tv_sec += whole;
  until.tv_nsec += static_cast<long>((ms - static_cast<double>(whole) * 1e3) * 1e6);
  if (until.tv_nsec >= 1000000000L) {
    until.tv_sec += 1;
    until.tv_nsec -= 1000000000L;
  }
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace mobileinst
