#pragma once

#include <span>

#include "common/config_reader.h"

namespace dsmoe {

/// Names of nanoGPT, litgpt, Hugging Face, Megatron, torchtitan and llama.cpp, with the key that
/// each means here. read_run_config reads them.
std::span<const KeyAlias> run_config_aliases();

/// Sections of such programs, and sections of a run that are written at another level.
std::span<const SectionAlias> run_config_section_aliases();

}  // namespace dsmoe
