// The lines of a plan that only the mode `track` has, and the calls that they stand for.
#include "following.h"

#include <utility>

namespace mobileinst {
namespace {

constexpr int kMostPixels = 32768;  // of a side

}  // namespace

std::size_t following_fields(std::string_view keyword) {
  if (keyword == "tracking") return 9;
  if (keyword == "model") return 7;
  if (keyword == "picture") return 5;
  if (keyword == "frames") return 4;
  if (keyword == "state" || keyword == "automatic") return 3;
  return keyword == "logits" ? 2 : 0;
}

void read_following(Following& following, const Fields& fields, const PathOf& path,
                    const Refusal& refuse) {
  auto& options = following.options;
  const auto number = [&](std::size_t i, int low, int high) {
    return static_cast<int>(whole(fields[i], low, high, refuse));
  };
  const auto logits = [&](std::size_t i) {
    const int pixels = number(i, 8, kMostPixels);
    if (pixels % 8 != 0) refuse("the input size is not a multiple of 8");
    return pixels / 8;
  };
  if (fields[0] == "model") {
    options.queries = number(1, 1, 4096);
    options.classes = number(2, 1, 65536);
    options.kernel_width = number(3, 1, 65536);
    options.mask_height = logits(4);
    options.mask_width = logits(5);
    following.slots = number(6, 0, 4096);
  } else if (fields[0] == "picture") {
    options.picture_height = number(1, 1, kMostPixels);
    options.picture_width = number(2, 1, kMostPixels);
    options.content_height = number(3, 1, kMostPixels);
    options.content_width = number(4, 1, kMostPixels);
  } else if (fields[0] == "tracking") {
    options.clip_length = number(1, 1, 1000000);
    options.score = real(fields[2], 0, 1, refuse);
    options.keep = real(fields[3], 0, 1, refuse);
    options.similarity = real(fields[4], -1, 1, refuse);
    options.duplicate_iou = real(fields[5], 0, 1, refuse);
    options.overlap = real(fields[6], 0, 10, refuse);
    options.memory = number(7, 0, 1000000000);
    options.remembered = number(8, 1, 1000000000);
  } else if (fields[0] == "automatic") {
    options.automatic = 1;
    options.change = real(fields[1], 0, 255, refuse);
    options.certainty = real(fields[2], 0, 1, refuse);
  } else if (fields[0] == "logits") {
    following.logits = number(1, 0, 1) == 1;
  } else if (fields[0] == "frames") {
    following.frames = path(fields[1]);
    following.count = number(2, 1, 1000000);
    following.crc = crc(fields[3], refuse);
  } else {
    following.state = path(fields[1]);
    following.state_crc = crc(fields[2], refuse);
  }
}

Call following_call(Role role, const Following& following, int live) {
  const auto& o = following.options;
  const std::int64_t n = role == Role::frame   ? o.queries
                         : following.slots > 0 ? following.slots
                                               : live;
  const auto tensor = [](const char* name, std::vector<std::int64_t> shape) {
    return Signature{name, Dtype::float32, std::move(shape)};
  };
  const auto given = [](Signature signature) {
    return Input{std::move(signature), {}, Dtype::float32, 0, {}};
  };
  const auto image = given(tensor("image", {1, 3, 8 * o.mask_height, 8 * o.mask_width}));
  const auto kernels = tensor("kernels", {1, n, o.kernel_width});
  const auto masks = tensor("mask_logits", {1, n, o.mask_height, o.mask_width});
  if (role == Role::mask_head) {
    Call call{role, {image, given(kernels)}, {masks}};
    for (const auto& each : following.carried) call.inputs.push_back(given(each));
    return call;
  }
  const auto classes = tensor("class_logits", {1, n, o.classes});
  const auto objectness = tensor("objectness_logits", {1, n, 1});
  Call call{role, {image}, {classes, objectness, kernels, masks}};
  call.results.insert(call.results.end(), following.carried.begin(), following.carried.end());
  return call;
}

}  // namespace mobileinst
