// Counts the guest instructions that qemu executes, and writes the count down wherever the program
// asks for it.
//
// The program asks by prctl(0x6d61726b, k), which every kernel answers with EINVAL and this plugin
// with the line "mark K COUNT". At the end comes "end COUNT". Instructions are added once per
// executed translation block, inlined by qemu, so that counting costs little. Usage: qemu-aarch64
// -plugin libcounter.so,out=FILE PROGRAM. One guest thread: with more, the additions would race.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qemu_plugin_api.h"

enum { PRCTL = 167, MARK = 0x6d61726b };  // the system call's number on aarch64

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static uint64_t executed;
static FILE* out;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &executed,
                                           qemu_plugin_tb_n_insns(block));
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1,
                       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                       uint64_t a8) {
  (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number == PRCTL && a1 == MARK) fprintf(out, "mark %" PRIu64 " %" PRIu64 "\n", a2, executed);
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
