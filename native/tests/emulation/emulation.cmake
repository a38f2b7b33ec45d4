# -DBARKRT_EMULATION=ON: native/src/cuda compiled for the host, on emulated CUDA devices (emulation.h). For tests alone.
find_package(Boost 1.74 REQUIRED COMPONENTS context) # context switches: 0.1 us each, 1.3 us by ucontext
set(emulation ${CMAKE_CURRENT_LIST_DIR})
file(GLOB emulation_sources CONFIGURE_DEPENDS ${emulation}/*.cc)
list(REMOVE_ITEM emulation_sources ${emulation}/fail_on_reports.cc)
list(FILTER emulation_sources EXCLUDE REGEX "_test\\.cc$")

add_library(emulation STATIC ${emulation_sources})
target_include_directories(emulation SYSTEM PUBLIC ${emulation}/include)
target_include_directories(emulation PUBLIC ${emulation})
# The kernels are looked at, not what runs them.
target_compile_options(emulation PRIVATE -O2 -fno-sanitize=all)
if(BARKRT_SANITIZE MATCHES "address")
  target_compile_definitions(emulation PRIVATE BARKRT_WITH_ASAN)
endif()
target_link_libraries(emulation PUBLIC Boost::context Threads::Threads)

# .cu as the host's C++, with the emulation's <cuda_runtime.h>.
function(compile_for_emulation target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX)
  target_include_directories(${target} SYSTEM PRIVATE ${emulation}/include) # as CUDA's own are
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas -Wno-shadow) # unroll; nvcc has its own word on the rest
  if(BARKRT_TRACED) # the calls of tracing.cc; ThreadSanitizer's runtime is not linked
    target_compile_options(${target} PRIVATE -fsanitize=thread -g --param tsan-instrument-func-entry-exit=0)
  endif()
endfunction()

file(GLOB cuda_sources CONFIGURE_DEPENDS native/src/cuda/*.cu native/src/cuda/*.cc)
if(cuda_sources)
  add_library(barkrt_cuda OBJECT ${cuda_sources})
  compile_for_emulation(barkrt_cuda)
  target_include_directories(barkrt_cuda PRIVATE native/include native/src)
  target_compile_definitions(barkrt_cuda PRIVATE BARKRT_EMULATION)
  target_compile_definitions(barkrt_objects PRIVATE BARKRT_CUDA)
  foreach(lib barkrt_static barkrt_shared)
    target_sources(${lib} PRIVATE $<TARGET_OBJECTS:barkrt_cuda>)
    target_link_libraries(${lib} PUBLIC emulation)
  endforeach()
endif()
