// What to do, read from the plan file and checked whole before anything is loaded. Format:
// README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mobileinst_track.h"

namespace mobileinst {

enum class Mode { outputs, bench, profile, count, track };
enum class Role { frame, mask_head };
enum class Dtype { float32, uint8, int32, int64 };

const char* name_of(Mode mode);
const char* name_of(Role role);
const char* name_of(Dtype dtype);
std::size_t size_of(Dtype dtype);  // bytes an element

// A tensor's name, element type and concrete shape.
struct Signature {
  std::string name;
  Dtype dtype{};
  std::vector<std::int64_t> shape;

  std::size_t elements() const;
  std::size_t bytes() const { return elements() * size_of(dtype); }
};

std::string describe(Dtype dtype, const std::vector<std::int64_t>& shape);  // "float32 1,3,64,64"

// Where an input's values come from: a file, or a result of the latest frame call.
struct Input {
  Signature signature;
  std::string file;  // empty when `result` is set
  Dtype stored{};
  std::uint32_t crc = 0;
  std::string result;  // empty when `file` is set
};

struct Call {
  Role role{};
  std::vector<Input> inputs;
  std::vector<Signature> results;
};

// What the mode `track` follows, and how: the lines of a plan that only it has.
struct Following {
  mobileinst_track_options options{};
  int slots = 0;       // kernels that the mask-head graph takes, 0 for any number
  bool logits = false;  // whether mask logits are wanted as well
  std::string frames;  // pictures of the input size, uint8, RGB, one after the other
  int count = 0;
  std::uint32_t crc = 0;
  std::vector<Signature> carried;  // results that reuse frames are given beside the kernels
  std::string state;  // where an earlier run left off; empty at a clip's beginning
  std::uint32_t state_crc = 0;
};

struct Plan {
  Mode mode{};
  std::string library;  // empty for a runner that has its runtime linked in
  std::string folder;
  std::optional<int> core;
  int warmups = 0;
  int runs = 0;
  double seconds = 0.0;
  std::vector<int> clip_lengths;
  double pace = 0.0;  // frames that arrive a second, of which the newest is taken; 0: at once
  int limit_seconds = 0;
  std::map<Role, std::string> graphs;
  std::vector<Call> calls;  // in the mode `track` the two that its lines stand for
  Following following;
};

constexpr std::size_t kMaxPlanBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxInputBytes = std::size_t{2} << 30;
constexpr std::size_t kMaxSamples = 100000;  // of one schedule

// Reads a plan's text; relative paths are taken from `folder`. Throws Failure(plan).
Plan parse_plan(std::string_view text, const std::string& folder);

// Reads a plan file. Throws Failure(plan).
Plan load_plan(const std::string& path);

}  // namespace mobileinst
