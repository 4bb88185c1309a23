// Mode outputs: every call once, every result to a file.
#include <optional>

#include "failure.h"
#include "files.h"
#include "modes.h"

namespace mobileinst {

void open_call(Json& json, const Call& call, const Timing& timing) {
  json.open('{').key("role").text(name_of(call.role));
  json.key("prepare_ms").ms(timing.prepare_ms).key("run_ms").ms(timing.run_ms);
}

void write_result(Json& json, const Plan& plan, const std::string& file, const Signature& tensor,
                  const void* data) {
  write_file(plan.folder + "/" + file, data, tensor.bytes());
  json.open('{').key("name").text(tensor.name).key("dtype").text(name_of(tensor.dtype));
  json.key("shape").open('[');
  for (const auto length : tensor.shape) json.whole(length);
  json.close(']').key("file").text(file);
  json.key("bytes").whole(static_cast<std::int64_t>(tensor.bytes()));
  json.key("crc32").text(hex(crc32(data, tensor.bytes()))).close('}');
}

void run_outputs(Engine& engine, const Plan& plan, Json& json) {
  std::optional<Failure> nonfinite;  // told at the end, so that every tensor can be looked at
  json.key("calls").open('[');
  for (std::size_t k = 0; k < plan.calls.size(); ++k) {
    ReadyCall ready(engine, plan.calls[k]);
    const auto timing = ready.run();
    open_call(json, ready.call(), timing);
    json.key("results").open('[');
    for (std::size_t i = 0; i < ready.results().size(); ++i) {
      const auto& result = ready.results()[i];
      const auto& signature = ready.call().results[i];
      const std::string name = std::to_string(k) + "." + std::to_string(i) + ".bin";
      write_result(json, plan, name, signature, result.data);
    }
    json.close(']').close('}');
    try {
      ready.check_finite();
    } catch (const Failure& failure) {
      if (!nonfinite)
        nonfinite = Failure(failure.kind, "call " + std::to_string(k) + ": " + failure.what());
    }
  }
  json.close(']');
  if (nonfinite) throw *nonfinite;
}

}  // namespace mobileinst
