# The CUDA backend: native/src/cuda, compiled into libbarkrt where there is a CUDA compiler. CUDACXX, CUDA_HOME, PATH,
# /usr/local/cuda and build/cuda-toolchain (tools/cuda-toolchain) are looked at, in this order.
#   BARKRT_CUDA                 AUTO: with CUDA where a compiler is found; ON: an error where none is; OFF
#   BARKRT_CUDA_ARCHITECTURES   compute capabilities to make machine code for, the newest also as PTX; fewer compile faster
set(BARKRT_CUDA AUTO CACHE STRING "CUDA backend: AUTO, ON or OFF")
set_property(CACHE BARKRT_CUDA PROPERTY STRINGS AUTO ON OFF)
set(BARKRT_CUDA_ARCHITECTURES "75;80;86;89;90;100;120" CACHE STRING
  "compute capabilities to compile for; PTX of the last is for those to come")
if(NOT BARKRT_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "BARKRT_CUDA is ${BARKRT_CUDA}: use AUTO, ON or OFF")
endif()

# Sets `why` to what is in the way of a build with CUDA, or to nothing.
function(find_nvcc why)
  set(${why} "" PARENT_SCOPE)
  if(BARKRT_CUDA STREQUAL "OFF")
    set(${why} "BARKRT_CUDA is OFF" PARENT_SCOPE)
    return()
  endif()
  if(BARKRT_CUDA STREQUAL "AUTO" AND (BARKRT_SANITIZE OR BARKRT_FUZZ OR BARKRT_EMULATION))
    set(${why} "sanitizers, fuzzing and emulation are for the host" PARENT_SCOPE)
    return()
  endif()
  if(DEFINED ENV{CUDACXX} AND NOT BARKRT_NVCC)
    set(BARKRT_NVCC $ENV{CUDACXX} CACHE FILEPATH "CUDA compiler" FORCE)
  endif()
  find_program(BARKRT_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH
    PATHS /usr/local/cuda ${CMAKE_SOURCE_DIR}/build/cuda-toolchain PATH_SUFFIXES bin DOC "CUDA compiler")
  if(NOT BARKRT_NVCC)
    set(${why} "no nvcc found; tools/cuda-toolchain installs one" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${BARKRT_NVCC} --version OUTPUT_VARIABLE says ERROR_QUIET RESULT_VARIABLE failed)
  if(failed OR NOT says MATCHES "release ([0-9.]+)")
    set(${why} "${BARKRT_NVCC} --version does not work" PARENT_SCOPE)
    return()
  endif()
  set(version ${CMAKE_MATCH_1})
  if(version VERSION_LESS 12.0)
    set(${why} "${BARKRT_NVCC} is of CUDA ${version}, and 12.0 is needed" PARENT_SCOPE)
    return()
  endif()
  set(BARKRT_CUDA_VERSION ${version} PARENT_SCOPE)
endfunction()

file(GLOB sources CONFIGURE_DEPENDS native/src/cuda/*.cu native/src/cuda/*.cc)
find_nvcc(why)
if(NOT sources AND NOT BARKRT_CUDA STREQUAL "ON")
  set(why "native/src/cuda has no sources")
endif()
if(why)
  if(BARKRT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "BARKRT_CUDA is ON, but ${why}")
  endif()
  message(STATUS "CUDA: none, CPU only: ${why}")
  return()
endif()

set(architectures ${BARKRT_CUDA_ARCHITECTURES})
if(BARKRT_CUDA_VERSION VERSION_LESS 12.8)
  list(REMOVE_ITEM architectures 100 120) # which come with 12.8; the PTX serves them
endif()
list(POP_BACK architectures newest)
list(TRANSFORM architectures APPEND -real)
list(APPEND architectures ${newest})
message(STATUS "CUDA: ${BARKRT_CUDA_VERSION}, ${BARKRT_NVCC}, for ${architectures}")

set(CMAKE_CUDA_COMPILER ${BARKRT_NVCC})
if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER)
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
endif()
set(CMAKE_CUDA_ARCHITECTURES ${newest})
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

add_library(barkrt_cuda OBJECT ${sources})
set_target_properties(barkrt_cuda PROPERTIES CUDA_ARCHITECTURES "${architectures}")
target_include_directories(barkrt_cuda PRIVATE native/include native/src native/src/cuda/ptx)
target_include_directories(barkrt_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
# As on the host, a*b+c is two roundings unless the source says fmaf. What ptxas says of each kernel lies beside
# the object, for tools/cuda-resources.
target_compile_options(barkrt_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;--threads=2;-Werror=all-warnings;\
-Xptxas=-v,-Werror;-Xcompiler=-Wall,-Wextra,-Wshadow,-Wconversion,-Wno-sign-conversion,-Wno-psabi,-ffp-contract=off>")
if(BARKRT_CUDA_VERSION VERSION_GREATER_EQUAL 13.0) # whose drivers all know it: a quarter of the size
  target_compile_options(barkrt_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-compress-mode=size>)
endif()
set_target_properties(barkrt_cuda PROPERTIES
  RULE_LAUNCH_COMPILE "${CMAKE_SOURCE_DIR}/tools/cuda-log <OBJECT>")
target_compile_definitions(barkrt_objects PRIVATE BARKRT_CUDA)

# Both libraries hold the static runtime, so that whoever links libbarkrt.a names it alone, with CUDA or without.
find_library(BARKRT_CUDART cudart_static REQUIRED NO_CACHE PATHS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} NO_DEFAULT_PATH)
set(cudart ${CMAKE_BINARY_DIR}/cudart.o)
add_custom_command(OUTPUT ${cudart} DEPENDS ${BARKRT_CUDART} VERBATIM
  COMMAND ${CMAKE_LINKER} -r -o ${cudart} --whole-archive ${BARKRT_CUDART})
add_custom_target(barkrt_cudart DEPENDS ${cudart})
set_source_files_properties(${cudart} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
foreach(lib barkrt_static barkrt_shared)
  add_dependencies(${lib} barkrt_cudart)
  target_sources(${lib} PRIVATE $<TARGET_OBJECTS:barkrt_cuda> ${cudart})
  target_link_libraries(${lib} PUBLIC dl rt)
endforeach()
