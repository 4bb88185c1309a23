// The assignment problem: the cheapest one-to-one pairing of rows with columns.
#pragma once

#include <cstddef>
#include <vector>

namespace mobileinst::track {

// Every row its column, each column at most once, at the lowest total cost. `cost` is rows x
// columns, and rows <= columns. Where several pairings cost the same, and costs are sums of a few
// powers of two so that no rounding comes between, it is the one that
// scipy.optimize.linear_sum_assignment gives. Ends in O(rows^2 * columns) steps whatever the costs
// are, NaN included; it is the cheapest only if all are finite.
std::vector<std::size_t> assign(const std::vector<double>& cost, std::size_t rows,
                                std::size_t columns);

}  // namespace mobileinst::track
