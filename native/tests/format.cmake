# Files and text from strangers: GGUF, tokenizer, and the fuzz targets' corpora.
bark_test(gguf_test gguf_writer.cc)
bark_test(tokenizer_test gguf_writer.cc)
target_include_directories(tokenizer_test PRIVATE ${UTF8PROC_INCLUDE})
target_compile_definitions(tokenizer_test PRIVATE BARKRT_SHARED_DATA="${CMAKE_SOURCE_DIR}/../shared/data")

# Every seed and every input that once did harm, replayed in the ordinary build.
set(fuzz ${CMAKE_SOURCE_DIR}/native/fuzz)
foreach(target gguf tokenizer model)
  add_executable(replay_${target} ${fuzz}/fuzz_${target}.cc ${fuzz}/replay.cc gguf_writer.cc)
  target_include_directories(replay_${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/native/src)
  target_compile_definitions(replay_${target} PRIVATE BARKRT_TESTDATA="${CMAKE_CURRENT_SOURCE_DIR}/testdata")
  target_link_libraries(replay_${target} PRIVATE barkrt_static)
  add_test(NAME replay_${target} COMMAND replay_${target} ${fuzz}/corpus/${target})
endforeach()

# make_seeds CORPUS writes the seeds anew.
add_executable(make_seeds EXCLUDE_FROM_ALL ${fuzz}/make_seeds.cc ${fuzz}/tiny_model.cc gguf_writer.cc)
target_include_directories(make_seeds PRIVATE ${fuzz} ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/native/src)
target_compile_definitions(make_seeds PRIVATE BARKRT_TESTDATA="${CMAKE_CURRENT_SOURCE_DIR}/testdata")
bark_test(seeds_test ${fuzz}/tiny_model.cc gguf_writer.cc)
target_include_directories(seeds_test PRIVATE ${fuzz})
target_compile_definitions(seeds_test PRIVATE BARKRT_CORPUS="${fuzz}/corpus")
