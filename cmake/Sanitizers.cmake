# -DBARKRT_SANITIZE=address,undefined (or thread) instruments everything.
set(BARKRT_SANITIZE "" CACHE STRING "sanitizers to build with, comma-separated")
if(BARKRT_SANITIZE)
  add_compile_options(-fsanitize=${BARKRT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${BARKRT_SANITIZE})
endif()
