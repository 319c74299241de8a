#pragma once
// Empty: clang 19 asks for this header, which CUDA 13 no longer has.
