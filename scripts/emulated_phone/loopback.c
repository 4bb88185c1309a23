// Preloaded into adbd, which listens on every address and asks nobody who they are: every listening socket moves to 127.0.0.1.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *address, socklen_t size) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (!real) real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
  if (address->sa_family == AF_INET && size >= sizeof(struct sockaddr_in)) {
    struct sockaddr_in local;
    memcpy(&local, address, sizeof local);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return real(fd, (const struct sockaddr *)&local, sizeof local);
  }
  if (address->sa_family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
    static const unsigned char mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    struct sockaddr_in6 local;
    memcpy(&local, address, sizeof local);
    memcpy(&local.sin6_addr, mapped, sizeof mapped);
    return real(fd, (const struct sockaddr *)&local, sizeof local);
  }
  if (address->sa_family == AF_UNIX) return real(fd, address, size);
  errno = EADDRNOTAVAIL;  // vsock and whatever comes next
  return -1;
}
