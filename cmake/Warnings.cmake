# Warnings are errors; no fast-math, and no contraction of a*b+c across statements: results are the source's.
# CUDA sources have flags of their own (Cuda.cmake).
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wno-psabi;-Werror;-ffp-contract=off;-fno-math-errno>")
