// The loops, vectorised over wide rows. Each instruction set includes this file in a translation
// unit of its own after defining DLBENCH_VECTOR_BYTES and, where it can store around the caches,
// DLBENCH_STREAM(address, vector) and DLBENCH_STREAM_END(). No std:: function is called here, see
// pooling_cpu_kernels.h. Compiled without contraction, so that every processor rounds alike.
#include "normalization_cpu.h"

namespace dlbench {
namespace {

#define DLBENCH_INLINE inline __attribute__((always_inline))
#if !defined(DLBENCH_STREAM)
#define DLBENCH_STREAM(address, vector) __builtin_memcpy(address, &vector, sizeof(vector))
#define DLBENCH_STREAM_END()
#endif

constexpr int64_t kLanes = DLBENCH_VECTOR_BYTES / 4;
using Vector __attribute__((vector_size(DLBENCH_VECTOR_BYTES))) = float;
using Bits __attribute__((vector_size(DLBENCH_VECTOR_BYTES))) = uint32_t;

// Read side by side: few enough streams for the processor to fetch ahead, and sums are read and
// written once for all of them.
constexpr int kTogether = 4;
// Sums in float32 are of so many wide rows at most, around the first of them: the error of their
// squares is then below this many roundings, whatever the values. Longer sums are in float64.
constexpr int64_t kChunk = 64;

template <class T>
DLBENCH_INLINE T Read(const void* from) {
  T vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}

// Asks for what is read next: the processor itself fetches ahead only up to the end of a page.
// Half a page ahead pays most, with AVX-512 by a third in `Moments` and a fifth in the others (where
// tensors are larger than the caches; nearer or further ahead, less).
constexpr int64_t kAhead = 2048;  // bytes

template <class T>
DLBENCH_INLINE void FetchAhead(const T* from) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead, 0, 2);
}

template <bool kStream, class T>
DLBENCH_INLINE void Write(void* to, T vector) {
  if constexpr (kStream) {
    DLBENCH_STREAM(to, vector);
  } else {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }
}

// A vector's worth of stored values is kVectors of float32.
struct Float32 {
  using Stored = float;
  static constexpr int kVectors = 1;
  static DLBENCH_INLINE void Load(const Stored* from, Vector (&to)[1]) {
    FetchAhead(from);
    to[0] = Read<Vector>(from);
  }
  template <bool kStream>
  static DLBENCH_INLINE void Store(Stored* to, const Vector (&from)[1]) {
    Write<kStream>(to, from[0]);
  }
};

struct BFloat16 {
  using Stored = uint16_t;
  static constexpr int kVectors = 2;
  static DLBENCH_INLINE void Load(const Stored* from, Vector (&to)[2]) {
    FetchAhead(from);
    const Bits pairs = Read<Bits>(from);
    to[0] = (Vector)(pairs << 16);
    to[1] = (Vector)(pairs & 0xffff0000u);
  }
  template <bool kStream>
  static DLBENCH_INLINE void Store(Stored* to, const Vector (&from)[2]) {
    Write<kStream>(to, Rounded(from[0]) >> 16 | (Rounded(from[1]) & 0xffff0000u));
  }

 private:
  // To nearest, ties to even, in the upper half.
  static DLBENCH_INLINE Bits Rounded(Vector value) {
    const Bits bits = (Bits)value;
    const Bits rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return value == value ? rounded : bits | 0x00400000u;
  }
};

template <int kCount>
struct Together {
  static constexpr int kRows = kCount;
};

// Runs `body(together, i, at)` for a vector's worth of values at a time: i is their place in a row
// and `at` that in the first of the rows that are read together.
template <class Format, class Body>
DLBENCH_INLINE void ForValues(int64_t width, int64_t rows, Body body) {
  constexpr int64_t kStep = kLanes * Format::kVectors;
  int64_t row = 0;
  for (; row + kTogether <= rows; row += kTogether) {
    for (int64_t i = 0; i < width; i += kStep) body(Together<kTogether>{}, i, row * width + i);
  }
  for (; row < rows; ++row) {
    for (int64_t i = 0; i < width; i += kStep) body(Together<1>{}, i, row * width + i);
  }
}

// The sum of a few vectors, in pairs.
template <int kRows>
DLBENCH_INLINE Vector Sum(const Vector (&of)[kRows]) {
  if constexpr (kRows == 1) return of[0];
  if constexpr (kRows == 4) return (of[0] + of[1]) + (of[2] + of[3]);
}

template <class Format>
void Moments(int64_t width, int64_t rows, const void* data, double* __restrict mean,
             double* __restrict squares, float* work) {
  float* __restrict shift = work;
  float* __restrict sum = work + width;
  float* __restrict square = work + 2 * width;
  for (int64_t i = 0; i < width; ++i) mean[i] = squares[i] = 0.0;
  for (int64_t begin = 0; begin < rows; begin += kChunk) {
    const int64_t count = rows - begin < kChunk ? rows - begin : kChunk;
    const auto* x = static_cast<const typename Format::Stored*>(data) + begin * width;
    for (int64_t i = 0; i < width; i += kLanes * Format::kVectors) {
      Vector first[Format::kVectors];
      Format::Load(x + i, first);
      for (int v = 0; v < Format::kVectors; ++v) Write<false>(shift + i + v * kLanes, first[v]);
    }
    for (int64_t i = 0; i < width; ++i) sum[i] = square[i] = 0.0f;
    ForValues<Format>(width, count, [=](auto together, int64_t i, int64_t at) {
      constexpr int kRows = decltype(together)::kRows;
      Vector values[kRows][Format::kVectors];
      for (int r = 0; r < kRows; ++r) Format::Load(x + at + r * width, values[r]);
      for (int v = 0; v < Format::kVectors; ++v) {
        const int64_t place = i + v * kLanes;
        const Vector around = Read<Vector>(shift + place);
        Vector apart[kRows], squared[kRows];
        for (int r = 0; r < kRows; ++r) {
          apart[r] = values[r][v] - around;
          squared[r] = apart[r] * apart[r];
        }
        Write<false>(sum + place, Read<Vector>(sum + place) + Sum<kRows>(apart));
        Write<false>(square + place, Read<Vector>(square + place) + Sum<kRows>(squared));
      }
    });
    // Chan, Golub & LeVeque, 1983, "Algorithms for computing the sample variance".
    const double before = static_cast<double>(begin), own = static_cast<double>(count);
    const double share = own / (before + own), weight = before * share, per = 1.0 / own;
    for (int64_t i = 0; i < width; ++i) {
      const double total = sum[i], apart = total * per;
      const double delta = shift[i] + apart - mean[i];
      mean[i] += delta * share;
      squares[i] += (square[i] - total * apart) + delta * delta * weight;
    }
  }
}

template <class Format, bool kRelu, bool kStream>
void Normalize(int64_t width, int64_t rows, const Coefficients& c, const void* from, void* to) {
  const auto* x = static_cast<const typename Format::Stored*>(from);
  auto* y = static_cast<typename Format::Stored*>(to);
  const float *mean = c.mean, *scale = c.scale, *offset = c.offset;
  ForValues<Format>(width, rows, [=](auto together, int64_t i, int64_t at) {
    constexpr int kRows = decltype(together)::kRows;
    Vector values[kRows][Format::kVectors];
    for (int r = 0; r < kRows; ++r) Format::Load(x + at + r * width, values[r]);
    for (int v = 0; v < Format::kVectors; ++v) {
      const int64_t place = i + v * kLanes;
      const Vector m = Read<Vector>(mean + place), s = Read<Vector>(scale + place);
      const Vector o = Read<Vector>(offset + place);
      for (int r = 0; r < kRows; ++r) {
        const Vector value = (values[r][v] - m) * s + o;
        // NaN passes.
        values[r][v] = kRelu ? (value <= 0.0f ? Vector{} : value) : value;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      Format::template Store<kStream>(y + at + r * width, values[r]);
    }
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class Format, bool kRelu>
void Sums(int64_t width, int64_t rows, const Coefficients& c, const void* dy_data,
          const void* x_data, double* __restrict sums, double* __restrict products, float* work) {
  float* __restrict sum = work;
  float* __restrict product = work + width;
  const float *mean = c.mean, *scale = c.scale, *offset = c.offset;
  for (int64_t i = 0; i < width; ++i) sums[i] = products[i] = 0.0;
  for (int64_t begin = 0; begin < rows; begin += kChunk) {
    const int64_t count = rows - begin < kChunk ? rows - begin : kChunk;
    const auto* dy = static_cast<const typename Format::Stored*>(dy_data) + begin * width;
    const auto* x = static_cast<const typename Format::Stored*>(x_data) + begin * width;
    for (int64_t i = 0; i < width; ++i) sum[i] = product[i] = 0.0f;
    ForValues<Format>(width, count, [=](auto together, int64_t i, int64_t at) {
      constexpr int kRows = decltype(together)::kRows;
      Vector values[kRows][Format::kVectors], gradients[kRows][Format::kVectors];
      for (int r = 0; r < kRows; ++r) Format::Load(x + at + r * width, values[r]);
      for (int r = 0; r < kRows; ++r) Format::Load(dy + at + r * width, gradients[r]);
      for (int v = 0; v < Format::kVectors; ++v) {
        const int64_t place = i + v * kLanes;
        const Vector m = Read<Vector>(mean + place);
        Vector own[kRows], times[kRows];
        for (int r = 0; r < kRows; ++r) {
          const Vector apart = values[r][v] - m;
          own[r] = gradients[r][v];
          if constexpr (kRelu) {
            const Vector y = apart * Read<Vector>(scale + place) + Read<Vector>(offset + place);
            own[r] = y > 0.0f ? own[r] : Vector{};
          }
          times[r] = own[r] * apart;
        }
        Write<false>(sum + place, Read<Vector>(sum + place) + Sum<kRows>(own));
        Write<false>(product + place, Read<Vector>(product + place) + Sum<kRows>(times));
      }
    });
    for (int64_t i = 0; i < width; ++i) {
      sums[i] += sum[i];
      products[i] += product[i];
    }
  }
}

template <class Format, bool kRelu, bool kStream>
void Gradient(int64_t width, int64_t rows, const Coefficients& c, const void* dy_data,
              const void* x_data, void* dx_data) {
  const auto* dy = static_cast<const typename Format::Stored*>(dy_data);
  const auto* x = static_cast<const typename Format::Stored*>(x_data);
  auto* dx = static_cast<typename Format::Stored*>(dx_data);
  const float *mean = c.mean, *scale = c.scale, *offset = c.offset;
  const float *dy_mean = c.dy_mean, *dy_slope = c.dy_slope;
  ForValues<Format>(width, rows, [=](auto together, int64_t i, int64_t at) {
    constexpr int kRows = decltype(together)::kRows;
    Vector values[kRows][Format::kVectors], gradients[kRows][Format::kVectors];
    for (int r = 0; r < kRows; ++r) Format::Load(x + at + r * width, values[r]);
    for (int r = 0; r < kRows; ++r) Format::Load(dy + at + r * width, gradients[r]);
    for (int v = 0; v < Format::kVectors; ++v) {
      const int64_t place = i + v * kLanes;
      const Vector m = Read<Vector>(mean + place), s = Read<Vector>(scale + place);
      const Vector lost = Read<Vector>(dy_mean + place), slope = Read<Vector>(dy_slope + place);
      for (int r = 0; r < kRows; ++r) {
        const Vector apart = values[r][v] - m;
        Vector own = gradients[r][v];
        if constexpr (kRelu) {
          const Vector y = apart * s + Read<Vector>(offset + place);
          own = y > 0.0f ? own : Vector{};
        }
        values[r][v] = own * s - (lost + apart * slope);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      Format::template Store<kStream>(dx + at + r * width, values[r]);
    }
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class Format>
void Add(int64_t count, const void* a_data, const void* b_data, void* sum_data) {
  constexpr int64_t kStep = kLanes * Format::kVectors;
  using Stored = typename Format::Stored;
  const auto *a = static_cast<const Stored*>(a_data), *b = static_cast<const Stored*>(b_data);
  auto* sum = static_cast<Stored*>(sum_data);
  const auto add = [](const Stored* a, const Stored* b, Stored* sum) {
    Vector own[Format::kVectors], other[Format::kVectors];
    Format::Load(a, own);
    Format::Load(b, other);
    for (int v = 0; v < Format::kVectors; ++v) own[v] += other[v];
    Format::template Store<false>(sum, own);
  };
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) add(a + i, b + i, sum + i);
  if (i == count) return;
  Stored last_a[kStep] = {}, last_b[kStep] = {};
  for (int64_t j = i; j < count; ++j) {
    last_a[j - i] = a[j];
    last_b[j - i] = b[j];
  }
  add(last_a, last_b, last_a);
  for (int64_t j = i; j < count; ++j) sum[j] = last_a[j - i];
}

void AnyAdd(Data data, int64_t count, const void* a, const void* b, void* sum) {
  (data == Data::kFloat32 ? Add<Float32> : Add<BFloat16>)(count, a, b, sum);
}

void AnyMoments(Data data, int64_t width, int64_t rows, const void* x, double* mean,
                double* squares, float* work) {
  const auto moments = data == Data::kFloat32 ? Moments<Float32> : Moments<BFloat16>;
  moments(width, rows, x, mean, squares, work);
}

template <class Format>
auto NormalizeOf(bool relu, bool stream) {
  if (relu) return stream ? Normalize<Format, true, true> : Normalize<Format, true, false>;
  return stream ? Normalize<Format, false, true> : Normalize<Format, false, false>;
}

void AnyNormalize(Data data, int64_t width, int64_t rows, bool relu, bool stream,
                  const Coefficients& c, const void* x, void* y) {
  const auto normalize = data == Data::kFloat32 ? NormalizeOf<Float32>(relu, stream)
                                                : NormalizeOf<BFloat16>(relu, stream);
  normalize(width, rows, c, x, y);
}

void AnySums(Data data, int64_t width, int64_t rows, bool relu, const Coefficients& c,
             const void* dy, const void* x, double* sum, double* product, float* work) {
  const auto wide = relu ? Sums<Float32, true> : Sums<Float32, false>;
  const auto narrow = relu ? Sums<BFloat16, true> : Sums<BFloat16, false>;
  (data == Data::kFloat32 ? wide : narrow)(width, rows, c, dy, x, sum, product, work);
}

template <class Format>
auto GradientOf(bool relu, bool stream) {
  if (relu) return stream ? Gradient<Format, true, true> : Gradient<Format, true, false>;
  return stream ? Gradient<Format, false, true> : Gradient<Format, false, false>;
}

void AnyGradient(Data data, int64_t width, int64_t rows, bool relu, bool stream,
                 const Coefficients& c, const void* dy, const void* x, void* dx) {
  const auto gradient = data == Data::kFloat32 ? GradientOf<Float32>(relu, stream)
                                               : GradientOf<BFloat16>(relu, stream);
  gradient(width, rows, c, dy, x, dx);
}

}  // namespace
}  // namespace dlbench
