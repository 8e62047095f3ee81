# SPDX-License-Identifier: BSL-1.0
# The headers and a CMake package: find_package(procpool 0.1) gives procpool::procpool.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(procpool_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/procpool")  # not below lib: nothing here depends on the machine

install(TARGETS procpool EXPORT procpoolTargets
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILE_SET detail DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
)
install(EXPORT procpoolTargets NAMESPACE procpool:: DESTINATION "${procpool_package_dir}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/procpoolConfig.cmake.in" procpoolConfig.cmake
  INSTALL_DESTINATION "${procpool_package_dir}"
  NO_SET_AND_CHECK_MACRO
)
# While the major version is 0, a new minor version may break what was built against the last.
write_basic_package_version_file(procpoolConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/procpoolConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/procpoolConfigVersion.cmake"
  DESTINATION "${procpool_package_dir}"
)
install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
