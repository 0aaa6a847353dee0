// The arithmetic of the kernels, for vectors of W floats. Included once for each instruction set, inside a namespace.
//
// ROWS: how many rows of a product are computed at once, with two vectors of columns: as many as registers hold.

typedef float vec __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(W * 4), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec splat(float x) { return x - vec{}; }
INLINE vec larger(vec a, vec b) { return a > b ? a : b; }
INLINE vec smaller(vec a, vec b) { return a < b ? a : b; }

INLINE float sum_of(vec v) {
  for (int half = W / 2; half; half /= 2) {
    ivec order;
    for (int i = 0; i < W; i++) order[i] = i ^ half;
    v += __builtin_shuffle(v, order);
  }
  return v[0];
}

INLINE float largest_of(vec v) {
  for (int half = W / 2; half; half /= 2) {
    ivec order;
    for (int i = 0; i < W; i++) order[i] = i ^ half;
    v = larger(v, __builtin_shuffle(v, order));
  }
  return v[0];
}

// 2^x, to two units in the last place, for -126 <= x <= 127; smaller x as -126, and what is no number stays none. The
// polynomial is a fit of 2^r for |r| <= 1/2.
INLINE vec exp2_of(vec x) {
  x = x < -126.0f ? splat(-126.0f) : x;
  vec n = (x + 12582912.0f) - 12582912.0f;  // to the nearest whole number
  vec r = x - n;
  vec p = splat(1.5353362e-4f);
  p = p * r + 1.3398874e-3f;
  p = p * r + 9.6184373e-3f;
  p = p * r + 5.5503324e-2f;
  p = p * r + 2.4022648e-1f;
  p = p * r + 6.9314720e-1f;
  p = p * r + 1.0f;
  return (vec)((ivec)p + (__builtin_convertvector(n, ivec) << 23));
}

// x / (1 + e^-x)
INLINE vec silu_of(vec x) { return x / (1.0f + exp2_of(smaller(x * -1.44269504f, splat(126.0f)))); }

// x (1 + erf(x / sqrt 2)) / 2. The quotient of polynomials is a fit of erf(z) / z in z^2, to 3e-8, for |z| <= 4; beyond,
// erf rounds to one.
INLINE vec gelu_of(vec x) {
  vec z = x * 0.707106781f, t = z * z;
  vec p = splat(1.9868039e-6f), q = splat(3.7420101e-5f);
  p = p * t + 2.8456032e-4f;
  p = p * t + 3.8831441e-3f;
  p = p * t + 5.3101134e-2f;
  p = p * t + 1.9354056e-1f;
  p = p * t + 1.1283791f;
  q = q * t + 1.1855206e-3f;
  q = q * t + 1.5206855e-2f;
  q = q * t + 1.1534812e-1f;
  q = q * t + 5.0485343e-1f;
  q = q * t + 1.0f;
  vec h = x * 0.5f, e = z * p / q;
  e = z >= 4.0f ? splat(1.0f) : e;
  e = z <= -4.0f ? splat(-1.0f) : e;
  return h + h * e;
}

// Rows of a [W, W] block become its columns: interleaving the halves, once for each bit of W.
INLINE void transpose(vec *v) {
  ivec low, high;
  for (int i = 0; i < W; i++) {
    low[i] = i / 2 + (i % 2) * W;
    high[i] = W / 2 + i / 2 + (i % 2) * W;
  }
  vec u[W];
  for (int bit = W; bit > 1; bit /= 2) {
    UNROLL for (int i = 0; i < W / 2; i++) {
      u[2 * i] = __builtin_shuffle(v[i], v[i + W / 2], low);
      u[2 * i + 1] = __builtin_shuffle(v[i], v[i + W / 2], high);
    }
    UNROLL for (int i = 0; i < W; i++) v[i] = u[i];
  }
}

// c[M, V W] = (c or 0) + bias + a[M, K] b[K, V W]
template <int M, int V>
static void tile(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, size_t K,
                 const float *bias, bool add) {
  vec s[M][V] = {};
  for (size_t k = 0; k < K; k++) {
    vec x[V];
    for (int j = 0; j < V; j++) x[j] = load(b + k * ldb + j * W);
    UNROLL for (int i = 0; i < M; i++) {
      float y = a[i * lda + k];
      for (int j = 0; j < V; j++) s[i][j] += y * x[j];
    }
  }
  // What is there already comes last: products are not rounded to its size one by one.
  for (int i = 0; i < M; i++)
    for (int j = 0; j < V; j++) {
      float *at = c + i * ldc + j * W;
      if (bias) s[i][j] += load(bias + j * W);
      store(at, add ? load(at) + s[i][j] : s[i][j]);
    }
}

// The same for any number of rows m <= M.
template <int M, int V>
static void rest(size_t m, const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, size_t K,
                 const float *bias, bool add) {
  if (m == M) return tile<M, V>(a, lda, b, ldb, c, ldc, K, bias, add);
  if constexpr (M > 1) rest<M - 1, V>(m, a, lda, b, ldb, c, ldc, K, bias, add);
}

template <int V>
static void columns(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, size_t m, size_t K,
                    const float *bias, bool add) {
  for (; m >= ROWS; m -= ROWS, a += ROWS * lda, c += ROWS * ldc) tile<ROWS, V>(a, lda, b, ldb, c, ldc, K, bias, add);
  if (m) rest<ROWS - 1, V>(m, a, lda, b, ldb, c, ldc, K, bias, add);
}

// c[m, n] = (c or 0) + bias + a[m, K] b[K, n]; n is a multiple of W.
static void product(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, size_t m, size_t n,
                    size_t K, const float *bias, bool add) {
  size_t j = 0;
  for (; j + 2 * W <= n; j += 2 * W) columns<2>(a, lda, b + j, ldb, c + j, ldc, m, K, bias ? bias + j : 0, add);
  if (j < n) columns<1>(a, lda, b + j, ldb, c + j, ldc, m, K, bias ? bias + j : 0, add);
}

// Of one row. What rounding left of the mean is taken off as well: beside a mean of a thousand it would count.
INLINE void layer_norm(const float *x, size_t C, const float *gamma, const float *beta, float epsilon, float *y) {
  vec s = {}, left = {};
  for (size_t c = 0; c < C; c += W) s += load(x + c);
  float mean = sum_of(s) / C;
  s = vec{};
  for (size_t c = 0; c < C; c += W) {
    vec d = load(x + c) - mean;
    left += d;
    s += d * d;
  }
  float rest = sum_of(left) / C, scale = 1.0f / sqrtf(sum_of(s) / C - rest * rest + epsilon);
  for (size_t c = 0; c < C; c += W)
    store(y + c, (load(x + c) - mean - rest) * scale * load(gamma + c) + load(beta + c));
}

// `rows` rows of C values, from `start` on. Without weights of a gate, GELU is of the values themselves.
static void feed_forward(const FeedForward &f, size_t start, size_t rows, float *room) {
  size_t C = f.C, H = f.H;
  float *normal = room, *value = normal + rows * C, *gate = value + rows * H, *y = f.y + start * C;
  const float *x = f.x + start * C;
  for (size_t r = 0; r < rows; r++) layer_norm(x + r * C, C, f.gamma, f.beta, f.epsilon, normal + r * C);
  memcpy(y, x, rows * C * sizeof(float));
  product(normal, C, f.wv, H, value, H, rows, H, C, f.bv, false);
  if (f.wg) product(normal, C, f.wg, H, gate, H, rows, H, C, f.bg, false);
  for (size_t i = 0; i < rows * H; i += W)
    store(value + i, f.wg ? load(value + i) * gelu_of(load(gate + i)) : gelu_of(load(value + i)));
  product(value, H, f.wo, C, y, C, rows, C, H, f.bo, true);
}

// The mean of n values, and one by their deviation. Sums are added in double after every 4096: there may be millions.
INLINE void moments(const float *x, size_t n, float epsilon, float *mean, float *scale) {
  double sum = 0;
  *mean = 0;
  if (n <= 16 * W && n % W == 0) {  // few enough to be held
    vec s = {}, v[16];
    for (size_t i = 0; i < n / W; i++) s += v[i] = load(x + i * W);
    *mean = sum_of(s) / n;
    s = vec{};
    for (size_t i = 0; i < n / W; i++) {
      v[i] -= *mean;
      s += v[i] * v[i];
    }
    *scale = 1.0f / sqrtf(sum_of(s) / n + epsilon);
    return;
  }
  for (int pass = 0; pass < 2; pass++, sum = 0) {
    for (size_t i = 0, end = 0; i < n;) {
      end = end + 4096 < n ? end + 4096 : n;
      vec s[4] = {};
      for (; i + 4 * W <= end; i += 4 * W)
        for (int j = 0; j < 4; j++) {
          vec d = load(x + i + j * W) - *mean;
          s[j] += pass ? d * d : d;
        }
      float rest = 0;
      for (; i < end; i++) rest += pass ? (x[i] - *mean) * (x[i] - *mean) : x[i];
      sum += sum_of((s[0] + s[1]) + (s[2] + s[3])) + rest;
    }
    (pass ? *scale : *mean) = sum / n;
  }
  *scale = 1.0f / sqrtf(*scale + epsilon);
}

// A channel: (x - mean) a + b, and SiLU.
INLINE void scaled(const float *x, float *y, size_t S, float mean, float scale, float shift, bool silu) {
  vec a = splat(scale), b = splat(shift);
  for (size_t j = 0;; j += W) {
    if (j + W > S) j = S - W;  // the last one overlaps that before
    vec t = (load(x + j) - mean) * a + b;
    store(y + j, silu ? silu_of(t) : t);
    if (j + W == S) break;
  }
}

// All groups of one map; `room` for 2 C values. Moments come first, so that those of several groups, each a chain of
// sums, are under way at once. Where channels are shorter than a vector, it is of several.
static void group_norm_of_map(const GroupNorm &f, size_t map, float *room) {
  size_t each = f.C / f.groups, filled = 0;
  const float *x = f.x + map * f.C * f.S;
  float *y = f.y + map * f.C * f.S, *a = room, *means = a + f.C, some[W] = {};
  for (size_t g = 0; g < f.groups; g++) {
    float mean, scale;
    moments(x + g * each * f.S, each * f.S, f.epsilon, &mean, &scale);
    for (size_t c = g * each; c < g * each + each; c++) {
      a[c] = scale * f.gamma[c];
      means[c] = mean;
    }
  }
  for (size_t c = 0; c < f.C; c++) {
    if (f.S >= W) {
      scaled(x + c * f.S, y + c * f.S, f.S, means[c], a[c], f.beta[c], f.silu);
      continue;
    }
    for (size_t k = 0; k < f.S; k++) {
      some[filled++] = (*x++ - means[c]) * a[c] + f.beta[c];
      if (filled < W && (k + 1 < f.S || c + 1 < f.C)) continue;
      if (f.silu) store(some, silu_of(load(some)));
      memcpy(y, some, filled * sizeof(float));
      y += filled;
      filled = 0;
    }
  }
}

// One group of one map.
static void group_norm(const GroupNorm &f, size_t part) {
  size_t each = f.C / f.groups, n = each * f.S, first = part % f.groups * each;
  const float *x = f.x + part * n;
  float *y = f.y + part * n, mean, scale;
  moments(x, n, f.epsilon, &mean, &scale);
  for (size_t c = 0; c < each; c++)
    scaled(x + c * f.S, y + c * f.S, f.S, mean, scale * f.gamma[first + c], f.beta[first + c], f.silu);
}

// One head of one sequence. Queries lie across two vectors: scores are [L][2 W], queries and results [dim][2 W].
static void attention(const Attention &f, size_t part, float *room) {
  const int V = 2, Q = V * W;
  size_t L = f.L, dim = f.dim, step = f.inner * f.C, h = part % f.heads, in = part / f.heads % f.inner;
  size_t base = (part / f.heads / f.inner * L * f.inner + in) * f.C + h * dim;
  const float *q = f.q + base, *k = f.k + base, *v = f.v + base;
  float *scores = room, *turned = scores + L * Q, *y = f.y + base;
  for (size_t first = 0; first < L; first += Q) {
    for (int u = 0; u < V; u++)
      for (size_t d = 0; d < dim; d += W) {
        vec t[W];
        for (int i = 0; i < W; i++) {
          size_t row = first + u * W + i;
          t[i] = load(q + (row < L ? row : first) * step + d) * f.scale;
        }
        transpose(t);
        for (int i = 0; i < W; i++) store(turned + (d + i) * Q + u * W, t[i]);
      }
    vec most[V], total[V] = {};
    for (int u = 0; u < V; u++) most[u] = splat(-INFINITY);
    size_t j = 0;
    for (; j < L; j += 4) {
      size_t count = L - j < 4 ? L - j : 4;
      vec t[4][V] = {};
      const float *at[4];
      for (size_t i = 0; i < 4; i++) at[i] = k + (j + (i < count ? i : 0)) * step;
      for (size_t d = 0; d < dim; d++)
        for (int i = 0; i < 4; i++) {
          float x = at[i][d];
          for (int u = 0; u < V; u++) t[i][u] += load(turned + d * Q + u * W) * x;
        }
      for (size_t i = 0; i < count; i++)
        for (int u = 0; u < V; u++) {
          store(scores + (j + i) * Q + u * W, t[i][u]);
          most[u] = larger(most[u], t[i][u]);
        }
    }
    for (j = 0; j < L; j++)
      for (int u = 0; u < V; u++) {
        float *at = scores + j * Q + u * W;
        vec e = exp2_of(load(at) - most[u]);
        total[u] += e;
        store(at, e);
      }
    for (int u = 0; u < V; u++) total[u] = 1.0f / total[u];
    for (size_t d = 0; d < dim; d += 8) {
      vec t[8][V] = {};
      for (j = 0; j < L; j++)
        for (int i = 0; i < 8; i++) {
          float x = v[j * step + d + i];
          for (int u = 0; u < V; u++) t[i][u] += load(scores + j * Q + u * W) * x;
        }
      for (int i = 0; i < 8; i++)
        for (int u = 0; u < V; u++) store(turned + (d + i) * Q + u * W, t[i][u] * total[u]);
    }
    for (int u = 0; u < V; u++)
      for (size_t d = 0; d < dim; d += W) {
        vec t[W];
        for (int i = 0; i < W; i++) t[i] = load(turned + (d + i) * Q + u * W);
        transpose(t);
        for (int i = 0; i < W; i++) {
          size_t row = first + u * W + i;
          if (row < L) store(y + row * step + d, t[i]);
        }
      }
  }
}

// Some of the queries of one head of a long sequence: a block of keys after the other, with the softmax over those so
// far (Dao et al., NeurIPS 2022), so that scores never leave a core's second cache.
static void long_attention(const Attention &f, size_t part, float *room) {
  const size_t B = LONG_KEYS, L = f.L, dim = f.dim, step = f.inner * f.C, all = (L + LONG_ROWS - 1) / LONG_ROWS;
  size_t first = part % all * LONG_ROWS, h = part / all % f.heads, in = part / all / f.heads % f.inner;
  size_t base = (part / all / f.heads / f.inner * L * f.inner + in) * f.C + h * dim;
  size_t rows = L - first < LONG_ROWS ? L - first : LONG_ROWS;
  float *q = room, *turned = q + LONG_ROWS * dim, *scores = turned + dim * B, *sums = scores + LONG_ROWS * B;
  float *most = sums + LONG_ROWS * dim, *total = most + LONG_ROWS;
  for (size_t i = 0; i < rows; i++) {
    for (size_t d = 0; d < dim; d += W) {
      store(q + i * dim + d, load(f.q + base + (first + i) * step + d) * f.scale);
      store(sums + i * dim + d, vec{});
    }
    most[i] = -INFINITY;
    total[i] = 0;
  }
  for (size_t from = 0; from < L; from += B) {
    size_t count = L - from < B ? L - from : B, wide = (count + W - 1) / W * W;
    const float *k = f.k + base + from * step, *v = f.v + base + from * step;
    for (size_t j = 0; j < wide; j += W)
      for (size_t d = 0; d < dim; d += W) {
        vec t[W];
        for (size_t i = 0; i < W; i++) t[i] = load(k + (j + i < count ? j + i : j) * step + d);
        transpose(t);
        for (size_t i = 0; i < W; i++) store(turned + (d + i) * B + j, t[i]);
      }
    product(q, dim, turned, B, scores, B, rows, wide, dim, 0, false);
    for (size_t i = 0; i < rows; i++) {
      float *s = scores + i * B;
      vec top = load(s), sum = {};
      for (size_t j = W; j < wide; j += W) top = larger(top, load(s + j));
      float before = most[i], now = largest_of(top);
      if (before > now) now = before;
      most[i] = now;
      for (size_t j = 0; j < wide; j += W) {
        vec e = exp2_of((load(s + j) - now) * LOG2_E);
        sum += e;
        store(s + j, e);
      }
      if (count < wide) {  // what was beside the last keys are copies of one of them
        sum = vec{};
        for (size_t j = count; j < wide; j++) s[j] = 0;
        for (size_t j = 0; j < wide; j += W) sum += load(s + j);
      }
      if (now > before && from) {
        float less = exp2_of(splat((before - now) * LOG2_E))[0];
        total[i] *= less;
        for (size_t d = 0; d < dim; d += W) store(sums + i * dim + d, load(sums + i * dim + d) * less);
      }
      total[i] += sum_of(sum);
    }
    product(scores, B, v, step, sums, dim, rows, dim, count, 0, true);
  }
  for (size_t i = 0; i < rows; i++)
    for (size_t d = 0; d < dim; d += W)
      store(f.y + base + (first + i) * step + d, load(sums + i * dim + d) * (1.0f / total[i]));
}

// Winograd's F(4x4, 3x3): six values in, six products, four values out, along each axis (Lavin and Gray, CVPR 2016).
INLINE void six(vec *o, const vec *d) {
  vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1], c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
  o[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  o[1] = a + b;
  o[2] = a - b;
  o[3] = c + e;
  o[4] = c - e;
  o[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

INLINE void four(vec *o, const vec *m) {
  vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
  o[0] = m[0] + a + c;
  o[1] = b + 2.0f * e;
  o[2] = a + 4.0f * c;
  o[3] = b + 8.0f * e + m[5];
}

// Tiles `first` to `first + count` of one row of tiles: six rows of the picture, channels last, then [36][tiles][I].
static void tiles_in(const Conv &f, size_t image, size_t row, size_t first, size_t count, float *strip, float *out,
                     size_t tiles) {
  size_t I = f.I, wide = 4 * count + 2, plane = f.height * f.width;
  ptrdiff_t left = 4 * (ptrdiff_t)first - 1, top = 4 * (ptrdiff_t)row - 1;
  // The strip's columns that lie in the picture; the others are its zero padding.
  size_t begin = left < 0, end = (ptrdiff_t)f.width - left < (ptrdiff_t)wide ? f.width - left : wide;
  for (int r = 0; r < 6; r++) {
    ptrdiff_t at = top + r;
    float *to = strip + r * wide * I;
    if (at < 0 || at >= (ptrdiff_t)f.height) {
      memset(to, 0, wide * I * sizeof(float));
      continue;
    }
    for (size_t c = 0; c < I; c += W) {
      const float *from = f.x + (image * I + c) * plane + at * f.width;
      size_t p = begin;
      for (; p + W <= end; p += W) {
        vec t[W];
        for (int i = 0; i < W; i++) t[i] = load(from + i * plane + left + p);
        transpose(t);
        for (int i = 0; i < W; i++) store(to + (p + i) * I + c, t[i]);
      }
      for (; p < end; p++)
        for (int i = 0; i < W; i++) to[p * I + c + i] = from[i * plane + left + p];
      for (p = 0; p < begin; p++) store(to + p * I + c, vec{});
      for (p = end; p < wide; p++) store(to + p * I + c, vec{});
    }
  }
  for (size_t t = 0; t < count; t++, out += I)
    for (size_t c = 0; c < I; c += W) {
      vec m[6][6], d[6], o[6];
      for (int j = 0; j < 6; j++) {
        for (int i = 0; i < 6; i++) d[i] = load(strip + (i * wide + 4 * t + j) * I + c);
        six(o, d);
        for (int i = 0; i < 6; i++) m[i][j] = o[i];
      }
      for (int i = 0; i < 6; i++) {
        six(o, m[i]);
        for (int j = 0; j < 6; j++) store(out + (i * 6 + j) * tiles * I + c, o[j]);
      }
    }
}

// The way back: [36][tiles][O], then four rows of the result, channels last, then the result.
static void tiles_out(const Conv &f, size_t image, size_t row, size_t first, size_t count, const float *in,
                      size_t tiles, float *strip) {
  size_t O = f.O, wide = 4 * count, plane = f.height * f.width, left = 4 * first;
  for (size_t t = 0; t < count; t++, in += O)
    for (size_t c = 0; c < O; c += W) {
      vec m[4][6], d[6], o[4], bias = load(f.bias + c);
      for (int j = 0; j < 6; j++) {
        for (int i = 0; i < 6; i++) d[i] = load(in + (i * 6 + j) * tiles * O + c);
        four(o, d);
        for (int i = 0; i < 4; i++) m[i][j] = o[i];
      }
      for (int i = 0; i < 4; i++) {
        four(o, m[i]);
        for (int j = 0; j < 4; j++) store(strip + (i * wide + 4 * t + j) * O + c, o[j] + bias);
      }
    }
  size_t end = f.width - left < wide ? f.width - left : wide;
  for (size_t r = 0; r < 4 && 4 * row + r < f.height; r++)
    for (size_t c = 0; c < O; c += W) {
      const float *from = strip + r * wide * O + c;
      float *to = f.y + (image * O + c) * plane + (4 * row + r) * f.width + left;
      size_t p = 0;
      for (; p + W <= end; p += W) {
        vec t[W];
        for (int i = 0; i < W; i++) t[i] = load(from + (p + i) * O);
        transpose(t);
        for (int i = 0; i < W; i++) store(to + i * plane + p, t[i]);
      }
      for (; p < end; p++)
        for (int i = 0; i < W; i++) to[i * plane + p] = from[p * O + i];
    }
}

// One part of `Conv::parts`: rows of tiles, or a piece of one row.
static void convolve(const Conv &f, size_t part, float *room) {
  size_t pieces = (f.across + f.tiles - 1) / f.tiles, row = part / pieces * f.rows, all = f.N * f.down;
  size_t end = row + f.rows < all ? row + f.rows : all, first = part % pieces * f.tiles;
  size_t count = f.across - first < f.tiles ? f.across - first : f.tiles, tiles = (end - row) * count;
  float *in = room, *out = in + 36 * tiles * f.I, *strip = out + 36 * tiles * f.O;
  for (size_t r = row; r < end; r++)
    tiles_in(f, r / f.down, r % f.down, first, count, strip, in + (r - row) * count * f.I, tiles);
  for (size_t p = 0; p < 36; p++)
    product(in + p * tiles * f.I, f.I, f.w + p * f.I * f.O, f.O, out + p * tiles * f.O, f.O, tiles, f.O, f.I, 0, false);
  for (size_t r = row; r < end; r++)
    tiles_out(f, r / f.down, r % f.down, first, count, out + (r - row) * count * f.O, tiles, strip);
}

// One channel of one picture: [h, w] four times becomes [2 h, 2 w].
static void interleave(const Interleave &f, size_t part) {
  ivec low, high;
  for (int i = 0; i < W; i++) {
    low[i] = i / 2 + (i % 2) * W;
    high[i] = W / 2 + i / 2 + (i % 2) * W;
  }
  size_t plane = f.height * f.width;
  for (size_t r = 0; r < 2 * f.height; r++) {
    const float *a = f.x[r % 2 * 2] + part * plane + r / 2 * f.width, *b = f.x[r % 2 * 2 + 1] + (a - f.x[r % 2 * 2]);
    float *y = f.y + part * 4 * plane + r * 2 * f.width;
    size_t i = 0;
    for (; i + W <= f.width; i += W) {
      vec u = load(a + i), v = load(b + i);
      store(y + 2 * i, __builtin_shuffle(u, v, low));
      store(y + 2 * i + W, __builtin_shuffle(u, v, high));
    }
    for (; i < f.width; i++) {
      y[2 * i] = a[i];
      y[2 * i + 1] = b[i];
    }
  }
}

static const Arithmetic arithmetic = {NAME, W, feed_forward, group_norm, group_norm_of_map, attention, long_attention, convolve, interleave};
