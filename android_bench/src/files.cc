#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"

namespace mobileinst {
namespace {

[[noreturn]] void fail(const std::string& path, const char* verb, int error) {
  throw Failure(Kind::files, path + " cannot be " + verb + ": " + std::strerror(error));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int close() {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd);
  }

 private:
  int fd_;
};

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0xedb88320U : 0U);
    table[i] = value;
  }
  return table;
}

}  // namespace

std::vector<std::uint8_t> read_file(const std::string& path, std::size_t limit) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) fail(path, "opened", errno);
  struct stat about{};
  if (::fstat(file.get(), &about) != 0) fail(path, "read", errno);
  if (!S_ISREG(about.st_mode)) throw Failure(Kind::files, path + " is not a regular file");
  const auto size = static_cast<std::size_t>(about.st_size);
  if (size > limit) {
    throw Failure(Kind::files, path + " holds " + std::to_string(size) + " bytes, more than " +
                                   std::to_string(limit));
  }
  std::vector<std::uint8_t> data(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.get(), data.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, "read", errno);
    if (got == 0) throw Failure(Kind::files, path + " became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
  return data;
}

FileReader::FileReader(const std::string& path, std::size_t size, std::uint32_t crc)
    : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (file_ < 0) fail(path_, "opened", errno);
  try {
    struct stat about{};
    if (::fstat(file_, &about) != 0) fail(path_, "read", errno);
    if (static_cast<std::size_t>(about.st_size) != size || !S_ISREG(about.st_mode)) {
      throw Failure(Kind::files, path_ + " holds " + std::to_string(about.st_size) +
                                     " bytes instead of " + std::to_string(size));
    }
    std::vector<std::uint8_t> piece;
    std::uint32_t found = 0;
    for (std::size_t done = 0; done < size; done += piece.size()) {
      piece.resize(std::min(size - done, std::size_t{1} << 20));
      read(piece);
      found = crc32(piece.data(), piece.size(), found);
    }
    if (found != crc) throw Failure(Kind::files, path_ + " differs from its CRC-32");
    if (::lseek(file_, 0, SEEK_SET) != 0) fail(path_, "read", errno);
  } catch (const Failure&) {
    ::close(file_);
    throw;
  }
}

FileReader::~FileReader() { ::close(file_); }

void FileReader::read(std::vector<std::uint8_t>& buffer) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got = ::read(file_, buffer.data() + done, buffer.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "read", errno);
    if (got == 0) throw Failure(Kind::files, path_ + " became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
}

void write_file(const std::string& path, const void* data, std::size_t size) {
  const std::string part = path + ".part";
  Descriptor file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0) fail(path, "written", errno);
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t put = ::write(file.get(), bytes + done, size - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      const int error = errno;
      ::unlink(part.c_str());
      fail(path, "written", error);
    }
    done += static_cast<std::size_t>(put);
  }
  if (file.close() != 0 || ::rename(part.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(part.c_str());
    fail(path, "written", error);
  }
}

void make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return;
  const int error = errno;
  struct stat about{};
  if (::stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode)) return;
  fail(path, "made", error);
}

std::uint32_t crc32(const void* data, std::size_t size, std::uint32_t before) {
  static constexpr auto table = crc_table();
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  std::uint32_t value = before ^ 0xffffffffU;
  for (std::size_t i = 0; i < size; ++i) value = table[(value ^ bytes[i]) & 0xffU] ^ (value >> 8);
  return value ^ 0xffffffffU;
}

std::string hex(std::uint32_t value) {
  char digits[9];
  std::snprintf(digits, sizeof digits, "%08x", static_cast<unsigned>(value));
  return digits;
}

}  // namespace mobileinst
