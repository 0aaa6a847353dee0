// What the kernels need of ONNX Runtime's C interface, whose header its wheels do not carry.
//
// `OrtApi` is a table of functions that only ever grows at its end, so places in it are part of the interface, and so
// is the order of `OrtCustomOp`'s members; a structure tells its own version. Places as of version 17 (1.17, 2024).

#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;  // null is success

typedef struct OrtApi {
  void (*place[275])(void);
} OrtApi;

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

enum {
  PLACE_CreateStatus = 0,
  PLACE_CreateCustomOpDomain = 26,
  PLACE_CustomOpDomain_Add = 27,
  PLACE_AddCustomOpDomain = 28,
  PLACE_GetTensorMutableData = 51,
  PLACE_GetDimensionsCount = 61,
  PLACE_GetDimensions = 62,
  PLACE_GetTensorTypeAndShape = 65,
  PLACE_KernelInfoGetAttribute_float = 85,
  PLACE_KernelInfoGetAttribute_int64 = 86,
  PLACE_KernelContext_GetInput = 90,
  PLACE_KernelContext_GetOutput = 91,
  PLACE_ReleaseTensorTypeAndShapeInfo = 99,
  PLACE_KernelContext_ParallelFor = 274,
};

enum { ORT_FAIL = 1, ORT_FLOAT = 1, ORT_REQUIRED = 0, ORT_VERSION = 17 };

typedef struct OrtCustomOp {
  uint32_t version;
  void *(*CreateKernel)(const struct OrtCustomOp *, const OrtApi *, const void *info);
  const char *(*GetName)(const struct OrtCustomOp *);
  const char *(*GetExecutionProviderType)(const struct OrtCustomOp *);
  int (*GetInputType)(const struct OrtCustomOp *, size_t index);
  size_t (*GetInputTypeCount)(const struct OrtCustomOp *);
  int (*GetOutputType)(const struct OrtCustomOp *, size_t index);
  size_t (*GetOutputTypeCount)(const struct OrtCustomOp *);
  void (*KernelCompute)(void *kernel, void *context);
  void (*KernelDestroy)(void *kernel);
  int (*GetInputCharacteristic)(const struct OrtCustomOp *, size_t index);
  int (*GetOutputCharacteristic)(const struct OrtCustomOp *, size_t index);
  int (*GetInputMemoryType)(const struct OrtCustomOp *, size_t index);
  int (*GetVariadicInputMinArity)(const struct OrtCustomOp *);
  int (*GetVariadicInputHomogeneity)(const struct OrtCustomOp *);
  int (*GetVariadicOutputMinArity)(const struct OrtCustomOp *);
  int (*GetVariadicOutputHomogeneity)(const struct OrtCustomOp *);
  OrtStatus *(*CreateKernelV2)(const struct OrtCustomOp *, const OrtApi *, const void *info, void **kernel);
  OrtStatus *(*KernelComputeV2)(void *kernel, void *context);
  OrtStatus *(*InferOutputShapeFn)(const struct OrtCustomOp *, void *context);
  int (*GetStartVersion)(const struct OrtCustomOp *);
  int (*GetEndVersion)(const struct OrtCustomOp *);
  void *later[8];
} OrtCustomOp;
