/* An app's loop around the C tracker that looks at every status. The graphs' outputs come from a
 * file that examples/app_loop.py --record wrote, in the place of the app's own inference calls:
 *
 *   nine int32: H W of the network's input, N queries, C classes, D kernel width, height and width
 *   of the pictures, T, number of frames; then float32 for each frame in turn: on a keyframe the
 *   frame graph's class_logits (N,C), objectness_logits (N,1), kernels (N,D), mask_logits (N,H/8,W/8);
 *   else the mask-head graph's mask_logits (n,H/8,W/8) for the n live kernels.
 *
 *   cc -std=c11 -Iandroid_bench/include -c examples/app_loop.c
 *   c++ app_loop.o libmobileinst_track.a -o app_loop
 *   ./app_loop RECORD [SCORE]
 *
 * It prints "mask FRAME ID HEIGHT WIDTH COUNTS" for each instance that is seen in a frame, and after
 * each keyframe "track ID CLASS SCORE" for each track that it saw. */
#include <stdio.h>
#include <stdlib.h>

#include "mobileinst_track.h"

static const char* meaning(mobileinst_track_status status) {
  switch (status) {
    case MOBILEINST_TRACK_OK: return "done";
    case MOBILEINST_TRACK_BAD_ARGUMENT: return "an argument or an option is out of range";
    case MOBILEINST_TRACK_NO_KEYFRAME: return "a reuse frame came before the first keyframe";
    case MOBILEINST_TRACK_NOT_FINITE: return "a graph gave NaN or infinity";
    case MOBILEINST_TRACK_BAD_STATE: return "a saved state is damaged";
    case MOBILEINST_TRACK_TOO_SMALL: return "a buffer is too small";
    case MOBILEINST_TRACK_OUT_OF_MEMORY: return "out of memory";
  }
  return "an unknown status";
}

/* 1 when all is well, else 0 and a sentence. */
static int good(mobileinst_track_status status) {
  if (status != MOBILEINST_TRACK_OK) fprintf(stderr, "app_loop: %s\n", meaning(status));
  return status == MOBILEINST_TRACK_OK;
}

typedef struct {
  float *classes, *objectness, *kernels, *masks;
  size_t n_classes, n_objectness, n_kernels, n_masks; /* values of each */
} frame_outputs;

/* What the app does with its own runtime: make `image` from the picture and run the frame graph. */
static int run_frame_graph(FILE* record, const frame_outputs* out) {
  return fread(out->classes, sizeof(float), out->n_classes, record) == out->n_classes &&
         fread(out->objectness, sizeof(float), out->n_objectness, record) == out->n_objectness &&
         fread(out->kernels, sizeof(float), out->n_kernels, record) == out->n_kernels &&
         fread(out->masks, sizeof(float), out->n_masks, record) == out->n_masks;
}

/* Likewise the mask-head graph, on this frame's image and the live kernels. */
static int run_mask_head_graph(FILE* record, const float* kernels, size_t values, float* masks) {
  (void)kernels; /* the recorded outputs are those for these kernels */
  return fread(masks, sizeof(float), values, record) == values;
}

static int follow_frame(FILE* record, mobileinst_tracker* tracker, const frame_outputs* out,
                        size_t pixels) {
  if (mobileinst_track_wants_keyframe(tracker)) {
    if (!run_frame_graph(record, out)) return 0;
    return good(mobileinst_track_keyframe(tracker, out->classes, out->objectness, out->kernels,
                                          out->masks));
  }
  int32_t live;
  const float* kernels = mobileinst_track_live_kernels(tracker, &live);
  if (live > 0 && !run_mask_head_graph(record, kernels, (size_t)live * pixels, out->masks))
    return 0;
  return good(mobileinst_track_reuse(tracker, out->masks));
}

static int tell_frame(mobileinst_tracker* tracker, int32_t frame) {
  mobileinst_track_instance instance;
  for (int32_t i = 0; i < mobileinst_track_count(tracker); ++i) {
    mobileinst_track_rle mask;
    if (!good(mobileinst_track_get(tracker, i, &instance))) return 0;
    if (!good(mobileinst_track_mask(tracker, i, &mask))) return 0;
    if (mask.area == 0) continue; /* not seen in this frame */
    printf("mask %d %lld %d %d %s\n", frame, (long long)instance.id, mask.height, mask.width,
           mask.counts);
  }
  if (mobileinst_track_since(tracker) > 0) return 1;
  for (int32_t i = 0; i < mobileinst_track_seen_count(tracker); ++i) {
    if (!good(mobileinst_track_seen(tracker, i, &instance))) return 0;
    printf("track %lld %d %.17g\n", (long long)instance.id, instance.class_index, instance.score);
  }
  return 1;
}

static float* values(size_t count) { return malloc(count * sizeof(float)); }

int main(int argc, char** argv) {
  int32_t head[9];
  FILE* record = argc > 1 ? fopen(argv[1], "rb") : NULL;
  if (record == NULL || fread(head, sizeof head, 1, record) != 1) {
    fprintf(stderr, "app_loop: give a file that app_loop.py --record wrote\n");
    return 2;
  }
  mobileinst_track_options options;
  mobileinst_track_defaults(&options);
  options.mask_height = head[0] / 8, options.mask_width = head[1] / 8;
  options.queries = head[2], options.classes = head[3], options.kernel_width = head[4];
  options.clip_length = head[7];
  if (argc > 2) options.score = atof(argv[2]);
  mobileinst_tracker* tracker = NULL;
  /* create refuses sizes that are out of range, so what is computed from them below is in range. */
  int fine = good(mobileinst_track_fit(&options, head[5], head[6])) &&
             good(mobileinst_track_create(&options, &tracker));
  if (fine) {
    const size_t n = (size_t)head[2], pixels = (size_t)options.mask_height * options.mask_width;
    frame_outputs out = {.n_classes = n * head[3], .n_objectness = n, .n_kernels = n * head[4],
                         .n_masks = n * pixels};
    out.classes = values(out.n_classes), out.objectness = values(out.n_objectness);
    out.kernels = values(out.n_kernels), out.masks = values(out.n_masks);
    fine = out.classes && out.objectness && out.kernels && out.masks;
    for (int32_t frame = 0; fine && frame < head[8]; ++frame)
      fine = follow_frame(record, tracker, &out, pixels) && tell_frame(tracker, frame);
    if (!fine) fprintf(stderr, "app_loop: ended early\n");
    free(out.classes), free(out.objectness), free(out.kernels), free(out.masks);
  }
  mobileinst_track_destroy(tracker);
  fclose(record);
  return fine ? 0 : 1;
}
