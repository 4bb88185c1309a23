#include "track_masks.h"

#include <algorithm>
#include <limits>

// Built with -ffp-contract=off: a fused multiply-add rounds once where numpy rounds twice, and the
// masks shall be the host's to the pixel.
namespace mobileinst::track {
namespace {

constexpr int kStride = 8;

}  // namespace

MaskSampler::Axis MaskSampler::axis(int logits, int picture, int content) {
  Axis axis;
  axis.length = logits;
  const double scale = static_cast<double>(content) / picture;
  const double last = logits - 1;
  for (int i = 0; i < picture; ++i) {
    const double position = (i + 0.5) * scale * (1.0 / kStride) - 0.5;
    const double clamped = std::min(std::max(position, 0.0), last);
    const int low = static_cast<int>(clamped);
    axis.positions.push_back(position);
    axis.low.push_back(low);
    axis.weight.push_back(static_cast<float>(clamped - low));
  }
  for (int k = 0; k <= logits; ++k) {
    axis.first.push_back(
        static_cast<int>(std::lower_bound(axis.low.begin(), axis.low.end(), k) - axis.low.begin()));
  }
  return axis;
}

MaskSampler::MaskSampler(int height, int width, int picture_height, int picture_width,
                         int content_height, int content_width)
    : rows_(picture_height > 0 ? axis(height, picture_height, content_height)
                               : axis(height, height, height * kStride)),
      columns_(picture_height > 0 ? axis(width, picture_width, content_width)
                                  : axis(width, width, width * kStride)),
      column_(static_cast<std::size_t>(height)) {}

RunLengths MaskSampler::run_lengths(const float* logits) {
  const int height = rows_.length, width = columns_.length;
  int top = height, bottom = -1, left = width, right = -1;  // the box of the positive logits
  for (int y = 0; y < height; ++y) {
    const float* const row = logits + static_cast<std::ptrdiff_t>(y) * width;
    for (int x = 0; x < width; ++x) {
      if (!(row[x] > 0)) continue;
      top = std::min(top, y);
      bottom = y;
      left = std::min(left, x);
      right = std::max(right, x);
    }
  }
  runs_.assign(1, 0);
  const std::int64_t all_rows = this->height(), all_columns = this->width();
  if (bottom < 0) {
    emit(false, all_rows * all_columns);
    return {compress(runs_), 0};
  }
  // Only pixels whose sample touches the box can be inside; beyond the outermost logits the
  // border's value holds.
  const auto from = [](const Axis& axis, int first) {
    const double position = first > 0 ? first - 1.0 : -std::numeric_limits<double>::infinity();
    return static_cast<int>(
        std::lower_bound(axis.positions.begin(), axis.positions.end(), position) -
        axis.positions.begin());
  };
  const auto until = [](const Axis& axis, int last) {
    const double position =
        last + 1 < axis.length ? last + 1.0 : std::numeric_limits<double>::infinity();
    return static_cast<int>(
        std::lower_bound(axis.positions.begin(), axis.positions.end(), position) -
        axis.positions.begin());
  };
  const int x0 = from(columns_, left), x1 = until(columns_, right);
  const int y0 = from(rows_, top), y1 = until(rows_, bottom);
  emit(false, x0 * all_rows);
  if (y0 < y1)
    columns_between(logits, x0, x1, y0, y1);
  else
    emit(false, (x1 - x0) * all_rows);
  emit(false, (all_columns - x1) * all_rows);
  RunLengths found{compress(runs_), 0};
  for (std::size_t i = 1; i < runs_.size(); i += 2) found.area += runs_[i];
  return found;
}

void MaskSampler::columns_between(const float* logits, int left, int right, int top, int bottom) {
  const int width = columns_.length, last_row = rows_.length - 1, last_column = width - 1;
  const int first = rows_.low[static_cast<std::size_t>(top)];
  const int end = rows_.low[static_cast<std::size_t>(bottom - 1)];
  for (int x = left; x < right; ++x) {
    const int low = columns_.low[static_cast<std::size_t>(x)],
              high = std::min(low + 1, last_column);
    const float across = columns_.weight[static_cast<std::size_t>(x)];
    for (int r = first; r <= std::min(end + 1, last_row); ++r) {
      const float* const row = logits + static_cast<std::ptrdiff_t>(r) * width;
      const float step = (row[high] - row[low]) * across;
      column_[static_cast<std::size_t>(r)] = step + row[low];
    }
    emit(false, top);
    for (int r = first; r <= end; ++r) {
      const int y0 = std::max(rows_.first[static_cast<std::size_t>(r)], top);
      const int y1 = std::min(rows_.first[static_cast<std::size_t>(r) + 1], bottom);
      const float a = column_[static_cast<std::size_t>(r)];
      const float b = column_[static_cast<std::size_t>(std::min(r + 1, last_row))];
      // Between two logits of one sign no sample has the other.
      if ((a > 0) == (b > 0)) {
        emit(a > 0, std::max(0, y1 - y0));
        continue;
      }
      for (int y = y0; y < y1; ++y) {
        const float step = (b - a) * rows_.weight[static_cast<std::size_t>(y)];
        emit(step + a > 0, 1);
      }
    }
    emit(false, height() - bottom);
  }
}

void MaskSampler::emit(bool value, std::int64_t count) {
  if (count == 0) return;
  const bool current = runs_.size() % 2 == 0;  // runs alternate, zeros first
  if (value == current) {
    runs_.back() += count;
  } else {
    runs_.push_back(count);
  }
}

std::string compress(const std::vector<std::int64_t>& runs) {
  std::string text;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    std::int64_t value = i < 3 ? runs[i] : runs[i] - runs[i - 2];
    for (bool more = true; more;) {
      const auto digit = static_cast<int>(value & 0x1f);
      value >>= 5;
      more = (digit & 0x10) != 0 ? value != -1 : value != 0;
      text += static_cast<char>(digit + (more ? 0x20 : 0) + '0');
    }
  }
  return text;
}

}  // namespace mobileinst::track
