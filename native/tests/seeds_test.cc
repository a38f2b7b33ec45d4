#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "barkrt.h"
#include "tiny_model.h"

namespace barkrt {
namespace {

// A seed that no longer loads would leave the fuzzer at the door.
TEST(FuzzSeeds, TheTinyModelsSpeakAndAreCurrent) {
  for (const auto& [matrices, name] : {std::pair(DType::F32, "tiny"),
                                       {DType::I8, "tiny_i8"},
                                       {DType::I8Tiles, "tiny_tiles"},
                                       {DType::I4, "tiny_i4"}}) {
    const std::string path = std::string(BARKRT_CORPUS "/model/") + name;
    std::ifstream file(path, std::ios::binary);
    const std::string seed{std::istreambuf_iterator<char>(file), {}};
    EXPECT_TRUE(seed == test::tiny_model(matrices).content()) << path << ": run make_seeds";

    const test::Image image(seed);
    barkrt_model_params params;
    barkrt_model_params_init(&params);
    params.data = image.data();
    params.data_bytes = image.bytes();
    barkrt_error err = {};
    barkrt_model* model = nullptr;
    ASSERT_EQ(barkrt_model_load(&params, &model, &err), BARKRT_OK) << err.text;
    barkrt_voice* voice = nullptr;
    EXPECT_EQ(barkrt_voice_load(model, "v", &voice, &err), BARKRT_OK) << err.text;
    barkrt_session* session = nullptr;
    ASSERT_EQ(barkrt_session_new(model, nullptr, &session, &err), BARKRT_OK) << err.text;
    barkrt_request request;
    ASSERT_EQ(barkrt_request_init(model, BARKRT_RULES_SUNO, &request, &err), BARKRT_OK) << err.text;
    request.text = "ab";
    request.text_bytes = 2;
    request.voice = voice;
    EXPECT_EQ(barkrt_synthesize(session, &request, nullptr, nullptr, nullptr, &err), BARKRT_OK)
        << err.text;
    barkrt_session_free(session);
    barkrt_voice_free(voice);
    barkrt_model_free(model);
  }
  EXPECT_EQ(barkrt_live_handles(), 0);
}

}  // namespace
}  // namespace barkrt
