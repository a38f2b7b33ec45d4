# Synthetic models of any shape, shared by the tests of the model.
add_library(synthetic STATIC synthetic.cc synthetic_configs.cc gguf_writer.cc)
target_include_directories(synthetic PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/native/src)
target_link_libraries(synthetic PUBLIC barkrt_static)

foreach(test parity_test windows_test stages_test codec_test gpt_test model_test component_test session_test engine_test batch_test)
  bark_test(${test})
  target_link_libraries(${test} PRIVATE synthetic)
endforeach()

if(BARKRT_EMULATION)
  bark_test(cuda_model_test)
  target_link_libraries(cuda_model_test PRIVATE synthetic)
endif()

# On emulated devices these take minutes, and many with sanitizers: `make emulated` runs them there without.
if(BARKRT_EMULATION AND BARKRT_SANITIZE)
  set_tests_properties(parity_test session_test stages_test batch_test PROPERTIES ENVIRONMENT "GTEST_FILTER=-*/cuda")
endif()

# The header is C99 and the ABI is usable from C alone.
add_executable(capi_test capi_test.c capi_test_image.cc)
set_target_properties(capi_test PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_include_directories(capi_test PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(capi_test PRIVATE synthetic m)
add_test(NAME capi_test COMMAND capi_test)

# For tools/gpu.
add_executable(list_devices list_devices.c)
target_link_libraries(list_devices PRIVATE barkrt_static)
set_target_properties(list_devices PROPERTIES LINKER_LANGUAGE CXX)

# The shared library exports the ABI and nothing else.
add_test(NAME exported_symbols COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM}
  -DLIBRARY=$<TARGET_FILE:barkrt_shared> -DHEADER=${CMAKE_SOURCE_DIR}/native/include/barkrt.h
  -P ${CMAKE_CURRENT_SOURCE_DIR}/exported_symbols.cmake)
