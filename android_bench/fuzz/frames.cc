// Packed frames: a file of any size and content, read against any promise of size and CRC-32, gives
// its own bytes or a Failure of the kind `files`.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "../src/failure.h"
#include "../src/files.h"
#include "bytes.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Bytes bytes(data, size);
  const int shift = bytes.take<std::int8_t>(), frame = bytes.between(1, 64);
  const bool honest = bytes.take<std::uint8_t>() % 2 == 0;
  const auto said = bytes.take<std::uint32_t>();
  const auto content = bytes.rest();
  static const int file = ::memfd_create("frames", MFD_CLOEXEC);
  fuzz::demand(file >= 0 && ::ftruncate(file, 0) == 0);
  fuzz::demand(::pwrite(file, content.data(), content.size(), 0) ==
               static_cast<ssize_t>(content.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  const auto promised = static_cast<std::size_t>(
      std::max<std::int64_t>(0, static_cast<std::int64_t>(content.size()) + shift / 32));
  const auto crc = mobileinst::crc32(content.data(), content.size());
  try {
    mobileinst::FileReader reader(path, promised, honest ? crc : said);
    fuzz::demand(promised == content.size() && (honest || said == crc));
    std::vector<std::uint8_t> all, piece(static_cast<std::size_t>(frame));
    for (; all.size() + piece.size() <= content.size();) {
      reader.read(piece);
      all.insert(all.end(), piece.begin(), piece.end());
    }
    fuzz::demand(std::equal(all.begin(), all.end(), content.begin()));
    reader.read(piece);  // beyond the end: a Failure
    fuzz::demand(false);
  } catch (const mobileinst::Failure& failure) {
    fuzz::demand(failure.kind == mobileinst::Kind::files);
  }
  return 0;
}
