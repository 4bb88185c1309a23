// A saved state of any bytes is taken whole or refused, and the tracker goes on either way. Half of
// the inputs change a sound state in a few places, or no fuzzer would get far.
#include "tracker.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Bytes bytes(data, size);
  const auto options = fuzz::small_options(bytes);
  mobileinst_tracker* tracker = nullptr;
  fuzz::demand(mobileinst_track_create(&options, &tracker) == MOBILEINST_TRACK_OK);
  std::vector<std::uint8_t> state;
  if (bytes.between(0, 1) != 0) {
    for (int frames = bytes.between(1, 4); frames > 0; --frames) fuzz::feed(tracker, options, bytes);
    state = fuzz::saved(tracker);
    while (bytes.left() > 2) {
      const std::size_t place = bytes.take<std::uint16_t>() % state.size();
      state[place] = bytes.take<std::uint8_t>();
    }
  } else {
    state = bytes.rest();
    state.push_back(0);  // never a null pointer
  }
  const auto status = mobileinst_track_load(tracker, state.data(), state.size());
  fuzz::demand(status == MOBILEINST_TRACK_OK || status == MOBILEINST_TRACK_BAD_STATE);
  fuzz::look_over(tracker, options);
  for (int frame = 0; frame < 3; ++frame) {
    fuzz::Bytes again(data, size);
    fuzz::feed(tracker, options, again);
    fuzz::look_over(tracker, options);
  }
  mobileinst_track_destroy(tracker);
  return 0;
}
