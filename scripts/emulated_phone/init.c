// The first process of the emulated phone: it makes the phone's root the only one, starts adbd, buries orphans, gives the phone its own cores, and plays its
// timeline of clocks and temperatures.
//
//   init ROOT CORES_MASK PIN TIMELINE PROGRAM [ARGUMENT...]
//
// The host's kernel would refuse to pin a thread to core 7 of a two-core host. So sched_setaffinity, sched_getaffinity and getcpu of every
// process in the phone come here (seccomp user notification) and are answered for the cores that the profile describes. Nothing else is
// intercepted. PIN is "allow" or "refuse".
// TIMELINE is a file of lines "CLOCK SECONDS PATH VALUE"; CLOCK is "boot" or "load", the latter starting when something first pins itself.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PINS 1024
#define EVENTS 256

static struct { int tid; uint64_t mask; } pins[PINS];
static unsigned next_pin;
static struct { int load, done; double at; char path[256], value[256]; } events[EVENTS];
static int n_events;
static uint64_t cores;
static int refuse;
static double boot, load = -1;

static void die(const char *what) { perror(what); _exit(1); }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void read_timeline(const char *path) {
  FILE *f = fopen(path, "r");
  char clock[8];
  if (!f) die(path);
  while (n_events < EVENTS && fscanf(f, "%7s %lf %255s %255[^\n]", clock, &events[n_events].at, events[n_events].path, events[n_events].value) == 4)
    events[n_events++].load = strcmp(clock, "load") == 0;
  fclose(f);
}

static void play_timeline(void) {
  for (int i = 0; i < n_events; i++) {
    double start = events[i].load ? load : boot;
    FILE *f;
    if (events[i].done || start < 0 || now() - start < events[i].at) continue;
    events[i].done = 1;
    if (!(f = fopen(events[i].path, "w"))) { perror(events[i].path); continue; }
    fprintf(f, "%s\n", events[i].value);
    fclose(f);
  }
}

// Leaves the host's root for good. A chroot would leave it in reach, through /proc/1/root for one, and a program that forgot a library could find it
// in the host's own folders for arm64.
static void enter(const char *root) {
  // How aarch64 programs are run is forgotten with the last mount of this; an open folder keeps it.
  if (open("/proc/sys/fs/binfmt_misc", O_PATH | O_CLOEXEC) < 0) die("binfmt_misc");
  if (chdir(root) || syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
  if (umount2(".", MNT_DETACH) || chdir("/")) die("umount");
}

static int intercept(void) {
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_getaffinity, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getcpu, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
  int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (fd < 0) die("seccomp");
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

static int memory_of(int tid, uint64_t address, void *data, size_t size, int write_it) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", tid);
  int fd = open(path, (write_it ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t done = write_it ? pwrite(fd, data, size, address) : pread(fd, data, size, address);
  close(fd);
  return done == (ssize_t)size ? 0 : -1;
}

static uint64_t mask_of(int tid) {
  for (unsigned i = 0; i < PINS; i++)
    if (pins[i].tid == tid) return pins[i].mask;
  return cores;
}

static void pin(int tid, uint64_t mask) {
  unsigned i = 0;
  while (i < PINS && pins[i].tid != tid) i++;
  if (i == PINS) i = next_pin++ % PINS;
  pins[i].tid = tid;
  pins[i].mask = mask;
}

// The value the system call returns: a negative errno, or its result.
static int64_t answer(const struct seccomp_notif *call) {
  const uint64_t *arg = (const uint64_t *)call->data.args;
  int tid = arg[0] ? (int)arg[0] : (int)call->pid;
  uint64_t mask = 0;
  switch (call->data.nr) {
  case SYS_sched_setaffinity:
    if (memory_of(call->pid, arg[2], &mask, arg[1] < 8 ? arg[1] : 8, 0)) return -EFAULT;
    if (refuse) return -EPERM;
    if (!(mask &= cores)) return -EINVAL;
    pin(tid, mask);
    if (load < 0) load = now();
    return 0;
  case SYS_sched_getaffinity:
    if (arg[1] < 8 || arg[1] % 8) return -EINVAL;
    mask = mask_of(tid);
    return memory_of(call->pid, arg[2], &mask, 8, 1) ? -EFAULT : 8;
  default: {  // getcpu
    uint32_t cpu = __builtin_ctzll(mask_of(call->pid)), node = 0;
    if (arg[0] && memory_of(call->pid, arg[0], &cpu, 4, 1)) return -EFAULT;
    if (arg[1] && memory_of(call->pid, arg[1], &node, 4, 1)) return -EFAULT;
    return 0;
  }
  }
}

static void serve(int fd) {
  struct seccomp_notif call;
  struct seccomp_notif_resp reply;
  memset(&call, 0, sizeof call);  // the kernel insists
  if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &call)) return;  // the caller died meanwhile
  int64_t value = answer(&call);
  memset(&reply, 0, sizeof reply);
  reply.id = call.id;
  if (value < 0) reply.error = (int32_t)value; else reply.val = value;
  ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  cores = strtoull(argv[2], NULL, 16);
  refuse = strcmp(argv[3], "refuse") == 0;
  read_timeline(argv[4]);
  enter(argv[1]);
  boot = now();
  int fd = intercept();
  pid_t adbd = fork();
  if (adbd < 0) die("fork");
  if (adbd == 0) {
    execv(argv[5], argv + 5);
    die(argv[5]);
  }
  for (;;) {
    struct pollfd wait_for = {fd, POLLIN, 0};
    int status;
    pid_t dead;
    play_timeline();
    if (poll(&wait_for, 1, 50) > 0) serve(fd);
    while ((dead = waitpid(-1, &status, WNOHANG)) > 0)
      if (dead == adbd) return 1;
  }
}
