// Reads a plan, does what its mode says, prints one JSON document and ends with the exit code of
// what happened.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>

#include "core.h"
#include "engine.h"
#include "failure.h"
#include "files.h"
#include "json.h"
#include "modes.h"
#include "plan.h"

namespace {

using namespace mobileinst;

constexpr const char* kBegin = "=====MOBILEINST-RESULT-BEGIN=====\n";
constexpr const char* kEnd = "\n=====MOBILEINST-RESULT-END ";

// The one list of modes. A new one is a name in plan.h, a function in modes.h and a row here.
struct Entry {
  Mode mode;
  void (*run)(Engine&, const Plan&, Json&);
};
constexpr Entry kModes[] = {
    {Mode::outputs, run_outputs},
    {Mode::bench, run_bench},
    {Mode::profile, run_profile},
    {Mode::count, run_count},
    {Mode::track, run_track},
};

void put(const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t done = ::write(STDOUT_FILENO, bytes, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;  // nobody listens; the exit code still speaks
    bytes += done;
    size -= static_cast<std::size_t>(done);
  }
}

std::string framed(const std::string& document) {
  return kBegin + document + kEnd + std::to_string(document.size()) + "=====\n";
}

std::string failed(const Failure& failure, std::optional<Mode> mode) {
  Json json;
  json.open('{').key("schema").whole(1).key("ok").truth(false).key("mode");
  mode ? json.text(name_of(*mode)) : json.null();
  json.key("error")
      .open('{')
      .key("kind")
      .text(name_of(failure.kind))
      .key("message")
      .text(failure.what())
      .close('}')
      .close('}');
  return json.str();
}

// What the alarm prints, made beforehand: a signal handler may only write and leave.
std::string g_limit_reached;

void on_alarm(int) {
  ::signal(SIGALRM, SIG_DFL);  // should nobody read the pipe, the next alarm ends this process
  ::alarm(5);
  put(g_limit_reached.data(), g_limit_reached.size());
  ::_exit(static_cast<int>(Kind::limit));
}

void set_limit(const Plan& plan) {
  const Failure reached(Kind::limit,
                        "the limit of " + std::to_string(plan.limit_seconds) + " s was reached");
  g_limit_reached = framed(failed(reached, plan.mode));
  ::signal(SIGALRM, on_alarm);
  ::alarm(static_cast<unsigned>(plan.limit_seconds));
}

void lift_limit() {
  ::signal(SIGALRM, SIG_DFL);
  ::alarm(30);  // printing has its own
}

std::string run(const Plan& plan) {
  if (plan.core)
    pin_to(*plan.core);  // before the library loads, so that nothing of it ever ran elsewhere
  Engine engine(plan, plan.mode == Mode::profile);

  Json json;
  json.open('{').key("schema").whole(1).key("ok").truth(true).key("mode").text(name_of(plan.mode));
#if defined(__aarch64__)
  json.key("abi").text("aarch64");
#elif defined(__x86_64__)
  json.key("abi").text("x86_64");
#else
  json.key("abi").text("other");
#endif
  json.key("runtime")
      .open('{')
      .key("name")
      .text(engine.runtime().name())
      .key("version")
      .text(engine.runtime().version())
      .close('}');
  json.key("graphs").open('{');
  for (const auto& [role, graph] : engine.graphs()) {
    json.key(name_of(role)).open('{').key("load_ms").ms(graph.load_ms()).close('}');
  }
  json.close('}');
  for (const auto& entry : kModes) {
    if (entry.mode == plan.mode) entry.run(engine, plan, json);
  }
  json.key("core").open('{').key("asked");
  plan.core ? json.whole(*plan.core) : json.null();
  json.key("affinity").open('[');
  for (const int core : affinity())
    json.whole(core);  // read back after the work: it held all the way
  json.close(']').close('}');
  json.key("peak_memory_kib");
  const long peak = peak_memory_kib();
  peak < 0 ? json.null() : json.whole(peak);
  json.close('}');
  return json.str();
}

int finish(const std::string& document, int code, const Plan* plan) {
  lift_limit();
  if (plan != nullptr) {
    try {
      write_file(plan->folder + "/result.json", document.data(), document.size());
    } catch (const Failure& failure) {
      if (code == 0) {
        const std::string told = framed(failed(failure, plan->mode));
        put(told.data(), told.size());
        return static_cast<int>(failure.kind);
      }
    }
  }
  const std::string told = framed(document);
  put(told.data(), told.size());
  return code;
}

int main_or_throw(const char* path) {
  std::optional<Plan> plan;
  try {
    plan = load_plan(path);
    set_limit(*plan);
    make_folder(plan->folder);
    return finish(run(*plan), 0, &*plan);
  } catch (const Failure& failure) {
    std::optional<Mode> mode;
    if (plan) mode = plan->mode;
    return finish(failed(failure, mode), static_cast<int>(failure.kind), plan ? &*plan : nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s PLAN\n", argc > 0 ? argv[0] : "mobileinst_runner");
    return finish(failed(Failure(Kind::plan, "no plan was named"), std::nullopt),
                  static_cast<int>(Kind::plan), nullptr);
  }
  try {
    return main_or_throw(argv[1]);
  } catch (const std::bad_alloc&) {
    return finish(failed(Failure(Kind::memory, "out of memory"), std::nullopt),
                  static_cast<int>(Kind::memory), nullptr);
  } catch (const std::exception& error) {
    return finish(failed(Failure(Kind::run, error.what()), std::nullopt),
                  static_cast<int>(Kind::run), nullptr);
  }
}
