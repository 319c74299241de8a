#pragma once

namespace dsmoe {

constexpr int kExitFailed = 1;    ///< the run failed
constexpr int kExitBadInput = 2;  ///< an argument, file or key that cannot be used
constexpr int kExitStopped = 75;  ///< stopped by a signal; finished work is kept

}  // namespace dsmoe
