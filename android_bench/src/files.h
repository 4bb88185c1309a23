// Files as whole byte strings: read with a limit, written so that no reader ever sees half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mobileinst {

// Throws Failure(files) when the file cannot be read or holds more than `limit` bytes.
std::vector<std::uint8_t> read_file(const std::string& path, std::size_t limit);

// A file too large for memory, read piece by piece.
class FileReader {
 public:
  // Reads the file through once. Throws Failure(files) unless it has this size and CRC-32.
  FileReader(const std::string& path, std::size_t size, std::uint32_t crc);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // Fills the buffer with the next bytes. Throws Failure(files).
  void read(std::vector<std::uint8_t>& buffer);

 private:
  std::string path_;
  int file_;
};

// Writes beside the target, then renames. Throws Failure(files).
void write_file(const std::string& path, const void* data, std::size_t size);

// Makes the folder where it is missing; its parent must exist. Throws Failure(files).
void make_folder(const std::string& path);

// CRC-32 as in zlib and PNG; `before` is that of what came before.
std::uint32_t crc32(const void* data, std::size_t size, std::uint32_t before = 0);

// Eight lower-case hex digits.
std::string hex(std::uint32_t value);

}  // namespace mobileinst
