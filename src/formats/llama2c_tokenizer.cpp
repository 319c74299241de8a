#include "formats/llama2c_tokenizer.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr size_t kFirstByte = 3;
constexpr size_t kNumBytes = 256;
constexpr int32_t kMaxTokenBytes = 4096;

[[noreturn]] void fail(const std::string& source_name, const std::string& what) {
  throw Error(fmt::format("{}: expected a llama2.c tokenizer: {}", source_name, what));
}

template <class T>
T take(std::string_view& rest, const std::string& source_name) {
  T value;
  if (rest.size() < sizeof(value)) fail(source_name, "it is cut off");
  std::memcpy(&value, rest.data(), sizeof(value));
  rest.remove_prefix(sizeof(value));
  return value;
}

}  // namespace

std::vector<Llama2cToken> parse_llama2c_tokenizer(std::string_view bytes,
                                                  const std::string& source_name) {
  auto rest = bytes;
  const auto longest = take<int32_t>(rest, source_name);
  if (longest < 1 || longest > kMaxTokenBytes) {
    fail(source_name, fmt::format("the longest token has {} bytes", longest));
  }
  std::vector<Llama2cToken> tokens;
  while (!rest.empty()) {
    const auto score = take<float>(rest, source_name);
    const auto length = take<int32_t>(rest, source_name);
    if (length < 1 || length > longest || static_cast<size_t>(length) > rest.size() ||
        !std::isfinite(score)) {
      fail(source_name, fmt::format("token {} has {} bytes", tokens.size(), length));
    }
    tokens.push_back({std::string(rest.substr(0, static_cast<size_t>(length))), score});
    rest.remove_prefix(static_cast<size_t>(length));
  }
  if (tokens.size() < kFirstByte + kNumBytes) {
    fail(source_name, fmt::format("it has {} tokens", tokens.size()));
  }
  for (size_t byte = 0; byte < kNumBytes; ++byte) {
    const auto& text = tokens[kFirstByte + byte].text;
    if (text != fmt::format("<0x{:02X}>", byte)) {
      fail(source_name, fmt::format("token {} is '{}', not a byte", kFirstByte + byte, text));
    }
  }
  return tokens;
}

}  // namespace dsmoe
