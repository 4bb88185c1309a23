// The assignment problem: the cheapest one-to-one pairing of rows with columns.
#pragma once

#include <cstddef>
#include <vector>

namespace mobileinst::track {

// Every row its column, each column at most once, at the lowest total cost; exact, in O(rows^2 *
// columns). `cost` is rows x columns, finite, and rows <= columns.
std::vector<std::size_t> assign(const std::vector<double>& cost, std::size_t rows,
                                std::size_t columns);

}  // namespace mobileinst::track
