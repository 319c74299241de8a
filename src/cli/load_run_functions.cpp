#include <dlfcn.h>
#include <fmt/format.h>

#include <string_view>

#include "cli/command_layout.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/process_setup.h"

namespace dsmoe {
namespace {

const RunFunctions& load() {
  const auto path = program_directory() + "/dsmoe_commands.so";
  const auto fail = [&](const char* reason) {
    throw RunError(fmt::format("'{}' cannot be loaded: {}; build or install dsmoe again",
                               path,
                               reason == nullptr ? "unknown reason" : reason));
  };
  use_passive_waiting();
  // Global: dsmoe_cuda.so takes the symbols it uses from here.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) fail(dlerror());
  const auto* functions = static_cast<const RunFunctions*>(dlsym(library, "dsmoe_run_functions"));
  if (functions == nullptr) fail(dlerror());
  const bool is_of_build = std::string_view(functions->version) == DSMOE_VERSION &&
                           functions->layout == command_layout();
  if (!is_of_build) fail("it is of another build");
  return *functions;
}

}  // namespace

const RunFunctions& run_functions() {
  static const RunFunctions& functions = load();
  return functions;
}

}  // namespace dsmoe
