// In the place of TNN's test program: hands its own words to the script that a test has put on the
// phone. The script's $1 is this program's path, so that what looks for runners finds it.
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char *words[64] = {"sh", "/data/local/tmp/behaviour.sh"};
  for (int i = 0; i < argc && i < 61; ++i) words[2 + i] = argv[i];
  setenv("LD_LIBRARY_PATH", "/system/lib64", 1);  // where the phone's own programs find theirs
  execv("/system/bin/sh", words);
  return 120;
}
