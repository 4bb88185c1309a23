// Writes JSON text in order; commas and escapes are its business, nesting is the caller's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mobileinst {

class Json {
 public:
  Json& open(char bracket);   // '{' or '['
  Json& close(char bracket);  // '}' or ']'
  Json& key(std::string_view name);
  Json& text(std::string_view value);  // bytes that are not ASCII text become escapes
  Json& whole(std::int64_t value);
  Json& ms(double value);  // to the nanosecond
  Json& truth(bool value);
  Json& null();
  const std::string& str() const { return out_; }

 private:
  void comma();
  std::string out_;
  bool first_ = true;
};

}  // namespace mobileinst
