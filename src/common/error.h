#pragma once

#include <stdexcept>
#include <string>

namespace dsmoe {

/// Bad input from outside: a file, a config key, a command-line argument. The program exits with 2.
/// The text reads `who: expected what, got what; what to do, if known`, on one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A run that started well and failed: a non-finite loss, a full disk. The program exits with 1.
class RunError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace dsmoe
