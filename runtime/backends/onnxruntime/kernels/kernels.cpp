// Operators of ONNX Runtime in float32 for the networks of the families on a CPU: what they compute, which
// part of it each thread gets, and their registration. The arithmetic is in simd.h.
//
//   FeedForward(x [.., C], gamma, beta, Wv [C, H], bv, Wg [C, H], bg, Wo [H, C], bo)
//       x + (v * gelu(g)) Wo + bo, where v, g = n Wv + bv, n Wg + bg and n is the layer norm of x
//   Mlp(x [.., C], gamma, beta, W1 [C, H], b1, W2 [H, C], b2)
//       x + gelu(n W1 + b1) W2 + b2, where n is the layer norm of x
//   SelfAttention(q, k, v [N, L, C] or [N, L, inner, C]; heads)
//       softmax(q k' / sqrt(C / heads)) v over L, for each head
//   GroupNorm(x [N, C, ..], gamma [C], beta [C]; epsilon, groups, silu)
//   Conv3x3(x [N, I, h, w], W [O, I, 3, 3], b [O])   stride 1, padding 1
//   Interleave(a, b, c, d [N, C, h, w])              [N, C, 2 h, 2 w]: a, b in even rows, c, d in odd ones
//
// C, H, I, O and C / heads are multiples of 16. Nothing is checked here: graphs are fused by `amodal.export.fused`.

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "onnxruntime.h"

struct FeedForward {
  const float *x, *gamma, *beta, *wv, *bv, *wg, *bg, *wo, *bo;
  float *y;
  size_t rows, C, H, block;
  float epsilon;
};
struct GroupNorm {
  const float *x, *gamma, *beta;
  float *y;
  size_t N, C, S, groups;
  float epsilon;
  bool silu;
};
struct Attention {
  const float *q, *k, *v;
  float *y;
  size_t N, L, inner, C, heads, dim;
  float scale;
};
// `w` is [36][I][O]. A row of the result has `across` tiles of 4x4, a picture `down` rows of them; a thread takes
// `rows` rows at once, or `tiles` tiles of one row.
struct Conv {
  const float *x, *w, *bias;
  float *y;
  size_t N, I, O, height, width, across, down, rows, tiles;
};
struct Interleave {
  const float *x[4];
  float *y;
  size_t planes, height, width;
};

struct Arithmetic {
  const char *name;
  size_t width;
  void (*feed_forward)(const FeedForward &, size_t start, size_t rows, float *room);
  void (*group_norm)(const GroupNorm &, size_t part);
  void (*group_norm_of_map)(const GroupNorm &, size_t map, float *room);
  void (*attention)(const Attention &, size_t part, float *room);
  void (*long_attention)(const Attention &, size_t part, float *room);
  void (*convolve)(const Conv &, size_t part, float *room);
  void (*interleave)(const Interleave &, size_t part);
};

static const float LOG2_E = 1.44269504f;
// From how many tokens on attention is taken in blocks: queries that a thread takes at once, and keys.
static const size_t LONG = 256, LONG_ROWS = 192, LONG_KEYS = 128;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

namespace plain {
#define NAME "plain"
#define W 4
#if defined(__aarch64__)
#define ROWS 8
#else
#define ROWS 4
#endif
#include "simd.h"
#undef NAME
#undef W
#undef ROWS
}  // namespace plain

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define NAME "avx2"
#define W 8
#define ROWS 6
#include "simd.h"
#undef NAME
#undef W
#undef ROWS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
#define NAME "avx512"
#define W 16
#define ROWS 12
#include "simd.h"
#undef NAME
#undef W
#undef ROWS
}  // namespace avx512
#pragma GCC pop_options
#endif

static const OrtApi *api;

// The widest instructions that the CPU has, up to a limit; null for none.
static const Arithmetic *chosen(const char *limit) {
  bool any = !limit || !*limit;
  (void)any;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && (any || !strcmp(limit, "avx512"))) return &avx512::arithmetic;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (any || strcmp(limit, "plain")))
    return &avx2::arithmetic;
#endif
  return &plain::arithmetic;
}

// Calls of ONNX Runtime

template <typename Result, typename... Arguments>
static Result call(int place, Arguments... arguments) {
  return ((Result(*)(Arguments...))api->place[place])(arguments...);
}

#define TRY(...)                                      \
  do {                                                \
    if (OrtStatus *failed = (__VA_ARGS__)) return failed; \
  } while (0)

struct Shape {
  int64_t dims[8];
  size_t rank = 0;
};

static OrtStatus *refuse(const char *why) { return call<OrtStatus *>(PLACE_CreateStatus, (int)ORT_FAIL, why); }

static OrtStatus *input(void *context, size_t index, const float **data, Shape *shape = nullptr) {
  const void *value;
  TRY(call<OrtStatus *>(PLACE_KernelContext_GetInput, (const void *)context, index, &value));
  TRY(call<OrtStatus *>(PLACE_GetTensorMutableData, (void *)value, (void **)data));
  if (!shape) return nullptr;
  void *info;
  TRY(call<OrtStatus *>(PLACE_GetTensorTypeAndShape, value, &info));
  OrtStatus *status = call<OrtStatus *>(PLACE_GetDimensionsCount, (const void *)info, &shape->rank);
  if (!status && shape->rank > 8) status = refuse("a tensor has more than 8 axes");
  if (!status) status = call<OrtStatus *>(PLACE_GetDimensions, (const void *)info, &shape->dims[0], shape->rank);
  call<void>(PLACE_ReleaseTensorTypeAndShapeInfo, info);
  return status;
}

static OrtStatus *output(void *context, const Shape &shape, float **data) {
  void *value;
  TRY(call<OrtStatus *>(PLACE_KernelContext_GetOutput, context, (size_t)0, (const int64_t *)shape.dims, shape.rank, &value));
  return call<OrtStatus *>(PLACE_GetTensorMutableData, value, (void **)data);
}

// Calls work(part, room) for every part, on the session's threads; `room` has space for `floats` values.
template <typename Work>
static OrtStatus *parallel(void *context, size_t parts, size_t floats, Work work) {
  struct Job {
    Work &work;
    size_t floats;
    std::atomic<bool> failed;
  } job{work, floats, {false}};
  void (*run)(void *, size_t) = [](void *data, size_t part) {
    Job &job = *(Job *)data;
    // Kept by the thread: giving memory back and asking for it again would cost more than the work.
    static thread_local struct Room {
      float *start = nullptr;
      size_t floats = 0;
      ~Room() { free(start); }
    } room;
    if (room.floats < job.floats) {
      free(room.start);
      room.start = (float *)aligned_alloc(64, (job.floats * sizeof(float) + 63) / 64 * 64);
      room.floats = room.start ? job.floats : 0;
    }
    if (job.floats && !room.start)
      job.failed = true;
    else
      job.work(part, room.start);
  };
  if (parts == 1)
    run(&job, 0);
  else if (parts)
    TRY(call<OrtStatus *>(PLACE_KernelContext_ParallelFor, (const void *)context, run, parts, (size_t)0, (void *)&job));
  return job.failed ? refuse("not enough memory for a kernel") : nullptr;
}

static size_t product_of(const Shape &shape, size_t from, size_t to) {
  size_t result = 1;
  for (size_t i = from; i < to; i++) result *= shape.dims[i];
  return result;
}

// Kernels. Their state: what is read off the attributes or made of the weights.

struct Kernel {
  const Arithmetic *cpu = nullptr;
  float epsilon = 0;
  int64_t heads = 0, groups = 0, silu = 0;
  std::atomic<float *> transformed{nullptr};
};

static OrtStatus *run_feed_forward(Kernel &kernel, void *context, bool gated) {
  FeedForward f = {};
  Shape shape, wide;
  const float **gated_inputs[] = {&f.x, &f.gamma, &f.beta, &f.wv, &f.bv, &f.wg, &f.bg, &f.wo, &f.bo};
  const float **plain_inputs[] = {&f.x, &f.gamma, &f.beta, &f.wv, &f.bv, &f.wo, &f.bo};
  for (size_t i = 0; i < (gated ? 9 : 7); i++)
    TRY(input(context, i, gated ? gated_inputs[i] : plain_inputs[i], i == 0 ? &shape : i == 3 ? &wide : nullptr));
  TRY(output(context, shape, &f.y));
  f.C = shape.dims[shape.rank - 1];
  f.H = wide.dims[1];
  f.rows = product_of(shape, 0, shape.rank - 1);
  f.epsilon = kernel.epsilon;
  size_t each = f.C + (gated ? 2 : 1) * f.H;
  // Rows at once: what is between the two products stays in a core's second cache.
  for (f.block = 48; f.block > 12 && f.block * each > 120000;) f.block -= 12;
  return parallel(context, (f.rows + f.block - 1) / f.block, f.block * each, [&](size_t part, float *room) {
    size_t start = part * f.block, left = f.rows - start;
    kernel.cpu->feed_forward(f, start, left < f.block ? left : f.block, room);
  });
}

static OrtStatus *run_geglu(Kernel &kernel, void *context) { return run_feed_forward(kernel, context, true); }
static OrtStatus *run_mlp(Kernel &kernel, void *context) { return run_feed_forward(kernel, context, false); }

static OrtStatus *run_attention(Kernel &kernel, void *context) {
  Attention f;
  Shape shape;
  TRY(input(context, 0, &f.q, &shape));
  for (size_t i = 1; i < 3; i++) {
    Shape same;
    TRY(input(context, i, i == 1 ? &f.k : &f.v, &same));
    if (same.rank != shape.rank || memcmp(same.dims, shape.dims, shape.rank * sizeof(int64_t)))
      return refuse("queries, keys and values of different shapes");
  }
  TRY(output(context, shape, &f.y));
  f.N = shape.dims[0];
  f.L = shape.dims[1];
  f.inner = shape.rank == 4 ? shape.dims[2] : 1;
  f.C = shape.dims[shape.rank - 1];
  f.heads = kernel.heads;
  f.dim = f.C / f.heads;
  f.scale = 1 / sqrtf(f.dim);
  if (f.L >= LONG) {
    size_t floats = LONG_ROWS * (2 * f.dim + LONG_KEYS + 2) + f.dim * LONG_KEYS;
    size_t parts = f.N * f.inner * f.heads * ((f.L + LONG_ROWS - 1) / LONG_ROWS);
    return parallel(context, parts, floats, [&](size_t part, float *room) { kernel.cpu->long_attention(f, part, room); });
  }
  f.scale *= LOG2_E;  // powers of two are cheaper than those of e
  return parallel(context, f.N * f.inner, (f.L + f.dim) * 2 * kernel.cpu->width, [&](size_t part, float *room) {
    for (size_t head = 0; head < f.heads; head++) kernel.cpu->attention(f, part * f.heads + head, room);
  });
}

static OrtStatus *run_group_norm(Kernel &kernel, void *context) {
  GroupNorm f;
  Shape shape;
  TRY(input(context, 0, &f.x, &shape));
  TRY(input(context, 1, &f.gamma));
  TRY(input(context, 2, &f.beta));
  TRY(output(context, shape, &f.y));
  f.N = shape.dims[0];
  f.C = shape.dims[1];
  f.S = product_of(shape, 2, shape.rank);
  f.groups = kernel.groups;
  f.epsilon = kernel.epsilon;
  f.silu = kernel.silu;
  // Maps of a core's first cache are done as a whole; larger ones by group, for as many threads as there are.
  if (f.S < kernel.cpu->width || f.C * f.S <= 16384)
    return parallel(context, f.N, 2 * f.C, [&](size_t map, float *room) { kernel.cpu->group_norm_of_map(f, map, room); });
  return parallel(context, f.N * f.groups, 0, [&](size_t part, float *) { kernel.cpu->group_norm(f, part); });
}

// [O][I][3][3] becomes [36][I][O]: each kernel G k G', in double.
static float *transform(const float *weights, size_t O, size_t I) {
  static const double G[6][3] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                 {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};
  float *result = (float *)aligned_alloc(64, 36 * O * I * sizeof(float));
  if (!result) return nullptr;
  for (size_t o = 0; o < O; o++)
    for (size_t i = 0; i < I; i++) {
      const float *k = weights + (o * I + i) * 9;
      double half[6][3];
      for (int a = 0; a < 6; a++)
        for (int c = 0; c < 3; c++) half[a][c] = G[a][0] * k[c] + G[a][1] * k[3 + c] + G[a][2] * k[6 + c];
      for (int a = 0; a < 6; a++)
        for (int b = 0; b < 6; b++)
          result[((a * 6 + b) * I + i) * O + o] = half[a][0] * G[b][0] + half[a][1] * G[b][1] + half[a][2] * G[b][2];
    }
  return result;
}

static OrtStatus *run_conv(Kernel &kernel, void *context) {
  Conv f;
  Shape shape, weights;
  const float *w;
  TRY(input(context, 0, &f.x, &shape));
  TRY(input(context, 1, &w, &weights));
  TRY(input(context, 2, &f.bias));
  f.N = shape.dims[0];
  f.I = shape.dims[1];
  f.height = shape.dims[2];
  f.width = shape.dims[3];
  f.O = shape.dims[1] = weights.dims[0];
  TRY(output(context, shape, &f.y));
  if (!kernel.transformed) {  // at the first call; of two callers at once, one made it in vain
    float *made = transform(w, f.O, f.I), *before = nullptr;
    if (!made) return refuse("not enough memory for a convolution's weights");
    if (!kernel.transformed.compare_exchange_strong(before, made)) free(made);
  }
  f.w = kernel.transformed;
  f.across = (f.width + 3) / 4;
  f.down = (f.height + 3) / 4;
  // What a thread holds stays in its core's second cache.
  for (f.tiles = 48; f.tiles > 12 && 36 * f.tiles * (f.I + f.O) > 150000;) f.tiles -= 12;
  f.rows = f.across < f.tiles ? f.tiles / f.across : 1;
  size_t pieces = (f.across + f.tiles - 1) / f.tiles, strip = 6 * (4 * f.tiles + 2) * (f.I > f.O ? f.I : f.O);
  return parallel(context, (f.N * f.down + f.rows - 1) / f.rows * pieces, 36 * f.tiles * (f.I + f.O) + strip,
                  [&](size_t part, float *room) { kernel.cpu->convolve(f, part, room); });
}

static OrtStatus *run_interleave(Kernel &kernel, void *context) {
  Interleave f;
  Shape shape;
  TRY(input(context, 0, &f.x[0], &shape));
  for (size_t i = 1; i < 4; i++) TRY(input(context, i, &f.x[i]));
  f.planes = shape.dims[0] * shape.dims[1];
  f.height = shape.dims[2];
  f.width = shape.dims[3];
  shape.dims[2] *= 2;
  shape.dims[3] *= 2;
  TRY(output(context, shape, &f.y));
  return parallel(context, f.planes, 0, [&](size_t part, float *) { kernel.cpu->interleave(f, part); });
}

// Registration

struct Operator : OrtCustomOp {
  const char *name;
  size_t inputs;
  OrtStatus *(*run)(Kernel &, void *context);
  const char *integers[2], *number;
};

struct Instance : Kernel {
  const Operator *op;
};

static OrtStatus *create(const OrtCustomOp *self, const OrtApi *, const void *info, void **result) {
  const Operator *op = (const Operator *)self;
  Instance *made = new Instance;
  *result = made;
  made->op = op;
  made->cpu = chosen(getenv("AMODAL_KERNELS"));
  for (const char *name : op->integers)
    if (name) {
      int64_t &value = !strcmp(name, "heads") ? made->heads : !strcmp(name, "groups") ? made->groups : made->silu;
      TRY(call<OrtStatus *>(PLACE_KernelInfoGetAttribute_int64, info, name, &value));
    }
  if (op->number) TRY(call<OrtStatus *>(PLACE_KernelInfoGetAttribute_float, info, op->number, &made->epsilon));
  return nullptr;
}

static OrtStatus *compute(void *kernel, void *context) {
  Instance &made = *(Instance *)kernel;
  return made.op->run(made, context);
}

static void destroy(void *kernel) {
  Instance *made = (Instance *)kernel;
  free(made->transformed);
  delete made;
}

static Operator described(const char *name, size_t inputs, OrtStatus *(*run)(Kernel &, void *), const char *first = nullptr,
                          const char *second = nullptr, const char *number = nullptr) {
  Operator op = {};
  op.version = ORT_VERSION;
  op.GetName = [](const OrtCustomOp *self) { return ((const Operator *)self)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp *) { return "CPUExecutionProvider"; };
  op.GetInputType = op.GetOutputType = [](const OrtCustomOp *, size_t) { return (int)ORT_FLOAT; };
  op.GetInputTypeCount = [](const OrtCustomOp *self) { return ((const Operator *)self)->inputs; };
  op.GetOutputTypeCount = [](const OrtCustomOp *) { return (size_t)1; };
  op.GetInputCharacteristic = op.GetOutputCharacteristic = [](const OrtCustomOp *, size_t) { return (int)ORT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp *, size_t) { return 0; };
  op.GetVariadicInputMinArity = op.GetVariadicOutputMinArity = [](const OrtCustomOp *) { return 1; };
  op.GetVariadicInputHomogeneity = op.GetVariadicOutputHomogeneity = [](const OrtCustomOp *) { return 1; };
  op.GetStartVersion = [](const OrtCustomOp *) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp *) { return 0x7fffffff; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = destroy;
  op.name = name;
  op.inputs = inputs;
  op.run = run;
  op.integers[0] = first;
  op.integers[1] = second;
  op.number = number;
  return op;
}

// "avx512", "avx2" or "plain".
extern "C" __attribute__((visibility("default"))) const char *amodal_kernels_instructions(const char *limit) {
  return chosen(limit)->name;
}

// What ONNX Runtime calls for `register_custom_ops_library`.
extern "C" __attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(void *options, const OrtApiBase *base) {
  static Operator operators[] = {
      described("FeedForward", 9, run_geglu, nullptr, nullptr, "epsilon"),
      described("Mlp", 7, run_mlp, nullptr, nullptr, "epsilon"),
      described("SelfAttention", 3, run_attention, "heads"),
      described("GroupNorm", 3, run_group_norm, "groups", "silu", "epsilon"),
      described("Conv3x3", 3, run_conv),
      described("Interleave", 4, run_interleave),
  };
  api = base->GetApi(ORT_VERSION);
  void *domain;  // lives as long as the process, as do the operators
  TRY(call<OrtStatus *>(PLACE_CreateCustomOpDomain, "amodal", &domain));
  for (Operator &op : operators)
    TRY(call<OrtStatus *>(PLACE_CustomOpDomain_Add, domain, (const OrtCustomOp *)&op));
  return call<OrtStatus *>(PLACE_AddCustomOpDomain, options, domain);
}
