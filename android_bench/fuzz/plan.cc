// The plan reader: any text is a plan within its limits or a Failure of the kind `plan`.
#include "../src/plan.h"

#include "../src/failure.h"
#include "bytes.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto plan = mobileinst::parse_plan({reinterpret_cast<const char*>(data), size}, "/f");
    fuzz::demand(plan.warmups >= 0 && plan.warmups <= 1000 && plan.calls.size() <= 4096);
    for (const auto& call : plan.calls) {
      for (const auto& input : call.inputs)
        fuzz::demand(input.signature.elements() <= std::size_t{1} << 28);
    }
  } catch (const mobileinst::Failure& failure) {
    fuzz::demand(failure.kind == mobileinst::Kind::plan);
  }
  return 0;
}
