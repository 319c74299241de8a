# `cmake --install build --prefix DIR`: the program, every module's library, the headers, and a package that
# find_package(dsmoe) finds under DIR. The modules install themselves, see Modules.cmake.
include(CMakePackageConfigHelpers)

set(_package lib/cmake/dsmoe)
install(DIRECTORY src/ DESTINATION include/dsmoe FILES_MATCHING PATTERN "*.h")
install(DIRECTORY csrc_kernels DESTINATION include/dsmoe FILES_MATCHING PATTERN "*.h")
install(EXPORT dsmoeTargets NAMESPACE dsmoe:: DESTINATION ${_package})
install(FILES cmake/LibTorch.cmake DESTINATION ${_package})
# The package looks for torch where this build found it, unless its user says otherwise.
set(DSMOE_TORCH_ROOT_OF_BUILD "${DSMOE_TORCH_ROOT}")
configure_package_config_file(cmake/dsmoeConfig.cmake.in "${CMAKE_BINARY_DIR}/dsmoeConfig.cmake"
  INSTALL_DESTINATION ${_package})
write_basic_package_version_file("${CMAKE_BINARY_DIR}/dsmoeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/dsmoeConfig.cmake" "${CMAKE_BINARY_DIR}/dsmoeConfigVersion.cmake"
  DESTINATION ${_package})
