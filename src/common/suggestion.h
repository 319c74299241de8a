#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// Returns the word that a misspelt one was probably meant to be, or an empty text: one that begins
/// with the given word or the other way round, or the nearest one within a third of its letters.
/// Case, dashes and underscores do not count.
std::string nearest_word(const std::string& given, const std::vector<std::string>& words);

/// Insertions, deletions and replacements that make one text of the other; a swap of neighbours
/// counts once.
size_t typing_distance(const std::string& a, const std::string& b);

/// Returns `; did you mean '--stop'?`, or an empty text where no word is near.
std::string did_you_mean(const std::string& given, const std::vector<std::string>& words);

/// Returns `a, b or c`.
std::string join_or(const std::vector<std::string>& words);

}  // namespace dsmoe
