#pragma once

namespace dsmoe {

constexpr int kExitFailed = 1;    ///< the run failed
constexpr int kExitBadInput = 2;  ///< an argument, file or key that cannot be used
constexpr int kExitStopped = 75;  ///< a stop was asked for; what was done is kept

}  // namespace dsmoe
