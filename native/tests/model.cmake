# Synthetic models of any shape, shared by the tests of the model.
add_library(synthetic STATIC synthetic.cc synthetic_configs.cc gguf_writer.cc)
target_include_directories(synthetic PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/native/src)
target_link_libraries(synthetic PUBLIC barkrt_static)

foreach(test parity_test stages_test codec_test gpt_test model_test)
  bark_test(${test})
  target_link_libraries(${test} PRIVATE synthetic)
endforeach()
