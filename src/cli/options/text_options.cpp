#include "cli/options/text_options.h"

#include <fmt/format.h>

namespace dsmoe {

void add_text_options(Command& command, TextFormat& format, Option texts) {
  command
      .option("--field",
              format.field,
              "take the text of JSON lines from this key; reads as JSON lines any file whose first "
              "line is an object")
      .default_text("text")
      .needs(texts);
  command
      .option("--separator",
              format.separator,
              "cut plain text into documents at this text; empty: each file is one document")
      .needs(texts);
}

std::string text_help(std::string_view verb) {
  return fmt::format("{} token shards, or a file of {}", verb, kTextHelp);
}

}  // namespace dsmoe
