#pragma once

#include <string>

namespace dsmoe {

/// Returns a whole number with its digits in groups: `1,751,744`. A fraction is rounded.
std::string group_thousands(double value);

}  // namespace dsmoe
