#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsmoe {

/// Unicode's normalization form C as Hugging Face's normalizer NFC gives it, of valid UTF-8.
std::string to_nfc(std::string_view text);

/// True if NFC of a text that has `code` at some place is NFC of what is before the place, then NFC
/// of the rest.
bool begins_nfc_segment(uint32_t code);

}  // namespace dsmoe
