# One static library per module and one test program per module.

# dsmoe_compile_together(TARGET): compiles five source files at once, because the precompiled header of torch costs each
# compilation five seconds. Names in the anonymous namespaces of a target's files must differ.
function(dsmoe_compile_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${DSMOE_COMPILE_TOGETHER} UNITY_BUILD_BATCH_SIZE 5)
  # g++ warns of anonymous types in included files as if these were headers.
  target_compile_options(${target} PRIVATE $<$<BOOL:${DSMOE_COMPILE_TOGETHER}>:-Wno-subobject-linkage>)
endfunction()

# dsmoe_add_module(NAME [TORCH] SOURCES file... [LINK target...])
# TORCH: the module uses tensors; it is compiled with the shared precompiled header.
function(dsmoe_add_module name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK" ${ARGN})
  add_library(dsmoe_${name} STATIC ${arg_SOURCES})
  target_include_directories(dsmoe_${name} PUBLIC
    "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>" "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>"
    "$<INSTALL_INTERFACE:include/dsmoe>")
  target_link_libraries(dsmoe_${name} PUBLIC ${arg_LINK} PRIVATE $<BUILD_INTERFACE:dsmoe_warnings>)
  dsmoe_compile_together(dsmoe_${name})
  install(TARGETS dsmoe_${name} EXPORT dsmoeTargets)
  if(arg_TORCH)
    target_link_libraries(dsmoe_${name} PUBLIC LibTorch::cpu)
    target_precompile_headers(dsmoe_${name} REUSE_FROM dsmoe_torch_pch)
  endif()
endfunction()

# dsmoe_add_tests(NAME [TORCH] SOURCES file... [LINK target...] [LABELS label...]): the program test_NAME; each source file
# is a CTest test, a process that runs the file's test cases.
function(dsmoe_add_tests name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK;LABELS" ${ARGN})
  add_executable(test_${name} ${arg_SOURCES})
  target_include_directories(test_${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(test_${name} PRIVATE dsmoe_test_main ${arg_LINK} dsmoe_warnings)
  target_compile_definitions(test_${name} PRIVATE
    DSMOE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" DSMOE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  dsmoe_compile_together(test_${name})
  if(arg_TORCH)
    target_link_libraries(test_${name} PRIVATE LibTorch::cpu)
    target_precompile_headers(test_${name} REUSE_FROM dsmoe_torch_pch)
    # The shared precompiled header is compiled with -fPIC, programs with -fPIE by default.
    target_compile_options(test_${name} PRIVATE -fPIC)
  endif()
  list(FILTER arg_SOURCES INCLUDE REGEX "_test\\.cpp$")
  foreach(source ${arg_SOURCES})
    get_filename_component(stem "${source}" NAME_WE)
    string(REGEX REPLACE "_test$" "" subject "${stem}")
    add_test(NAME "${name}: ${subject}" COMMAND test_${name} --filenames-as-tags --warn NoTests "[#${stem}]~[.]")
    set_tests_properties("${name}: ${subject}" PROPERTIES TIMEOUT 600 LABELS "unit;${arg_LABELS}"
      ENVIRONMENT "OMP_NUM_THREADS=1;OMP_WAIT_POLICY=passive")
  endforeach()
endfunction()
