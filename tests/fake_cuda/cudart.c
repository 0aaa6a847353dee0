// The CUDA runtime of an RTX 3090, as far as ONNX Runtime's CUDA provider uses it. `build.py` adds the rest.
#include "fake.h"
#include <stdio.h>

enum { VERSION = 13000, SMALL = 1 << 16 };  // bytes up to which copies are made: sizes and pointers, not pictures

static int handle(void **made, const char *name) {
    *made = malloc(64);
    return called(name);
}

// Devices

// `cudaDeviceProp` of CUDA 13, in which textures and surfaces are left out.
struct properties {
    char name[256], identity[28];
    size_t memory, shared_per_block;
    int registers_per_block, warp;
    size_t pitch;
    int threads_per_block, threads[3], grid[3];
    size_t constant;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int processors, textures[41];
    size_t surface_alignment;
    int concurrent_kernels, ecc, pci[3], tcc, copy_engines, unified, bus, l2, persisting_l2, threads_per_processor;
    int priorities, l1[2];
    size_t shared_per_processor;
    int registers_per_processor, features[8];
    size_t shared_per_block_optin;
};

int cudaGetDeviceProperties(struct properties *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "NVIDIA GeForce RTX 3090");
    p->memory = all_device_bytes();
    p->shared_per_block = 49152;
    p->shared_per_block_optin = 101376;
    p->shared_per_processor = 102400;
    p->registers_per_block = p->registers_per_processor = 65536;
    p->warp = 32;
    p->threads_per_block = p->threads[0] = p->threads[1] = 1024;
    p->threads[2] = 64;
    p->threads_per_processor = 1536;
    p->grid[0] = 2147483647;
    p->grid[1] = p->grid[2] = 65535;
    p->major = 8;
    p->minor = 6;
    p->processors = 82;
    p->texture_alignment = 512;
    p->concurrent_kernels = 1;
    p->l2 = 6 << 20;
    return called("cudaGetDeviceProperties");
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    static const struct { int attribute, value; } known[] = {
        {1, 1024}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 49152}, {10, 32}, {16, 82}, {39, 1536},
        {75, 8}, {76, 6}, {81, 102400}, {97, 101376},
    };
    *value = 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].attribute == attribute) *value = known[i].value;
    return called("cudaDeviceGetAttribute");
}

int cudaGetDeviceCount(int *count) { return *count = 1, called("cudaGetDeviceCount"); }
int cudaGetDevice(int *device) { return *device = 0, called("cudaGetDevice"); }
int cudaDriverGetVersion(int *version) { return *version = VERSION, SUCCESS; }
int cudaRuntimeGetVersion(int *version) { return *version = VERSION, SUCCESS; }
int cudaDeviceSynchronize(void) { return called_outside_recordings("wait"); }
int cudaGetLastError(void) { return SUCCESS; }
int cudaPeekAtLastError(void) { return SUCCESS; }
const char *cudaGetErrorName(int error) { return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaError"; }

const char *cudaGetErrorString(int error) {
    if (error == OUT_OF_MEMORY) return "out of memory";
    return error == NOT_WHILE_RECORDING ? "operation not permitted when stream is capturing" : "unknown error";
}

int cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, uint64_t flags, int *status) {
    *found = NULL;
    if (status) *status = 1;  // not found
    return SUCCESS;
}

// Memory

int cudaMalloc(void **place, size_t bytes) {
    int refused = called_outside_recordings("allocation");
    return refused ? refused : take_memory(place, bytes);
}

int cudaFree(void *place) {
    int refused = called_outside_recordings("release");
    if (!refused && place) give_back_memory(place);
    return refused;
}

int cudaMallocHost(void **place, size_t bytes) { return *place = malloc(bytes), called_outside_recordings("pinned"); }
int cudaHostAlloc(void **place, size_t bytes, unsigned flags) { return cudaMallocHost(place, bytes); }
int cudaFreeHost(void *place) { return free(place), called("cudaFreeHost"); }

int cudaMemGetInfo(size_t *left, size_t *all) {
    *left = free_device_bytes();
    *all = all_device_bytes();
    return called("cudaMemGetInfo");
}

struct pointer { int type, device; void *on_device, *on_host; };

int cudaPointerGetAttributes(struct pointer *p, const void *place) {
    memset(p, 0, sizeof *p);
    p->type = 2;  // the device's: arrays that are bound come from elsewhere, too
    p->on_device = (void *)place;
    return SUCCESS;
}

static const char *direction(int kind, const void *to, const void *from) {
    if (kind == 4) kind = on_device(to) ? (on_device(from) ? 3 : 1) : (on_device(from) ? 2 : 0);
    static const char *const names[] = {"copy on the host", "upload", "download", "copy on the device"};
    return names[kind & 3];
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    if (bytes <= SMALL) memmove(to, from, bytes);
    return called(direction(kind, to, from));
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    int refused = called_outside_recordings("wait");
    return refused ? refused : cudaMemcpyAsync(to, from, bytes, kind, NULL);
}

// Streams, events, graphs

int cudaStreamCreate(void **stream) { return handle(stream, "cudaStreamCreate"); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return handle(stream, "cudaStreamCreate"); }
int cudaStreamSynchronize(void *stream) { return called_outside_recordings("wait"); }
int cudaEventCreate(void **event) { return handle(event, "cudaEventCreate"); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return handle(event, "cudaEventCreate"); }
int cudaEventSynchronize(void *event) { return called_outside_recordings("wait"); }
int cudaEventElapsedTime(float *ms, void *begin, void *end) { return *ms = 1, SUCCESS; }

int cudaStreamIsCapturing(void *stream, int *status) { return *status = recording(), SUCCESS; }

int cudaStreamBeginCapture(void *stream, int mode) {
    int refused = called_outside_recordings("graph begun");
    if (!refused) record(1);
    return refused;
}

int cudaStreamEndCapture(void *stream, void **graph) {
    record(0);
    return handle(graph, "graph recorded");
}

int cudaGraphInstantiate(void **made, void *graph, uint64_t flags) { return handle(made, "cudaGraphInstantiate"); }
int cudaGraphLaunch(void *graph, void *stream) { return called("graph launch"); }

// Kernels

enum { KERNELS = 1 << 17 };
static struct { const void *host; const char *name; } kernels[KERNELS];
static int registered = 0;

void **__cudaRegisterFatBinary(void *binary) { return malloc(64); }
void __cudaRegisterFatBinaryEnd(void **binary) {}
void __cudaUnregisterFatBinary(void **binary) {}
void __cudaRegisterVar(void **b, char *v, char *a, const char *name, int e, size_t bytes, int c, int g) {}

void __cudaRegisterFunction(void **b, const void *host, char *device, const char *name, int limit, void *t, void *d,
                            void *bl, void *gr, int *warp) {
    if (registered < KERNELS) {
        kernels[registered].host = host;
        kernels[registered++].name = name;
    }
}

static int launched(const void *kernel) {
    const char *name = "unknown";
    for (int i = 0; i < registered; i++)
        if (kernels[i].host == kernel) {
            name = kernels[i].name;
            break;
        }
    char text[1024];
    snprintf(text, sizeof text, "launch %s", name);
    return called(text);
}

typedef struct { unsigned x, y, z; } Dim;
static __thread struct { Dim grid, block; size_t shared; void *stream; } pushed;

unsigned __cudaPushCallConfiguration(Dim grid, Dim block, size_t shared, void *stream) {
    pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
    return SUCCESS;
}

int __cudaPopCallConfiguration(Dim *grid, Dim *block, size_t *shared, void **stream) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
    return SUCCESS;
}

int __cudaGetKernel(const void **kernel, const void *function) { return *kernel = function, SUCCESS; }
int __cudaLaunchKernel(const void *k, Dim g, Dim b, void **a, size_t s, void *stream) { return launched(k); }
int cudaLaunchKernel(const void *k, Dim g, Dim b, void **a, size_t s, void *stream) { return launched(k); }
int cudaLaunchCooperativeKernel(const void *k, Dim g, Dim b, void **a, size_t s, void *st) { return launched(k); }
int cudaLaunchKernelExC(const void *config, const void *kernel, void **arguments) { return launched(kernel); }
int cudaMemsetAsync(void *place, int value, size_t bytes, void *stream) { return called("fill"); }

int cudaFuncGetAttributes(void *attributes, const void *kernel) {
    struct { size_t shared, constant, local; int threads, registers, ptx, binary; } *a = attributes;
    memset(a, 0, sizeof *a);
    a->threads = 1024, a->registers = 32, a->ptx = a->binary = 86;
    return SUCCESS;
}

int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *k, int n, size_t s, unsigned f) {
    return *blocks = 2, SUCCESS;
}
