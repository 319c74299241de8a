# LibTorch::cuda, the half of the wheel that needs CUDA: for the module dsmoe_cuda.so alone, no other target links it.
# Wants the CUDA 13.0 toolkit and `scripts/setup.sh --cuda`.
find_package(CUDAToolkit 13.0 REQUIRED)
foreach(_name torch_cuda c10_cuda)
  add_library(LibTorch::${_name} SHARED IMPORTED GLOBAL)
  set_target_properties(LibTorch::${_name} PROPERTIES
    IMPORTED_LOCATION "${DSMOE_TORCH_ROOT}/lib/lib${_name}.so")
endforeach()

# nccl.h is part of torch's binary interface: the wheel's where it is installed, else the toolkit's. The module asserts
# its version.
find_path(DSMOE_NCCL_INCLUDE_DIR nccl.h REQUIRED
  HINTS "${_site}/nvidia/nccl/include" ${CUDAToolkit_INCLUDE_DIRS} NO_DEFAULT_PATH)
set(_cuda_libraries "${CUDAToolkit_LIBRARY_DIR}")
foreach(_wheel cu13 cudnn nccl nvshmem cusparselt)
  if(IS_DIRECTORY "${_site}/nvidia/${_wheel}/lib")
    list(APPEND _cuda_libraries "${_site}/nvidia/${_wheel}/lib")
  endif()
endforeach()

add_library(LibTorch::cuda INTERFACE IMPORTED GLOBAL)
target_compile_definitions(LibTorch::cuda INTERFACE USE_C10D_NCCL)
target_include_directories(LibTorch::cuda SYSTEM INTERFACE "${DSMOE_NCCL_INCLUDE_DIR}" ${CUDAToolkit_INCLUDE_DIRS})
# Kernels register themselves in static initialisers of torch_cuda: it must stay among what the module needs.
target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu
  -Wl,--push-state,--no-as-needed LibTorch::torch_cuda LibTorch::c10_cuda -Wl,--pop-state CUDA::cudart)
foreach(_folder ${_cuda_libraries})
  target_link_options(LibTorch::cuda INTERFACE "-Wl,-rpath-link,${_folder}")
endforeach()
set(DSMOE_CUDA_RPATH ${CMAKE_BUILD_RPATH} ${_cuda_libraries})
