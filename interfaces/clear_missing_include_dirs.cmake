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
