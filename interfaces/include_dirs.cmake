# The message packages from PyPI export Python targets with include directories that do not exist,
# and CMake refuses those when it generates. Nothing of ours compiles against them. On an installed
# ROS this changes nothing: its generator adds its own Python and NumPy directories.
# Included after rosidl_generate_interfaces, in the same directory scope.
get_property(_imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(_target IN LISTS _imported)
  if(_target MATCHES "__rosidl_generator_py$")
    set_property(TARGET ${_target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES "")
  endif()
endforeach()

# A virtual environment inside the checkout brings its NumPy headers along. CMake does not export
# include directories below the source folder, so they count for this build only.
set(_own ${PROJECT_NAME}__rosidl_generator_py)
if(TARGET ${_own})
  get_target_property(_directories ${_own} INTERFACE_INCLUDE_DIRECTORIES)
  set(_kept "")
  foreach(_directory IN LISTS _directories)
    if(_directory MATCHES "^${CMAKE_SOURCE_DIR}/")
      list(APPEND _kept "$<BUILD_INTERFACE:${_directory}>")
    elseif(_directory)
      list(APPEND _kept "${_directory}")
    endif()
  endforeach()
  set_target_properties(${_own} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_kept}")
endif()
