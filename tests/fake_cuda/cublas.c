// cuBLAS: handles, and products that are only counted.
#include "fake.h"

int cublasCreate_v2(void **handle) { return *handle = malloc(64), called("cublasCreate"); }
int cublasGetMathMode(void *handle, int *mode) { return *mode = 0, SUCCESS; }
int cublasSetMathMode(void *handle, int mode) { return SUCCESS; }
int cublasSetStream_v2(void *handle, void *stream) { return SUCCESS; }
const char *cublasGetStatusName(int status) { return "cuBLAS status"; }
const char *cublasGetStatusString(int status) { return "cuBLAS status"; }

#define LAUNCHES(name) \
    int name(void) { return called("launch of " #name); }
LAUNCHES(cublasGemmEx)
LAUNCHES(cublasGemmBatchedEx)
LAUNCHES(cublasGemmStridedBatchedEx)
LAUNCHES(cublasSgemm_v2)
LAUNCHES(cublasSgemmBatched)
LAUNCHES(cublasSgemmStridedBatched)
LAUNCHES(cublasSgeam)
LAUNCHES(cublasScopy_v2)
LAUNCHES(cublasSscal_v2)
