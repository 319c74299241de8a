// The one main of all test programs. Catch's signal handlers would hide sanitizer reports.
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
