// Scores as a network's own evaluation has them: mobileinst_deploy/core/suppression.py.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "mobileinst_track.h"
#include "track_core.h"
#include "track_settled.h"

namespace mobileinst::track {
namespace {

// Matrix suppression: how fast an overlapped find decays. Box suppression: from which IoU one goes.
constexpr double kSigma = 2.0, kBoxIou = 0.6;
constexpr std::size_t kMostPairs = 500;

struct Find {
  std::size_t row, label;
  double score;
};

// Both rules compare finds of one class only, each with the stronger ones before it.
void decay(std::vector<Find>& finds, const std::vector<Bits>& masks) {
  const std::size_t k = finds.size();
  std::vector<double> overlap(k * k, 0.0), itself(k, 0.0);
  for (std::size_t j = 0; j < k; ++j) {
    for (std::size_t i = 0; i < j; ++i) {
      if (finds[i].label != finds[j].label) continue;
      const double share = static_cast<double>(iou(masks[finds[i].row], masks[finds[j].row]));
      overlap[i * k + j] = share;
      itself[j] = std::max(itself[j], share);
    }
  }
  for (std::size_t j = 0; j < k; ++j) {
    double least = 0.0;
    for (std::size_t i = 0; i < j; ++i) {
      const double share = overlap[i * k + j];
      least = std::min(least, itself[i] * itself[i] - share * share);
    }
    finds[j].score *= std::exp(kSigma * least);
  }
}

// The box around a mask, ends beyond the last pixel; empty: all zeros.
struct Box {
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;
  std::int64_t area() const { return (bottom - top) * (right - left); }
};

Box box_of(const float* logits, std::int64_t height, std::int64_t width) {
  Box box{height, 0, width, 0};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      if (!(logits[y * width + x] > 0)) continue;
      box.top = std::min(box.top, y);
      box.bottom = y + 1;
      box.left = std::min(box.left, x);
      box.right = std::max(box.right, x + 1);
    }
  }
  return box.bottom == 0 ? Box{} : box;
}

bool close(const Box& a, const Box& b) {
  const auto tall = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const auto wide = std::min(a.right, b.right) - std::max(a.left, b.left);
  const auto both = std::max<std::int64_t>(tall, 0) * std::max<std::int64_t>(wide, 0);
  const auto either = a.area() + b.area() - both;
  return either > 0 && static_cast<double>(both) / static_cast<double>(either) >= kBoxIou;
}

void drop_outdone(std::vector<Find>& finds, const std::vector<Box>& boxes) {
  std::vector<char> kept(finds.size(), 1);
  for (std::size_t j = 0; j < finds.size(); ++j) {
    for (std::size_t i = 0; i < j && kept[j] != 0; ++i) {
      if (kept[i] != 0 && finds[i].label == finds[j].label &&
          close(boxes[finds[i].row], boxes[finds[j].row]))
        kept[j] = 0;
    }
    if (kept[j] == 0) finds[j].score = 0.0;
  }
}

double maskness(const float* logits, std::size_t pixels, double shift) {
  double total = 0.0, inside = 0.0;
  for (std::size_t i = 0; i < pixels; ++i) {
    if (!(logits[i] > 0)) continue;
    total += sigmoid(static_cast<double>(logits[i]) - shift);
    inside += 1.0;
  }
  return settled(total / std::max(inside, 1.0));
}

// The strongest pairs of a row and a class, of equal ones the first.
std::vector<Find> strongest(const double* scores, std::size_t rows, std::size_t classes) {
  std::vector<std::size_t> order(rows * classes);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto count = static_cast<std::ptrdiff_t>(std::min(order.size(), kMostPairs));
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](std::size_t a, std::size_t b) {
                      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                    });
  std::vector<Find> finds;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const std::size_t at = order[static_cast<std::size_t>(i)];
    finds.push_back({at / classes, at % classes, scores[at]});
  }
  return finds;
}

}  // namespace

void settle_scores(const mobileinst_scoring& how, const float* class_logits,
                   const float* objectness_logits, const float* mask_logits, double* scores) {
  const auto rows = static_cast<std::size_t>(how.queries);
  const auto classes = static_cast<std::size_t>(how.classes);
  const auto pixels =
      static_cast<std::size_t>(how.mask_height) * static_cast<std::size_t>(how.mask_width);
  for (std::size_t r = 0; r < rows; ++r) {
    const double sure = how.maskness != 0
                            ? maskness(mask_logits + r * pixels, pixels, how.mask_shift)
                            : 1.0;
    const auto objectness = static_cast<double>(objectness_logits[r]);
    for (std::size_t c = r * classes; c < (r + 1) * classes; ++c)
      scores[c] = static_cast<double>(static_cast<float>(combined(class_logits[c], objectness))) *
                  sure;
  }
  if (how.suppression == MOBILEINST_SUPPRESSION_NONE) return;
  auto finds = strongest(scores, rows, classes);
  if (how.suppression == MOBILEINST_SUPPRESSION_MATRIX) {
    std::vector<Bits> masks;
    for (std::size_t r = 0; r < rows; ++r) masks.emplace_back(mask_logits + r * pixels, pixels);
    decay(finds, masks);
  } else {
    std::vector<Box> boxes;
    for (std::size_t r = 0; r < rows; ++r)
      boxes.push_back(box_of(mask_logits + r * pixels, how.mask_height, how.mask_width));
    drop_outdone(finds, boxes);
  }
  std::fill(scores, scores + rows * classes, 0.0);
  for (const auto& find : finds) scores[find.row * classes + find.label] = find.score;
}

}  // namespace mobileinst::track
