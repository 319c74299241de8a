#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsmoe {

/// Returns Unicode's normalization form C of valid UTF-8, as Hugging Face's normalizer NFC does.
std::string to_nfc(std::string_view text);

/// Returns whether NFC(a + b) is NFC(a) + NFC(b) for every text a and every text b that begins with
/// `code`.
bool begins_nfc_segment(uint32_t code);

}  // namespace dsmoe
