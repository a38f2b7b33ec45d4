// capi_test_image.cc: the C test's model.
#include "capi_test.h"
#include "synthetic.h"

const void* small_model_image(int64_t* bytes) {
  static const barkrt::test::Image image = [] {
    const barkrt::Config config = barkrt::test::small_config();
    barkrt::test::SyntheticOptions options;
    options.codec_digest = std::string(64, 'c');
    options.voices = {{"anna", barkrt::test::synthetic_voice(config, 20, 30)}};
    return barkrt::test::synthetic_writer(config, options).build();
  }();
  *bytes = image.bytes();
  return image.data();
}
