/* Tracks instances through a clip: kernel reuse and kernel association (MobileInst, arXiv
 * 2303.17594, 3.4 and 3.5).
 *
 * It runs no network. The caller runs the frame graph on keyframes and the mask-head graph on the
 * frames between them, with whatever runtime it likes, and feeds the outputs; the tracker says
 * which frame is a keyframe, which kernels are live, and who is where. examples/track_example.c
 * shows the loop, and examples/app_loop.c beside the README a whole app's.
 *
 * The rules, thresholds and results are those of mobileinst_deploy/core/tracker.py. Arrays are dense,
 * float32, in C order. One tracker belongs to one thread at a time; several trackers do not know of
 * each other. No function throws, prints or ends the process.
 *
 * From a picture to the graphs' input `image`, for an input of H x W pixels:
 *   1. The picture is h0 x w0 pixels, 8-bit RGB, upright (EXIF rotation, a clip's display matrix).
 *   2. scale = min(H / h0, W / w0) in double: the aspect is kept.
 *   3. The content is min(max(1, rint(side * scale)), input side) pixels, each side for itself;
 *      rint takes halves to the even neighbour.
 *   4. Resize to the content: not at all where it has that size; by area (OpenCV's INTER_AREA) where
 *      scale < 1; else bilinearly with pixel centres at halves (INTER_LINEAR).
 *   5. Place it at the top left; fill the right and the bottom with RGB (124, 116, 104).
 *   6. image is (1,3,H,W) float32: planes R, G, B, values as they are, 0 to 255. The graphs
 *      normalise; subtract and divide nothing.
 * A mask-head graph of a fixed number of kernels gets zeros for the missing ones, and what they give
 * is dropped. With no live kernel it is not run.
 *
 * From outputs to instances, all of it done here:
 *   score = sqrt(sigmoid(largest class logit) * sigmoid(objectness logit)), in double.
 *   The picture's pixel (y, x) belongs to a mask where the mask logits (h,w), sampled bilinearly at
 *   row (y + 0.5) * (content height / h0) * (h / H) - 0.5 and the column likewise, are above 0; the
 *   outermost logits hold beyond the border.
 */
#ifndef MOBILEINST_TRACK_H
#define MOBILEINST_TRACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mobileinst_tracker mobileinst_tracker;

typedef enum {
  MOBILEINST_TRACK_OK = 0,
  MOBILEINST_TRACK_BAD_ARGUMENT = 1, /* a null pointer, an index or an option out of range */
  MOBILEINST_TRACK_NO_KEYFRAME = 2,  /* a reuse frame before the first keyframe */
  MOBILEINST_TRACK_NOT_FINITE = 3, /* NaN, or a value beyond 1e30 either way, in a graph's output;
                                      the frame was not taken */
  MOBILEINST_TRACK_BAD_STATE = 4, /* a saved state that is damaged or of another model */
  MOBILEINST_TRACK_TOO_SMALL = 5, /* the buffer does not hold what is to be saved */
  MOBILEINST_TRACK_OUT_OF_MEMORY = 6 /* the tracker may only be destroyed now */
} mobileinst_track_status;

typedef struct {
  int32_t queries;      /* N of the frame graph, 1 to 4096 */
  int32_t classes;      /* C, 1 to 65536 */
  int32_t kernel_width; /* D, 1 to 65536 */
  int32_t mask_height;  /* of the mask logits: input height / 8, 1 to 4096 */
  int32_t mask_width;   /* input width / 8, 1 to 4096 */
  /* The picture that masks are made for, 1 to 32768 pixels a side, and the content: how much of the
   * network input it fills from the top left once resized, in pixels. mobileinst_track_fit sets all
   * four. All four 0: masks have the size of the mask logits. */
  int32_t picture_height, picture_width;
  int32_t content_height, content_width;
  int32_t clip_length; /* T: a keyframe every T frames, 1 to 1000000; the most where automatic */
  double score; /* lowest score, 0 to 1, that starts a track and that a shown track keeps over its
                   keyframes */
  double keep;  /* lowest score that continues a track, as a share of `score`, 0 to 1 */
  double similarity;    /* lowest cosine, -1 to 1, of two kernels of one instance whose masks do not
                           overlap */
  double duplicate_iou; /* mask IoU, 0 to 1, from which the weaker of two queries is a duplicate */
  double overlap; /* added to the cosine for each unit of IoU with the track's mask in the frame
                     before, 0 to 10 */
  int32_t memory; /* keyframes that a hidden instance may miss before it is forgotten, from 0 up */
  int32_t remembered; /* keyframes over which a track's kernel is averaged, from 1 up */
  /* 1: a keyframe also comes when the scene asks for one, as with mobileinst run -T auto. Every
   * picture must then be shown to mobileinst_track_look, and the mask sizes be multiples of 4. */
  int32_t automatic;
  double change;    /* mean difference of brightness from the keyframe, 0 to 255, that asks */
  double certainty; /* share of the keyframe's mask certainty, 0 to 1, below which masks ask */
} mobileinst_track_options;

/* One track. Identities go from 1 up in order of birth; classes from 0; the score is that over all
 * keyframes so far. */
typedef struct {
  int64_t id;
  int32_t class_index;
  double score;
} mobileinst_track_instance;

/* COCO's compressed run lengths: column by column, zeros first. `counts` ends with a NUL and lives
 * until the next frame is fed or a state is loaded. */
typedef struct {
  int32_t height, width;
  const char* counts;
  size_t length; /* of counts, without the NUL */
  int64_t area;  /* pixels of the mask; 0: the instance is not seen in this frame */
} mobileinst_track_rle;

/* Fills in everything but the sizes: T = 3, not automatic, and the settings that mobileinst run
 * has. With `automatic`, that command's T is 6. */
void mobileinst_track_defaults(mobileinst_track_options* options);

/* Sets the picture and its content, points 2 and 3 above, for the mask sizes that the options have
 * by then. */
mobileinst_track_status mobileinst_track_fit(mobileinst_track_options* options,
                                             int32_t picture_height, int32_t picture_width);

mobileinst_track_status mobileinst_track_create(const mobileinst_track_options* options,
                                                mobileinst_tracker** tracker);
void mobileinst_track_destroy(mobileinst_tracker* tracker); /* null is fine */

/* Shows the coming picture to the schedule: (H,W,3) bytes, RGB, of the network input's size, as it is
 * before it becomes the graphs' input. Cheap, and needed only where the options say automatic. */
mobileinst_track_status mobileinst_track_look(mobileinst_tracker* tracker, const uint8_t* picture);

/* 1 when the schedule asks for a keyframe next, else 0. The caller may feed a keyframe earlier,
 * never a reuse frame first. */
int mobileinst_track_wants_keyframe(const mobileinst_tracker* tracker);

/* Frames between the latest keyframe and the frame fed last, 0 when that was one; -1 before the
 * first keyframe. */
int64_t mobileinst_track_since(const mobileinst_tracker* tracker);

/* Feeds a keyframe: class_logits (N,C), objectness_logits (N,1), kernels (N,D), mask_logits
 * (N,h,w). */
mobileinst_track_status mobileinst_track_keyframe(mobileinst_tracker* tracker,
                                                  const float* class_logits,
                                                  const float* objectness_logits,
                                                  const float* kernels, const float* mask_logits);

/* The latest keyframe's kernels of the instances now shown, (n,D): the mask-head graph's input. They
 * live until the next keyframe is fed or a state is loaded. Null when n is 0: nothing to run. */
const float* mobileinst_track_live_kernels(const mobileinst_tracker* tracker, int32_t* n);

/* Feeds a reuse frame: mask_logits (n,h,w) for the n live kernels; may be null when n is 0. */
mobileinst_track_status mobileinst_track_reuse(mobileinst_tracker* tracker,
                                               const float* mask_logits);

/* The instances shown in the frame fed last, ascending identities, and the mask of each; a mask may
 * be empty on a reuse frame. */
int32_t mobileinst_track_count(const mobileinst_tracker* tracker);
mobileinst_track_status mobileinst_track_get(const mobileinst_tracker* tracker, int32_t index,
                                             mobileinst_track_instance* instance);
mobileinst_track_status mobileinst_track_mask(mobileinst_tracker* tracker, int32_t index,
                                              mobileinst_track_rle* mask);

/* The mask logits (h,w) of one instance in the frame fed last, until the next is fed; null for an
 * index out of range. */
const float* mobileinst_track_logits(const mobileinst_tracker* tracker, int32_t index);

/* Every track that the latest keyframe saw, also those whose score is too low to be shown. */
int32_t mobileinst_track_seen_count(const mobileinst_tracker* tracker);
mobileinst_track_status mobileinst_track_seen(const mobileinst_tracker* tracker, int32_t index,
                                              mobileinst_track_instance* instance);

/* Everything that the next frame depends on, as bytes for this machine's byte order: to go on
 * later, or in another process. A state may come from anybody: one that no tracker of these options
 * can have left is refused, and the tracker stays as it was. The mask logits of the frame fed last
 * are not part of it, only where its instances lie. `needed` is always set; with a null buffer
 * nothing else happens. */
mobileinst_track_status mobileinst_track_save(const mobileinst_tracker* tracker, void* buffer,
                                              size_t capacity, size_t* needed);
mobileinst_track_status mobileinst_track_load(mobileinst_tracker* tracker, const void* state,
                                              size_t size);

/* What removes duplicates from one picture's finds: nothing, SOLOv2's matrix, or boxes around masks. */
typedef enum {
  MOBILEINST_SUPPRESSION_NONE = 0,
  MOBILEINST_SUPPRESSION_MATRIX = 1,
  MOBILEINST_SUPPRESSION_BOX = 2
} mobileinst_suppression;

/* How a network's own evaluation scores a picture: `needs` in a pair's manifest says it. */
typedef struct {
  int32_t queries, classes;         /* as in mobileinst_track_options */
  int32_t mask_height, mask_width;  /* of the mask logits, at any stride */
  int32_t maskness;                 /* 1: times the mean probability inside the mask, else 0 */
  double mask_shift;                /* log((1 - mask_threshold) / mask_threshold); 0 where 0.5 */
  mobileinst_suppression suppression;
} mobileinst_scoring;

/* The scores (N,C) of one picture as the network's authors evaluate it, from a frame graph's
 * class_logits (N,C), objectness_logits (N,1) and mask_logits (N,h,w); 0 where a find is suppressed
 * or is none of the 500 strongest. The rules are those of mobileinst_deploy/core/suppression.py.
 * A tracker needs none of it: it keeps one instance an object by itself. */
mobileinst_track_status mobileinst_scores(const mobileinst_scoring* how, const float* class_logits,
                                          const float* objectness_logits, const float* mask_logits,
                                          double* scores);

#ifdef __cplusplus
}
#endif

#endif /* MOBILEINST_TRACK_H */
