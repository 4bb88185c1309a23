// When the scene asks for a keyframe: the class Auto of mobileinst_deploy/core/schedule.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mobileinst_track.h"

namespace mobileinst::track {

// Two cheap signs are watched: how far a thumbnail's brightness is from the keyframe's, and how
// certain the masks' pixels are compared with the keyframe's. All of it stands still unless the
// options say automatic.
class SceneSchedule {
 public:
  // What the next decision depends on.
  struct Scene {
    std::vector<std::int32_t> keyframe;  // its thumbnail; empty when the keyframe was not shown
    double sure_then = 0.0;              // mask certainty of the keyframe, 0 to 1
    double sure_now = 0.0;               // and of the latest frame
  };

  explicit SceneSchedule(const mobileinst_track_options& options);

  // Takes the coming picture, (H, W, 3) bytes, RGB.
  void look(const std::uint8_t* picture);
  bool wants_keyframe() const;
  // Learns from the frame that was fed, of its live instances' mask logits.
  void observe(const std::vector<float>& masks, bool keyframe);

  std::size_t cells() const { return cells_; }
  const Scene& scene() const { return scene_; }
  void restore(Scene scene);
  static bool sane(const Scene& scene);

 private:
  bool automatic_;
  double change_, certainty_;
  std::size_t rows_, columns_, cells_;  // of a thumbnail: one cell for 32x32 pixels
  std::vector<std::int32_t> coming_;    // the picture shown last, until a frame is fed
  Scene scene_;
};

}  // namespace mobileinst::track
