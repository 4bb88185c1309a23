// Compiles only when src/ort_abi.h agrees with ONNX Runtime's official header: position and
// signature of every entry that is used.
#include <onnxruntime_c_api.h>

#include <cstddef>
#include <type_traits>

// The official declarations say "use the result"; that is advice to callers, not part of a
// signature.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

#include "../src/ort_abi.h"

namespace {

namespace own = mobileinst::ort;

// What crosses the border in a register or on the stack: pointers are pointers, enumerations are
// ints.
template <typename T, typename = void>
struct Passed {
  using type = T;
};
template <typename T>
struct Passed<T, std::enable_if_t<std::is_pointer_v<T>>> {
  using type = void*;
};
template <typename T>
struct Passed<T, std::enable_if_t<std::is_enum_v<T>>> {
  using type = int;
};

template <typename Function>
struct Shape;
template <typename Result, typename... Arguments>
struct Shape<Result (*)(Arguments...)> {
  using type = typename Passed<Result>::type (*)(typename Passed<Arguments>::type...);
};
template <typename Result, typename... Arguments>
struct Shape<Result (*)(Arguments...) noexcept> : Shape<Result (*)(Arguments...)> {};

template <typename One, typename Other>
constexpr bool alike = std::is_same_v<typename Shape<One>::type, typename Shape<Other>::type>;

#define SAME(NAME)                                                                   \
  static_assert(offsetof(own::Api, NAME) == offsetof(OrtApi, NAME), #NAME " moved"); \
  static_assert(alike<decltype(own::Api::NAME), decltype(OrtApi::NAME)>,             \
                #NAME " has another signature")

SAME(GetErrorMessage);
SAME(CreateEnv);
SAME(DisableTelemetryEvents);
SAME(CreateSession);
SAME(Run);
SAME(CreateSessionOptions);
SAME(SetSessionExecutionMode);
SAME(EnableProfiling);
SAME(SetSessionGraphOptimizationLevel);
SAME(SetIntraOpNumThreads);
SAME(SetInterOpNumThreads);
SAME(SessionGetInputCount);
SAME(SessionGetOutputCount);
SAME(SessionGetInputTypeInfo);
SAME(SessionGetOutputTypeInfo);
SAME(SessionGetInputName);
SAME(SessionGetOutputName);
SAME(CreateTensorWithDataAsOrtValue);
SAME(GetTensorMutableData);
SAME(CastTypeInfoToTensorInfo);
SAME(GetTensorElementType);
SAME(GetDimensionsCount);
SAME(GetDimensions);
SAME(GetTensorTypeAndShape);
SAME(CreateCpuMemoryInfo);
SAME(AllocatorFree);
SAME(GetAllocatorWithDefaultOptions);
SAME(ReleaseEnv);
SAME(ReleaseStatus);
SAME(ReleaseMemoryInfo);
SAME(ReleaseSession);
SAME(ReleaseValue);
SAME(ReleaseTypeInfo);
SAME(ReleaseTensorTypeAndShapeInfo);
SAME(ReleaseSessionOptions);
SAME(SessionEndProfiling);

static_assert(offsetof(own::ApiBase, GetApi) == offsetof(OrtApiBase, GetApi));
static_assert(offsetof(own::ApiBase, GetVersionString) == offsetof(OrtApiBase, GetVersionString));
static_assert(ORT_API_VERSION >= own::kApiVersion);
static_assert(own::kLogErrors == ORT_LOGGING_LEVEL_ERROR);
static_assert(own::kSequential == ORT_SEQUENTIAL);
static_assert(own::kAllOptimisations == ORT_ENABLE_ALL);
static_assert(own::kDeviceAllocator == OrtDeviceAllocator);
static_assert(own::kDefaultMemory == OrtMemTypeDefault);
static_assert(own::kFloat32 == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
static_assert(own::kUint8 == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
static_assert(own::kInt32 == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
static_assert(own::kInt64 == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);

}  // namespace
