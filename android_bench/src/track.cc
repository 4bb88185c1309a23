// Mode track: the whole loop of an application over a packed clip, timed stage by stage.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "clock.h"
#include "failure.h"
#include "files.h"
#include "following.h"
#include "mobileinst_track.h"
#include "modes.h"

namespace mobileinst {
namespace {

struct Destroy {
  void operator()(mobileinst_tracker* tracker) const { mobileinst_track_destroy(tracker); }
};

void check(mobileinst_track_status status) {
  if (status == MOBILEINST_TRACK_OK) return;
  if (status == MOBILEINST_TRACK_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status == MOBILEINST_TRACK_BAD_STATE)
    throw Failure(Kind::files, "the state is damaged or of another model");
  if (status == MOBILEINST_TRACK_BAD_ARGUMENT)
    throw Failure(Kind::plan, "the tracker refuses the plan's numbers");
  throw Failure(Kind::run, "the tracker refuses a frame, status " + std::to_string(status));
}

// The columns of what was found; every one becomes a tensor. Those of an instance have an entry for
// each instance of each frame in turn.
struct Found {
  std::vector<std::int32_t> since, instances;  // by frame
  std::vector<float> stages;                   // by frame: ms of each of kStages
  std::vector<std::int64_t> ids;               // by instance
  std::vector<std::int32_t> classes;
  std::vector<float> scores;
  std::vector<std::int32_t> rle_bytes;
  std::string rle;
  std::vector<float> mask_logits;      // by instance, where they are wanted
  std::vector<std::int64_t> seen_ids;  // by track that a keyframe saw
  std::vector<std::int32_t> seen_frames, seen_classes;
  std::vector<float> seen_scores;
};
constexpr std::size_t kFirstCarried = 4;  // the frame graph's result behind the mask logits
constexpr int kStages = 5;  // read, prepare, graphs, track, masks

std::size_t clip_bytes(const Following& following) {
  const auto image = following_call(Role::frame, following, 0).inputs[0].signature;
  return static_cast<std::size_t>(following.count) * image.elements();
}

class Loop {
 public:
  Loop(Engine& engine, const Following& following)
      : engine_(engine),
        following_(following),
        frame_call_(following_call(Role::frame, following, 0)),
        frame_(engine, frame_call_),
        clip_(following.frames, clip_bytes(following), following.crc) {
    pixels_ = clip_bytes(following) / (3 * static_cast<std::size_t>(following.count));
    picture_.resize(3 * pixels_);
    mobileinst_tracker* tracker = nullptr;
    check(mobileinst_track_create(&following.options, &tracker));
    tracker_.reset(tracker);
    if (!following.state.empty()) {
      const auto state = read_file(following.state, kMaxInputBytes);
      if (crc32(state.data(), state.size()) != following.state_crc)
        throw Failure(Kind::files, following.state + " differs from its CRC-32");
      // The context of the keyframe before these frames lies behind the tracker's own state.
      const auto context = context_bytes();
      if (state.size() < context)
        throw Failure(Kind::files, "the state is damaged or of another model");
      const auto own = state.size() - context;
      context_.assign(state.begin() + static_cast<std::ptrdiff_t>(own), state.end());
      check(mobileinst_track_load(tracker, state.data(), own));
      find_reuse();
    }
  }

  // Follows the next picture.
  void step() {
    Instant marks[kStages + 1] = {now()};
    clip_.read(picture_);
    marks[1] = now();
    check(mobileinst_track_look(tracker_.get(), picture_.data()));
    const bool keyframe = mobileinst_track_wants_keyframe(tracker_.get()) != 0;
    if (keyframe || reuse_) widen(static_cast<float*>((keyframe ? frame_ : *reuse_).given(0)));
    marks[2] = now();
    if (keyframe) {
      frame_.run();
    } else if (reuse_) {
      reuse_->run();
    }
    marks[3] = now();
    keyframe ? feed_keyframe() : feed_reuse();
    marks[4] = now();
    collect_masks();
    marks[5] = now();
    collect(keyframe, marks);
  }

  const Found& found() const { return found_; }

  std::vector<std::uint8_t> state() const {
    std::size_t size = 0;
    check(mobileinst_track_save(tracker_.get(), nullptr, 0, &size));
    std::vector<std::uint8_t> state(size);
    check(mobileinst_track_save(tracker_.get(), state.data(), state.size(), &size));
    state.insert(state.end(), context_.begin(), context_.end());
    return state;
  }

 private:
  // uint8, interleaved, as cameras and decoders give it, to float32, plane by plane.
  void widen(float* image) const {
    const std::uint8_t* const bytes = picture_.data();
    for (std::size_t i = 0; i < pixels_; ++i) {
      image[i] = bytes[3 * i];
      image[pixels_ + i] = bytes[3 * i + 1];
      image[2 * pixels_ + i] = bytes[3 * i + 2];
    }
  }

  static const float* values(const ReadyCall& call, std::size_t result) {
    return reinterpret_cast<const float*>(call.results()[result].data);
  }

  void feed_keyframe() {
    const auto status = mobileinst_track_keyframe(
        tracker_.get(), values(frame_, 0), values(frame_, 1), values(frame_, 2), values(frame_, 3));
    if (status == MOBILEINST_TRACK_NOT_FINITE) frame_.check_finite();
    check(status);
    keep_context();
    find_reuse();
  }

  std::size_t context_bytes() const {
    std::size_t bytes = 0;
    for (const auto& each : following_.carried) bytes += each.bytes();
    return bytes;
  }

  // What reuse frames are given beside the kernels, out of the keyframe's results.
  void keep_context() {
    context_.resize(context_bytes());
    std::size_t at = 0;
    for (std::size_t i = 0; i < following_.carried.size(); ++i) {
      const auto bytes = following_.carried[i].bytes();
      std::memcpy(context_.data() + at, values(frame_, kFirstCarried + i), bytes);
      at += bytes;
    }
  }

  void feed_reuse() {
    const auto status =
        mobileinst_track_reuse(tracker_.get(), reuse_ ? values(*reuse_, 0) : nullptr);
    if (status == MOBILEINST_TRACK_NOT_FINITE) reuse_->check_finite();
    check(status);
  }

  // Makes the reuse frames' call for the kernels that are live now.
  void find_reuse() {
    std::int32_t live = 0;
    const float* const kernels = mobileinst_track_live_kernels(tracker_.get(), &live);
    if (live == 0 || following_.options.clip_length == 1) {
      reuse_.reset();
      return;
    }
    if (!reuse_ || live != live_) {
      reuse_.reset();
      reuse_call_ = following_call(Role::mask_head, following_, live);
      reuse_.emplace(engine_, reuse_call_);
      live_ = live;
    }
    const auto width = static_cast<std::size_t>(following_.options.kernel_width);
    std::memcpy(reuse_->given(1), kernels, static_cast<std::size_t>(live) * width * sizeof(float));
    std::size_t at = 0;
    for (std::size_t i = 0; i < following_.carried.size(); ++i) {
      const auto bytes = following_.carried[i].bytes();
      std::memcpy(reuse_->given(2 + i), context_.data() + at, bytes);
      at += bytes;
    }
  }

  void collect_masks() {
    const int count = mobileinst_track_count(tracker_.get());
    for (int i = 0; i < count; ++i) {
      mobileinst_track_rle mask{};
      check(mobileinst_track_mask(tracker_.get(), i, &mask));
      found_.rle.append(mask.counts, mask.length);
      found_.rle_bytes.push_back(static_cast<std::int32_t>(mask.length));
      if (!following_.logits) continue;
      const float* const logits = mobileinst_track_logits(tracker_.get(), i);
      found_.mask_logits.insert(found_.mask_logits.end(), logits, logits + pixels_ / 64);
    }
  }

  void collect(bool keyframe, const Instant* marks) {
    const int count = mobileinst_track_count(tracker_.get());
    found_.since.push_back(static_cast<std::int32_t>(mobileinst_track_since(tracker_.get())));
    found_.instances.push_back(count);
    for (int k = 0; k < kStages; ++k)
      found_.stages.push_back(static_cast<float>(ms_between(marks[k], marks[k + 1])));
    mobileinst_track_instance instance{};
    for (int i = 0; i < count; ++i) {
      check(mobileinst_track_get(tracker_.get(), i, &instance));
      found_.ids.push_back(instance.id);
      found_.classes.push_back(instance.class_index);
      found_.scores.push_back(static_cast<float>(instance.score));
    }
    for (int i = 0; keyframe && i < mobileinst_track_seen_count(tracker_.get()); ++i) {
      check(mobileinst_track_seen(tracker_.get(), i, &instance));
      found_.seen_ids.push_back(instance.id);
      found_.seen_classes.push_back(instance.class_index);
      found_.seen_scores.push_back(static_cast<float>(instance.score));
      found_.seen_frames.push_back(static_cast<std::int32_t>(found_.since.size()) - 1);
    }
  }

  Engine& engine_;
  const Following& following_;
  Call frame_call_, reuse_call_;
  ReadyCall frame_;
  std::optional<ReadyCall> reuse_;  // none while there is nothing to look for
  int live_ = 0;
  FileReader clip_;
  std::size_t pixels_ = 0;
  std::vector<std::uint8_t> picture_;
  std::vector<std::uint8_t> context_;  // of the latest keyframe, in the order of the plan
  std::unique_ptr<mobileinst_tracker, Destroy> tracker_;
  Found found_;
};

class Writer {
 public:
  Writer(Json& json, const Plan& plan) : json_(json), plan_(plan) {}

  // Nothing is written for a column of no entries.
  template <typename T>
  void operator()(const char* name, Dtype dtype, const T& column) {
    if (column.empty()) return;
    const Signature tensor{name, dtype, {static_cast<std::int64_t>(column.size())}};
    write_result(json_, plan_, std::string(name) + ".bin", tensor, column.data());
  }

 private:
  Json& json_;
  const Plan& plan_;
};

}  // namespace

void run_track(Engine& engine, const Plan& plan, Json& json) {
  Loop loop(engine, plan.following);
  Instant told = now();
  for (int i = 0; i < plan.following.count; ++i) {
    loop.step();
    if (ms_between(told, now()) < 1000.0) continue;
    std::fprintf(stderr, "progress\ttrack\t%d\t%d\n", i + 1, plan.following.count);
    std::fflush(stderr);
    told = now();
  }
  const auto& found = loop.found();
  Timing timing;
  for (std::size_t i = 0; i < found.stages.size(); i += kStages) {
    timing.prepare_ms += static_cast<double>(found.stages[i + 1]);
    timing.run_ms += static_cast<double>(found.stages[i + 2]);
  }
  json.key("calls").open('[');
  open_call(json, following_call(Role::frame, plan.following, 0), timing);
  json.key("results").open('[');
  Writer write(json, plan);
  write("since", Dtype::int32, found.since);
  write("instances", Dtype::int32, found.instances);
  write("stages", Dtype::float32, found.stages);
  write("ids", Dtype::int64, found.ids);
  write("classes", Dtype::int32, found.classes);
  write("scores", Dtype::float32, found.scores);
  write("rle_bytes", Dtype::int32, found.rle_bytes);
  write("rle", Dtype::uint8, found.rle);
  write("mask_logits", Dtype::float32, found.mask_logits);
  write("seen_ids", Dtype::int64, found.seen_ids);
  write("seen_classes", Dtype::int32, found.seen_classes);
  write("seen_scores", Dtype::float32, found.seen_scores);
  write("seen_frames", Dtype::int32, found.seen_frames);
  write("state", Dtype::uint8, loop.state());
  json.close(']').close('}').close(']');
}

}  // namespace mobileinst
