// What the runner can do with a plan. A mode adds its own keys to the open result object; main.cc's
// table is the one list of modes.
#pragma once

#include "engine.h"
#include "json.h"
#include "plan.h"

namespace mobileinst {

void run_outputs(Engine& engine, const Plan& plan, Json& json);
void run_bench(Engine& engine, const Plan& plan, Json& json);
void run_profile(Engine& engine, const Plan& plan, Json& json);
void run_count(Engine& engine, const Plan& plan, Json& json);
void run_track(Engine& engine, const Plan& plan, Json& json);

// Opens one entry of "calls"; the caller closes it.
void open_call(Json& json, const Call& call, const Timing& timing);

// Writes a tensor into the plan's folder and its entry into the open "results".
void write_result(Json& json, const Plan& plan, const std::string& file, const Signature& tensor,
                  const void* data);

}  // namespace mobileinst
