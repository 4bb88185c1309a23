// Kernel association: mobileinst_deploy/core/association.py.
#pragma once

#include <cstddef>
#include <vector>

namespace mobileinst::track {

// A kernel scaled to length 1; one that is all but zero becomes zeros.
std::vector<float> unit(const float* kernel, std::size_t width);

// Whether `unit` can have made it.
bool is_unit(const std::vector<float>& direction);

// For each found kernel the index of the known one it belongs to, or -1; all from `unit`, `width`
// values each. `nearness` is what each pair's masks add to the cosine, found by known.
std::vector<std::ptrdiff_t> associate(const std::vector<const float*>& known,
                                      const std::vector<const float*>& found, std::size_t width,
                                      double similarity, std::vector<double> nearness);

}  // namespace mobileinst::track
