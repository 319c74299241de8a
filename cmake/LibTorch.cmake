# Imported targets over the pinned wheel torch==2.11.0; find_package(Torch) would demand a CUDA toolkit.
#   LibTorch::cpu   libtorch_cpu + libc10
# Input: DSMOE_TORCH_ROOT, the torch folder inside a site-packages; found in .venv when not given.
if(NOT DSMOE_TORCH_ROOT)
  file(GLOB _found "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(APPEND _found "")
  list(GET _found 0 _found)
  set(DSMOE_TORCH_ROOT "${_found}" CACHE PATH "torch folder inside site-packages" FORCE)
endif()
if(NOT EXISTS "${DSMOE_TORCH_ROOT}/version.py")
  message(FATAL_ERROR "LibTorch: no torch wheel at '${DSMOE_TORCH_ROOT}'; run scripts/setup.sh or pass "
                      "-DDSMOE_TORCH_ROOT=<site-packages>/torch")
endif()
file(STRINGS "${DSMOE_TORCH_ROOT}/version.py" _version REGEX "^__version__")
if(NOT _version MATCHES "'2\\.11\\.0")
  message(FATAL_ERROR "LibTorch: expected torch 2.11.0, got ${_version}; run scripts/setup.sh")
endif()
get_filename_component(_site "${DSMOE_TORCH_ROOT}/.." ABSOLUTE)

# The wheel's include folder also holds fmt 12, protobuf and pybind11, which shadow the system's: show
# only torch's own folders, through symlinks.
set(_include "${CMAKE_BINARY_DIR}/libtorch-include")
file(MAKE_DIRECTORY "${_include}")
foreach(_folder ATen c10 caffe2 torch sleef.h kineto)
  file(CREATE_LINK "${DSMOE_TORCH_ROOT}/include/${_folder}" "${_include}/${_folder}" SYMBOLIC)
endforeach()

foreach(_name c10 torch_cpu)
  add_library(LibTorch::${_name} SHARED IMPORTED GLOBAL)
  set_target_properties(LibTorch::${_name} PROPERTIES
    IMPORTED_LOCATION "${DSMOE_TORCH_ROOT}/lib/lib${_name}.so")
endforeach()
# The OpenMP runtime that torch brings: a second one in the process would have its own threads.
add_library(LibTorch::gomp SHARED IMPORTED GLOBAL)
set_target_properties(LibTorch::gomp PROPERTIES IMPORTED_LOCATION "${DSMOE_TORCH_ROOT}/lib/libgomp.so.1")
add_library(LibTorch::cpu INTERFACE IMPORTED GLOBAL)
target_include_directories(LibTorch::cpu SYSTEM INTERFACE
  "${_include}" "${_include}/torch/csrc/api/include")
target_compile_definitions(LibTorch::cpu INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_link_libraries(LibTorch::cpu INTERFACE LibTorch::torch_cpu LibTorch::c10 LibTorch::gomp)
# DT_RPATH, not RUNPATH: the torch libraries' own dependencies inherit only the former.
target_link_options(LibTorch::cpu INTERFACE
  -Wl,--disable-new-dtags "-Wl,-rpath-link,${_site}/nvidia/cu13/lib")
# torch's libraries are found where they are, by what is built and by what is installed.
set(CMAKE_BUILD_RPATH "${DSMOE_TORCH_ROOT}/lib" "${_site}/nvidia/cu13/lib")
set(CMAKE_INSTALL_RPATH "${CMAKE_BUILD_RPATH}")
