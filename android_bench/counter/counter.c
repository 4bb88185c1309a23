// Counts the guest instructions that qemu executes, and writes the count down wherever the program
// asks for it.
//
// The program asks by prctl(0x6d61726b, k), which every kernel answers with EINVAL and this plugin
// with the line "mark K COUNT". At the end comes "end COUNT". With kinds=on each mark is followed by
// a line "kinds K NAME=COUNT ...", whose counts, of kinds.h, add up to the mark's. Instructions are
// added once per executed translation block, inlined by qemu, so that counting costs little. Usage:
// qemu-aarch64 -plugin libcounter.so,out=FILE[,kinds=on] PROGRAM. One guest thread: with more, the
// additions would race.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kinds.h"
#include "qemu_plugin_api.h"

enum { PRCTL = 167, MARK = 0x6d61726b };  // the system call's number on aarch64

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static uint64_t executed, of_kind[KINDS];
static int kinds_wanted;
static FILE* out;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const size_t length = qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &executed, length);
  if (!kinds_wanted) return;
  uint64_t here[KINDS] = {0};
  for (size_t i = 0; i < length; i++) {
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof code);
    here[kind_of(code)]++;
  }
  for (int k = 0; k < KINDS; k++) {
    if (here[k] > 0)
      qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &of_kind[k],
                                               here[k]);
  }
}

static void write_kinds(uint64_t mark) {
  fprintf(out, "kinds %" PRIu64, mark);
  for (int k = 0; k < KINDS; k++) fprintf(out, " %s=%" PRIu64, kind_names[k], of_kind[k]);
  fprintf(out, "\n");
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1,
                       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                       uint64_t a8) {
  (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != PRCTL || a1 != MARK) return;
  fprintf(out, "mark %" PRIu64 " %" PRIu64 "\n", a2, executed);
  if (kinds_wanted) write_kinds(a2);
}

static void on_end(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  fprintf(out, "end %" PRIu64 "\n", executed);
  fclose(out);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc,
                                           char** argv) {
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0) out = fopen(argv[i] + 4, "we");
    kinds_wanted |= strcmp(argv[i], "kinds=on") == 0;
  }
  if (out == NULL) {
    fprintf(stderr, "counter: out=FILE is missing or cannot be written\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  qemu_plugin_register_atexit_cb(id, on_end, NULL);
  return 0;
}
