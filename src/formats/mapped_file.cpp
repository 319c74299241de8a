#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/error.h"

namespace dsmoe {

MappedFile::MappedFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd >= 0 && ::fstat(fd, &status) == 0 && status.st_size > 0) {
    size_ = static_cast<uint64_t>(status.st_size);
    void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping != MAP_FAILED) data_ = static_cast<const std::byte*>(mapping);
  }
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  if (data_ == nullptr) {
    throw Error(fmt::format(
        "{}: expected a file to map into memory, got: {}", path, std::strerror(reason)));
  }
  ::madvise(const_cast<std::byte*>(data_), size_, MADV_SEQUENTIAL);
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), size_); }

void MappedFile::release(const void* begin, size_t size_bytes) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(begin) + size_bytes) / page * page;
  if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

}  // namespace dsmoe
