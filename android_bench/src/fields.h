// The fields of a plan's line: cut apart, read as numbers, and refused with the line's number in
// front.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "failure.h"

namespace mobileinst {

using Fields = std::vector<std::string_view>;

// Everything the parser refuses passes here.
class Refusal {
 public:
  explicit Refusal(std::size_t line) : line_(line) {}
  [[noreturn]] void operator()(const std::string& why) const {
    throw Failure(Kind::plan, "plan line " + std::to_string(line_) + ": " + why);
  }

 private:
  std::size_t line_;
};

std::string quoted(std::string_view text);
Fields split(std::string_view text, char separator);
std::int64_t whole(std::string_view text, std::int64_t low, std::int64_t high,
                   const Refusal& refuse);
double real(std::string_view text, int low, int high, const Refusal& refuse, const char* unit = "");
std::uint32_t crc(std::string_view text, const Refusal& refuse);

}  // namespace mobileinst
