/* An app's loop around the tracker. The two run_ functions stand for the app's own inference calls;
 * here they draw a square that walks to the right, so that the example runs without a model. */
#include <stdio.h>
#include <stdlib.h>

#include "mobileinst_track.h"

enum { N = 2, C = 3, D = 4, H = 8, W = 16, FRAMES = 7 };

/* Every status is looked at. What an app does then is its own: drop the frame, or begin anew. */
static void check(mobileinst_track_status status) {
  if (status == MOBILEINST_TRACK_OK) return;
  fprintf(stderr, "the tracker gives status %d\n", (int)status);
  exit(1);
}

static void draw(int frame, float* mask_logits) {
  for (int i = 0; i < H * W; ++i)
    mask_logits[i] = i / W >= 2 && i / W < 6 && i % W >= frame && i % W < frame + 4 ? 4.0f : -4.0f;
}

static void run_frame_graph(int frame, float* classes, float* objectness, float* kernels,
                            float* mask_logits) {
  for (int i = 0; i < N * C; ++i) classes[i] = i == 1 ? 5.0f : -5.0f;
  for (int i = 0; i < N; ++i) objectness[i] = i == 0 ? 5.0f : -5.0f;
  for (int i = 0; i < N * D; ++i) kernels[i] = i == 2 ? 1.0f : 0.0f;
  draw(frame, mask_logits);
  draw(frame, mask_logits + H * W);
}

static void run_mask_head_graph(int frame, const float* kernels, int n, float* mask_logits) {
  for (int i = 0; i < n; ++i) draw(kernels[D * i] == 0.0f ? frame : 0, mask_logits + i * H * W);
}

int main(void) {
  static float classes[N * C], objectness[N], kernels[N * D], mask_logits[N * H * W];
  mobileinst_track_options options;
  mobileinst_track_defaults(&options);
  options.queries = N, options.classes = C, options.kernel_width = D;
  options.mask_height = H, options.mask_width = W;

  mobileinst_tracker* tracker;
  check(mobileinst_track_create(&options, &tracker));
  for (int frame = 0; frame < FRAMES; ++frame) {
    if (mobileinst_track_wants_keyframe(tracker)) {
      run_frame_graph(frame, classes, objectness, kernels, mask_logits);
      check(mobileinst_track_keyframe(tracker, classes, objectness, kernels, mask_logits));
    } else {
      int32_t n;
      const float* live = mobileinst_track_live_kernels(tracker, &n);
      if (n > 0) run_mask_head_graph(frame, live, n, mask_logits);
      check(mobileinst_track_reuse(tracker, mask_logits));
    }
    for (int i = 0; i < mobileinst_track_count(tracker); ++i) {
      mobileinst_track_instance found;
      mobileinst_track_rle mask;
      check(mobileinst_track_get(tracker, i, &found));
      check(mobileinst_track_mask(tracker, i, &mask));
      printf("frame %d: #%lld class %d %.2f %s\n", frame, (long long)found.id, found.class_index,
             found.score, mask.counts);
    }
  }
  mobileinst_track_destroy(tracker);
  return 0;
}
