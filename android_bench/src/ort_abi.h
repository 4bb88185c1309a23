// The part of ONNX Runtime's C interface that this program uses, declared by position.
//
// The library exports one function, OrtGetApiBase. Through it comes a table of function pointers
// that only ever grows at its end: that is the runtime's own promise of binary compatibility, made
// per API version. So the table is described here by the positions of its entries, and nothing has
// to be downloaded to build the runner. tests/abi_check.cc holds every position and signature
// against the official header wherever one is at hand (cmake -DORT_HEADERS=DIR).
#pragma once

#include <cstddef>
#include <cstdint>

namespace mobileinst::ort {

struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct RunOptions;
struct MemoryInfo;
struct Value;
struct TypeInfo;
struct TensorInfo;

struct Allocator {
  std::uint32_t version;
  void* (*Alloc)(Allocator*, std::size_t);
  void (*Free)(Allocator*, void*);
};

constexpr std::uint32_t kApiVersion = 17;  // ONNX Runtime 1.17 and later
constexpr int kLogErrors = 3;
constexpr int kSequential = 0;
constexpr int kAllOptimisations = 99;
constexpr int kDeviceAllocator = 0;
constexpr int kDefaultMemory = 0;

// Element types, as GetTensorElementType numbers them.
constexpr int kFloat32 = 1;
constexpr int kUint8 = 2;
constexpr int kInt32 = 6;
constexpr int kInt64 = 7;

// Names are the official ones; `to_N` stands for entries up to position N that are not used.
struct Api {
  void* to_1[2];
  const char* (*GetErrorMessage)(const Status*);             // 2
  Status* (*CreateEnv)(int level, const char* name, Env**);  // 3
  void* to_5[2];
  Status* (*DisableTelemetryEvents)(const Env*);                                             // 6
  Status* (*CreateSession)(const Env*, const char* path, const SessionOptions*, Session**);  // 7
  void* to_8[1];
  Status* (*Run)(Session*, const RunOptions*, const char* const* input_names,
                 const Value* const* inputs, std::size_t input_count,
                 const char* const* output_names, std::size_t output_count, Value** outputs);  // 9
  Status* (*CreateSessionOptions)(SessionOptions**);                                           // 10
  void* to_12[2];
  Status* (*SetSessionExecutionMode)(SessionOptions*, int mode);    // 13
  Status* (*EnableProfiling)(SessionOptions*, const char* prefix);  // 14
  void* to_22[8];
  Status* (*SetSessionGraphOptimizationLevel)(SessionOptions*, int level);  // 23
  Status* (*SetIntraOpNumThreads)(SessionOptions*, int count);              // 24
  Status* (*SetInterOpNumThreads)(SessionOptions*, int count);              // 25
  void* to_29[4];
  Status* (*SessionGetInputCount)(const Session*, std::size_t*);   // 30
  Status* (*SessionGetOutputCount)(const Session*, std::size_t*);  // 31
  void* to_32[1];
  Status* (*SessionGetInputTypeInfo)(const Session*, std::size_t index, TypeInfo**);   // 33
  Status* (*SessionGetOutputTypeInfo)(const Session*, std::size_t index, TypeInfo**);  // 34
  void* to_35[1];
  Status* (*SessionGetInputName)(const Session*, std::size_t index, Allocator*, char**);   // 36
  Status* (*SessionGetOutputName)(const Session*, std::size_t index, Allocator*, char**);  // 37
  void* to_48[11];
  Status* (*CreateTensorWithDataAsOrtValue)(const MemoryInfo*, void* data, std::size_t bytes,
                                            const std::int64_t* shape, std::size_t rank, int type,
                                            Value**);  // 49
  void* to_50[1];
  Status* (*GetTensorMutableData)(Value*, void**);  // 51
  void* to_54[3];
  Status* (*CastTypeInfoToTensorInfo)(const TypeInfo*, const TensorInfo**);  // 55
  void* to_59[4];
  Status* (*GetTensorElementType)(const TensorInfo*, int*);                               // 60
  Status* (*GetDimensionsCount)(const TensorInfo*, std::size_t*);                         // 61
  Status* (*GetDimensions)(const TensorInfo*, std::int64_t* lengths, std::size_t count);  // 62
  void* to_64[2];
  Status* (*GetTensorTypeAndShape)(const Value*, TensorInfo**);  // 65
  void* to_68[3];
  Status* (*CreateCpuMemoryInfo)(int allocator, int memory, MemoryInfo**);  // 69
  void* to_75[6];
  Status* (*AllocatorFree)(Allocator*, void*);  // 76
  void* to_77[1];
  Status* (*GetAllocatorWithDefaultOptions)(Allocator**);  // 78
  void* to_91[13];
  void (*ReleaseEnv)(Env*);                // 92
  void (*ReleaseStatus)(Status*);          // 93
  void (*ReleaseMemoryInfo)(MemoryInfo*);  // 94
  void (*ReleaseSession)(Session*);        // 95
  void (*ReleaseValue)(Value*);            // 96
  void* to_97[1];
  void (*ReleaseTypeInfo)(TypeInfo*);                  // 98
  void (*ReleaseTensorTypeAndShapeInfo)(TensorInfo*);  // 99
  void (*ReleaseSessionOptions)(SessionOptions*);      // 100
  void* to_109[9];
  Status* (*SessionEndProfiling)(Session*, Allocator*, char** file);  // 110
};

struct ApiBase {
  const Api* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

using GetApiBase = const ApiBase* (*)();

}  // namespace mobileinst::ort
