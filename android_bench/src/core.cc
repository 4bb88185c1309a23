#include "core.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "failure.h"

namespace mobileinst {

void pin_to(int core) {
  const std::string name = "core " + std::to_string(core);
  if (core < 0 || core >= CPU_SETSIZE)
    throw Failure(Kind::affinity, name + " is beyond what the kernel can name");
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  CPU_SET(static_cast<std::size_t>(core), &wanted);
  if (::sched_setaffinity(0, sizeof wanted, &wanted) != 0) {
    const int error = errno;
    throw Failure(Kind::affinity,
                  name + " refused (offline, missing or not allowed): " + std::strerror(error));
  }
  const auto got = affinity();
  if (got.size() != 1 || got[0] != core) {
    throw Failure(Kind::affinity, name + " was accepted, but the affinity read back differs");
  }
}

std::vector<int> affinity() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    const int error = errno;
    throw Failure(Kind::affinity,
                  std::string("the affinity cannot be read back: ") + std::strerror(error));
  }
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<std::size_t>(core), &allowed)) cores.push_back(core);
  }
  return cores;
}

int current_core() { return ::sched_getcpu(); }

long peak_memory_kib() {
  // Not getrusage: its figure survives exec, and so may be that of the program that started this
  // one.
  std::FILE* const status = std::fopen("/proc/self/status", "re");
  if (status == nullptr) return -1;
  long kib = -1;
  char line[256];
  while (kib < 0 && std::fgets(line, sizeof line, status) != nullptr) {
    if (std::strncmp(line, "VmHWM:", 6) == 0) kib = std::strtol(line + 6, nullptr, 10);
  }
  std::fclose(status);
  return kib;
}

CoreClock::~CoreClock() {
  if (file_ >= 0) ::close(file_);
}

long CoreClock::khz(int core) {
  if (core != core_) {
    if (file_ >= 0) ::close(file_);
    char path[80];
    std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq",
                  core);
    file_ = ::open(path, O_RDONLY | O_CLOEXEC);
    core_ = core;
  }
  if (file_ < 0) return -1;
  char digits[32];
  const ssize_t got = ::pread(file_, digits, sizeof digits - 1, 0);
  if (got <= 0) return -1;
  digits[got] = '\0';
  char* end = nullptr;
  const long value = std::strtol(digits, &end, 10);
  return end != digits && value > 0 ? value : -1;
}

}  // namespace mobileinst
