# One object library per instruction set: the same kernels, other flags. Which one runs is decided at
# run time by CPUID (backend.cc), so the library starts on any processor of its architecture.
set(BARKRT_ISA_OBJECTS)
set(BARKRT_ISA_NAMES generic)
set(isa_flags_generic)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND BARKRT_ISA_NAMES avx2 avx512)
  set(isa_flags_avx2 -mavx2 -mfma -mf16c)
  set(isa_flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 warns about the undefined values its own AVX-512 header makes on purpose (PR 105593).
    list(APPEND isa_flags_avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
endif()
foreach(isa ${BARKRT_ISA_NAMES})
  add_library(barkrt_${isa} OBJECT native/src/cpu/kernels_${isa}.cc)
  target_include_directories(barkrt_${isa} PRIVATE native/src)
  # -O3 whatever the build type: without it a debug build is too slow to run a model.
  target_compile_options(barkrt_${isa} PRIVATE -O3 ${isa_flags_${isa}})
  list(APPEND BARKRT_ISA_OBJECTS $<TARGET_OBJECTS:barkrt_${isa}>)
endforeach()
