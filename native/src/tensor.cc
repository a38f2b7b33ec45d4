// tensor.cc: names of storage types.
#include "tensor.h"

namespace barkrt {

const char* dtype_name(DType t) {
  switch (t) {
    case DType::F32:
      return "F32";
    case DType::F16:
      return "F16";
    case DType::BF16:
      return "BF16";
    case DType::I8:
      return "I8";
    case DType::I32:
      return "I32";
    case DType::I4:
      return "I4";
    case DType::I8Tiles:
      return "I8 tiles";
  }
  return "unknown";
}

}  // namespace barkrt
