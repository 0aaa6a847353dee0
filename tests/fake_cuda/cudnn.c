// cuDNN: descriptors of its graph API, one engine without a workspace for every operation, and its executions counted.
#include "fake.h"

enum { RESULTS = 202, KNOBS = 302 };                               // attributes
enum { INT64 = 3, KNOB = 9, DESCRIPTOR = 15, MODE = 17, INT32 = 23 };  // their types

static int made(void **handle) { return *handle = calloc(1, 64), SUCCESS; }

int cudnnCreate(void **handle) { return made(handle); }
size_t cudnnGetVersion(void) { return 91300; }
const char *cudnnGetErrorString(int status) { return "cuDNN status"; }
void cudnnGetLastErrorString(char *text, size_t room) { if (room) text[0] = 0; }
int cudnnCreateTensorDescriptor(void **handle) { return made(handle); }
int cudnnCreateConvolutionDescriptor(void **handle) { return made(handle); }
int cudnnCreateFilterDescriptor(void **handle) { return made(handle); }
int cudnnCreateActivationDescriptor(void **handle) { return made(handle); }
int cudnnCreateReduceTensorDescriptor(void **handle) { return made(handle); }
int cudnnBackendCreateDescriptor(int kind, void **handle) { return made(handle); }
int cudnnBackendDestroyDescriptor(void *d) { return SUCCESS; }
int cudnnBackendFinalize(void *d) { return SUCCESS; }
int cudnnBackendSetAttribute(void *d, int attribute, int type, int64_t n, const void *value) { return SUCCESS; }

int cudnnBackendGetAttribute(void *d, int attribute, int type, int64_t asked, int64_t *count, void *value) {
    int64_t found = attribute == RESULTS || (type == DESCRIPTOR && asked && attribute != KNOBS);
    if (asked > 0 && value) {
        if (type == INT64) *(int64_t *)value = 0;
        if (type == INT32 || type == KNOB || type == MODE) *(int32_t *)value = 0;
        found |= type == INT64 || type == INT32 || type == KNOB || type == MODE;
    }
    if (count) *count = found;
    return SUCCESS;
}

int cudnnBackendExecute(void *handle, void *plan, void *variants) { return called("launch of cuDNN's plan"); }
int cudnnAddTensor(void) { return called("launch of cudnnAddTensor"); }
int cudnnBatchNormalizationForwardTraining(void) { return called("launch of cudnnBatchNormalization"); }
