# Warnings are errors; no fast-math, and no contraction of a*b+c across statements: results are the source's.
add_compile_options(
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wno-psabi -Werror
  -ffp-contract=off -fno-math-errno)
