// How anything here fails: one exception with a kind, which becomes the result's "kind" and the
// exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace mobileinst {

enum class Kind {
  plan = 10,
  library = 11,
  graph = 12,
  contract = 13,
  affinity = 14,
  files = 15,
  run = 16,
  nonfinite = 17,
  limit = 18,
  memory = 19,
};

inline const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::plan: return "plan";
    case Kind::library: return "library";
    case Kind::graph: return "graph";
    case Kind::contract: return "contract";
    case Kind::affinity: return "affinity";
    case Kind::files: return "files";
    case Kind::run: return "run";
    case Kind::nonfinite: return "nonfinite";
    case Kind::limit: return "limit";
    case Kind::memory: return "memory";
  }
  return "unknown";
}

struct Failure : std::runtime_error {
  Failure(Kind what_kind, const std::string& message)
      : std::runtime_error(message), kind(what_kind) {}
  Kind kind;
};

}  // namespace mobileinst
