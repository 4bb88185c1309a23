#include "fields.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

namespace mobileinst {

std::string quoted(std::string_view text) {
  return "'" + std::string(text.substr(0, 60)) + (text.size() > 60 ? "...'" : "'");
}

Fields split(std::string_view text, char separator) {
  Fields fields;
  while (true) {
    const auto at = text.find(separator);
    fields.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return fields;
    text.remove_prefix(at + 1);
  }
}

std::int64_t whole(std::string_view text, std::int64_t low, std::int64_t high,
                   const Refusal& refuse) {
  std::int64_t value = 0;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < low || value > high) {
    refuse(quoted(text) + " is not a whole number from " + std::to_string(low) + " to " +
           std::to_string(high));
  }
  return value;
}

double real(std::string_view text, int low, int high, const Refusal& refuse, const char* unit) {
  const std::string copy(text);
  char* end = nullptr;
  const bool plain = copy.find_first_not_of("0123456789.eE+-") == std::string::npos;
  const double value = plain ? std::strtod(copy.c_str(), &end) : 0.0;
  if (!plain || end != copy.c_str() + copy.size() || !std::isfinite(value) || value < low ||
      value > high) {
    refuse(quoted(text) + " is not a number" + unit + " from " + std::to_string(low) + " to " +
           std::to_string(high));
  }
  return value;
}

std::uint32_t crc(std::string_view text, const Refusal& refuse) {
  std::uint32_t value = 0;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value, 16);
  if (text.size() != 8 || parsed.ec != std::errc() || parsed.ptr != end)
    refuse(quoted(text) + " is not a CRC-32");
  return value;
}

}  // namespace mobileinst
