#pragma once

#include "cli/command_line.h"
#include "data/text_reader.h"

namespace dsmoe {

/// What an option that names texts accepts, for its help.
constexpr const char* kTextHelp =
    "text or JSON lines (.jsonl, .ndjson, .json), also as gzip (.gz) or zstd (.zst)";

/// Adds --field and --separator; they make sense with `texts` only.
void add_text_options(Command& command, TextFormat& format, Option texts);

}  // namespace dsmoe
