// Reads plans from stdin, each after a line with its length in bytes, and answers each with one
// line: "plan N calls" or "refused WHY". The fuzz test feeds it; a crash or a sanitizer's report is
// a bug in the parser.
#include <iostream>
#include <string>

#include "failure.h"
#include "plan.h"

int main() {
  std::string header;
  while (std::getline(std::cin, header)) {
    std::string text(std::stoul(header), '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    try {
      const auto plan = mobileinst::parse_plan(text, "/folder");
      std::cout << "plan " << plan.calls.size() << " calls" << std::endl;
    } catch (const mobileinst::Failure& failure) {
      std::string why = failure.what();
      for (auto& c : why) c = c < ' ' || c > '~' ? '?' : c;
      std::cout << "refused " << why << std::endl;
    }
  }
}
