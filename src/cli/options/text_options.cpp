#include "cli/options/text_options.h"

namespace dsmoe {

void add_text_options(Command& command, TextFormat& format, Option texts) {
  command
      .option("--field",
              format.field,
              "key of the text in JSON lines (default: text); reads as JSON lines any file whose "
              "first line is an object")
      .needs(texts);
  command
      .option("--separator",
              format.separator,
              "stands between the documents of plain text (default: <|endoftext|>; empty: each "
              "file is one document)")
      .needs(texts);
}

}  // namespace dsmoe
