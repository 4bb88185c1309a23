// The core this process runs on: pinning, reading the affinity back, the core's clock.
#pragma once

#include <cstddef>
#include <vector>

namespace mobileinst {

// Allows this process only one core and reads back what the kernel made of it. Throws
// Failure(affinity).
void pin_to(int core);

// The cores that the kernel allows this process. Throws Failure(affinity).
std::vector<int> affinity();

// The core that this thread is on, -1 where the kernel does not say.
int current_core();

// Highest resident memory so far, KiB; -1 where the kernel does not say.
long peak_memory_kib();

// A core's scaling_cur_freq, the file kept open between readings.
class CoreClock {
 public:
  CoreClock() = default;
  ~CoreClock();
  CoreClock(const CoreClock&) = delete;
  CoreClock& operator=(const CoreClock&) = delete;

  // kHz, or -1 where it cannot be read: an ordinary user may be refused, and containers have none.
  long khz(int core);

 private:
  int core_ = -1;
  int file_ = -1;
};

}  // namespace mobileinst
