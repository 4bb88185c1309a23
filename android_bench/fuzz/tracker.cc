// The tracker's interface: any options are refused or make a tracker, and any frames are taken or
// refused by it.
#include "tracker.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Bytes bytes(data, size);
  mobileinst_tracker* tracker = nullptr;
  auto options = fuzz::small_options(bytes);
  if (bytes.between(0, 3) == 0) {
    // Some bytes of the options are anything. Sizes stay small: large ones are allowed, and slow.
    auto spoilt = options;
    auto* const raw = reinterpret_cast<unsigned char*>(&spoilt);
    for (int i = bytes.between(1, 4); i > 0; --i)
      raw[bytes.take<std::uint16_t>() % sizeof spoilt] = bytes.take<std::uint8_t>();
    const bool small = spoilt.queries <= 64 && spoilt.classes <= 64 && spoilt.kernel_width <= 64 &&
                       spoilt.mask_height <= 32 && spoilt.mask_width <= 32 &&
                       spoilt.picture_height <= 256 && spoilt.picture_width <= 256;
    if (small) {
      const auto status = mobileinst_track_create(&spoilt, &tracker);
      fuzz::demand((status == MOBILEINST_TRACK_OK) == (tracker != nullptr));
      if (tracker != nullptr) options = spoilt;
    }
  }
  if (tracker == nullptr)
    fuzz::demand(mobileinst_track_create(&options, &tracker) == MOBILEINST_TRACK_OK);
  fuzz::demand(mobileinst_track_reuse(tracker, nullptr) == MOBILEINST_TRACK_NO_KEYFRAME);
  for (int frames = 0; bytes.left() > 0 && frames < 12; ++frames) {
    fuzz::feed(tracker, options, bytes);
    fuzz::look_over(tracker, options);
  }
  mobileinst_track_destroy(tracker);
  return 0;
}
