# One static library per room and one test program per room.

# dsmoe_add_room(NAME [TORCH] SOURCES file... [LINK target...])
# TORCH: the room uses tensors; it is compiled with the shared precompiled header.
function(dsmoe_add_room name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK" ${ARGN})
  add_library(dsmoe_${name} STATIC ${arg_SOURCES})
  target_include_directories(dsmoe_${name} PUBLIC
    "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>" "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>"
    "$<INSTALL_INTERFACE:include/dsmoe>")
  target_link_libraries(dsmoe_${name} PUBLIC ${arg_LINK} PRIVATE $<BUILD_INTERFACE:dsmoe_warnings>)
  install(TARGETS dsmoe_${name} EXPORT dsmoeTargets)
  if(arg_TORCH)
    target_link_libraries(dsmoe_${name} PUBLIC LibTorch::cpu)
    target_precompile_headers(dsmoe_${name} REUSE_FROM dsmoe_torch_pch)
  endif()
endfunction()

# dsmoe_add_tests(NAME [TORCH] SOURCES file... [LINK target...] [LABELS label...]): the program test_NAME,
# each TEST_CASE a CTest test.
function(dsmoe_add_tests name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK;LABELS" ${ARGN})
  add_executable(test_${name} ${arg_SOURCES})
  target_include_directories(test_${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(test_${name} PRIVATE dsmoe_test_main ${arg_LINK} dsmoe_warnings)
  target_compile_definitions(test_${name} PRIVATE
    DSMOE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" DSMOE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(arg_TORCH)
    target_link_libraries(test_${name} PRIVATE LibTorch::cpu)
    target_precompile_headers(test_${name} REUSE_FROM dsmoe_torch_pch)
  endif()
  catch_discover_tests(test_${name} TEST_PREFIX "${name}: " PROPERTIES TIMEOUT 300
    LABELS "unit;${arg_LABELS}" SKIP_RETURN_CODE 77
    ENVIRONMENT "OMP_NUM_THREADS=1;OMP_WAIT_POLICY=passive")
endfunction()
