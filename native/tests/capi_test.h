/* capi_test.h: hands the C test a model image; C linkage. */
#ifndef BARKRT_CAPI_TEST_H
#define BARKRT_CAPI_TEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A small model's GGUF image, 64-byte aligned, alive until the process ends. */
const void* small_model_image(int64_t* bytes);

#ifdef __cplusplus
}
#endif
#endif
