// A fuzzer's input taken apart: numbers and arrays off its front, zeros once it is used up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  template <typename T>
  T take() {
    T value{};
    const std::size_t size = sizeof value < left_ ? sizeof value : left_;
    std::memcpy(&value, data_, size);
    data_ += size;
    left_ -= size;
    return value;
  }
  // A whole number from low to high.
  int between(int low, int high) { return low + take<std::uint8_t>() % (high - low + 1); }
  // Floats, small whole ones more often than others: those make ties.
  std::vector<float> floats(std::size_t count) {
    const bool any = take<std::uint8_t>() % 4 == 0;
    std::vector<float> values(count);
    for (auto& value : values)
      value = any ? take<float>() : static_cast<float>(take<std::int8_t>() % 4);
    return values;
  }
  std::vector<std::uint8_t> rest() {
    std::vector<std::uint8_t> all(data_, data_ + left_);
    left_ = 0;
    return all;
  }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

// Ends the process where something that must hold does not.
inline void demand(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
