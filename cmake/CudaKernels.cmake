# nvcc, and how its files are compiled: for data centre GPUs from A100 on; others compile the last one's PTX when they
# first run it.
set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 100-virtual CACHE STRING "GPUs to compile kernels for")
set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}" CACHE FILEPATH "nvcc")
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25 does not know that nvcc 13 has C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# dsmoe_add_cuda_kernels(NAME file...): an object library of kernels and launchers over raw pointers, without torch.
function(dsmoe_add_cuda_kernels name)
  add_library(${name} OBJECT ${ARGN})
  target_include_directories(${name} PRIVATE
    "${CMAKE_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}/src" ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_options(${name} PRIVATE
    -lineinfo -Xcompiler=-fPIC,-Wall,-Wextra "SHELL:-Werror all-warnings"
    -Xptxas=--warn-on-local-memory-usage,--warn-on-spills,-Werror)
endfunction()
