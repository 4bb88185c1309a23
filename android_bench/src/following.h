// What the mode `track` follows, and how.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "fields.h"
#include "plan.h"

namespace mobileinst {

using PathOf = std::function<std::string(std::string_view)>;

// How many fields a line has that only the mode `track` knows; 0 for every other keyword.
std::size_t following_fields(std::string_view keyword);

// Reads such a line. Throws Failure(plan).
void read_following(Following& following, const Fields& fields, const PathOf& path,
                    const Refusal& refuse);

// One run of a graph, of `live` kernels; its inputs come from neither file nor result.
Call following_call(Role role, const Following& following, int live);

}  // namespace mobileinst
