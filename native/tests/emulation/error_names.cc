// error_names.cc: errors in words.
#include "cuda_runtime_api.h"

namespace {

struct Named {
  cudaError_t error;
  const char *name, *text;
};

#define BARKRT_NAMED(error, text) \
  { error, #error, text }
// What the runtime says of those that tests and logs meet; of the rest the name.
constexpr Named kNamed[] = {
    BARKRT_NAMED(cudaSuccess, "no error"),
    BARKRT_NAMED(cudaErrorInvalidValue, "invalid argument"),
    BARKRT_NAMED(cudaErrorMemoryAllocation, "out of memory"),
    BARKRT_NAMED(cudaErrorInitializationError, "cudaErrorInitializationError"),
    BARKRT_NAMED(cudaErrorCudartUnloading, "cudaErrorCudartUnloading"),
    BARKRT_NAMED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    BARKRT_NAMED(cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer"),
    BARKRT_NAMED(cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection"),
    BARKRT_NAMED(cudaErrorStubLibrary, "cudaErrorStubLibrary"),
    BARKRT_NAMED(cudaErrorInsufficientDriver,
                 "CUDA driver version is insufficient for CUDA runtime version"),
    BARKRT_NAMED(cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable"),
    BARKRT_NAMED(cudaErrorInvalidDeviceFunction, "invalid device function"),
    BARKRT_NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    BARKRT_NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
    BARKRT_NAMED(cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized"),
    BARKRT_NAMED(cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice"),
    BARKRT_NAMED(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    BARKRT_NAMED(cudaErrorInvalidPtx, "cudaErrorInvalidPtx"),
    BARKRT_NAMED(cudaErrorNvlinkUncorrectable, "cudaErrorNvlinkUncorrectable"),
    BARKRT_NAMED(cudaErrorUnsupportedPtxVersion, "cudaErrorUnsupportedPtxVersion"),
    BARKRT_NAMED(cudaErrorContained, "cudaErrorContained"),
    BARKRT_NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    BARKRT_NAMED(cudaErrorIllegalState, "cudaErrorIllegalState"),
    BARKRT_NAMED(cudaErrorNotReady, "device not ready"),
    BARKRT_NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    BARKRT_NAMED(cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources"),
    BARKRT_NAMED(cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout"),
    BARKRT_NAMED(cudaErrorContextIsDestroyed, "cudaErrorContextIsDestroyed"),
    BARKRT_NAMED(cudaErrorAssert, "cudaErrorAssert"),
    BARKRT_NAMED(cudaErrorHardwareStackError, "cudaErrorHardwareStackError"),
    BARKRT_NAMED(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    BARKRT_NAMED(cudaErrorMisalignedAddress, "misaligned address"),
    BARKRT_NAMED(cudaErrorInvalidAddressSpace, "cudaErrorInvalidAddressSpace"),
    BARKRT_NAMED(cudaErrorInvalidPc, "cudaErrorInvalidPc"),
    BARKRT_NAMED(cudaErrorLaunchFailure, "unspecified launch failure"),
    BARKRT_NAMED(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    BARKRT_NAMED(cudaErrorTensorMemoryLeak, "cudaErrorTensorMemoryLeak"),
    BARKRT_NAMED(cudaErrorNotPermitted, "operation not permitted"),
    BARKRT_NAMED(cudaErrorNotSupported, "operation not supported"),
    BARKRT_NAMED(cudaErrorSystemNotReady, "cudaErrorSystemNotReady"),
    BARKRT_NAMED(cudaErrorSystemDriverMismatch, "cudaErrorSystemDriverMismatch"),
    BARKRT_NAMED(cudaErrorMpsClientTerminated, "cudaErrorMpsClientTerminated"),
    BARKRT_NAMED(cudaErrorStreamCaptureUnsupported,
                 "operation not permitted when stream is capturing"),
    BARKRT_NAMED(cudaErrorStreamCaptureInvalidated,
                 "operation failed due to a previous error during capture"),
    BARKRT_NAMED(cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge"),
    BARKRT_NAMED(cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched"),
    BARKRT_NAMED(cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined"),
    BARKRT_NAMED(cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation"),
    BARKRT_NAMED(cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit"),
    BARKRT_NAMED(cudaErrorCapturedEvent, "cudaErrorCapturedEvent"),
    BARKRT_NAMED(cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread"),
    BARKRT_NAMED(cudaErrorGraphExecUpdateFailure, "cudaErrorGraphExecUpdateFailure"),
    BARKRT_NAMED(cudaErrorExternalDevice, "cudaErrorExternalDevice"),
    BARKRT_NAMED(cudaErrorUnknown, "unknown error"),
};
#undef BARKRT_NAMED

const Named* find(cudaError_t error) {
  for (const Named& named : kNamed)
    if (named.error == error) return &named;
  return nullptr;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const Named* named = find(error);
  return named != nullptr ? named->name : "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  const Named* named = find(error);
  return named != nullptr ? named->text : "unrecognized error code";
}
