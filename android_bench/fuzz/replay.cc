// In libFuzzer's place where only a corpus is to be gone through: every file named is one input.
#include <cstdio>

#include "../src/files.h"
#include "bytes.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const auto input = mobileinst::read_file(argv[i], 1 << 24);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%d inputs\n", argc - 1);
}
