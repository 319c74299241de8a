#pragma once

#include <string>
#include <string_view>

#include "cli/command_line.h"
#include "data/text_reader.h"

namespace dsmoe {

/// What an option that names texts accepts, for its help.
constexpr const char* kTextHelp =
    "text or JSON lines (.jsonl, .ndjson, .json), also as gzip (.gz) or zstd (.zst); - reads "
    "standard input";

/// Adds --field and --separator; they make sense with `texts` only.
void add_text_options(Command& command, TextFormat& format, Option texts);

/// Help of an option that names token shards or texts: `verb token shards, or a file of ...`.
std::string text_help(std::string_view verb);

}  // namespace dsmoe
