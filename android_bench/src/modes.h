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

// Opens one entry of "calls"; the caller closes it.
void open_call(Json& json, const Call& call, const Timing& timing);

}  // namespace mobileinst
