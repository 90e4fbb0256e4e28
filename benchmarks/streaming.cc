// Bare kernels: they read and write the same bytes as the pooling kernels, in the same order, and
// compute next to nothing. Built by bench_pooling_limit.py for the machine it runs on.
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "pooling_cpu.h"

namespace {

using dlbench::Geometry;
using dlbench::Type;

#if defined(__AVX512F__)
constexpr int64_t kBytes = 64;
#elif defined(__AVX2__)
constexpr int64_t kBytes = 32;
#else
constexpr int64_t kBytes = 16;
#endif
using Vector __attribute__((vector_size(kBytes))) = int32_t;

inline Vector Load(const uint8_t* from) {
  Vector vector;
  std::memcpy(&vector, from, kBytes);
  return vector;
}

// `kStream`: around the caches, where the processor has such stores.
template <bool kStream>
inline void Store(uint8_t* to, Vector vector) {
#if defined(__AVX512F__)
  if (kStream) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)vector);
#elif defined(__AVX2__)
  if (kStream) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)vector);
#elif defined(__SSE2__)
  if (kStream) return _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)vector);
#endif
  std::memcpy(to, &vector, kBytes);
}

// Reads bytes that nothing is made of.
template <int kCount>
inline void Read(const uint8_t* from) {
  if constexpr (kCount >= 16) {
    using Bytes __attribute__((vector_size(kCount))) = uint8_t;
    Bytes bytes;
    std::memcpy(&bytes, from, kCount);
    asm volatile("" : : "x"(bytes));
  } else {
    std::conditional_t<kCount == 8, uint64_t, uint32_t> word = 0;
    std::memcpy(&word, from, kCount);
    asm volatile("" : : "r"(word));
  }
}

struct Tensors {
  uint8_t *dense, *values, *indices;
  int64_t item;  // bytes of a value
};

// Calls body(top, bottom, values, indices) for the vectors of every pixel of the pooled rows
// [begin, end): two dense addresses, one a row, of the left of a window's columns.
template <int kIndices, class Body>
inline void ForVectors(const Geometry& g, const Tensors& t, int64_t begin, int64_t end,
                       Body body) {
  const int64_t pixel = g.channels * t.item, row = g.width * pixel;
  for (int64_t number = begin; number < end; ++number) {
    uint8_t* dense = t.dense + number * 2 * row;
    uint8_t* values = t.values + number * g.columns() * pixel;
    uint8_t* indices = t.indices + number * g.columns() * g.index_channels();
    for (int64_t column = 0; column < g.columns(); ++column, dense += 2 * pixel) {
      for (int64_t c = 0; c < pixel; c += kBytes, values += kBytes, indices += kIndices) {
        body(dense + c, dense + row + c, values, indices);
      }
    }
  }
}

template <int kIndices, bool kStream>
void Pool(const Geometry& g, const Tensors& t, int64_t begin, int64_t end) {
  const int64_t pixel = g.channels * t.item;
  ForVectors<kIndices>(
      g, t, begin, end, [=](uint8_t* top, uint8_t* bottom, uint8_t* values, uint8_t* indices) {
        const Vector all = Load(top) | Load(top + pixel) | Load(bottom) | Load(bottom + pixel);
        Store<kStream>(values, all);
        std::memcpy(indices, &all, kIndices);
      });
}

template <int kIndices, bool kStream>
void Gather(const Geometry& g, const Tensors& t, int64_t begin, int64_t end) {
  const int64_t pixel = g.channels * t.item;
  ForVectors<kIndices>(
      g, t, begin, end, [=](uint8_t* top, uint8_t* bottom, uint8_t* values, uint8_t* indices) {
        Read<kIndices>(indices);
        Store<kStream>(values,
                       Load(top) | Load(top + pixel) | Load(bottom) | Load(bottom + pixel));
      });
}

template <int kIndices, bool kStream>
void Unpool(const Geometry& g, const Tensors& t, int64_t begin, int64_t end) {
  const int64_t pixel = g.channels * t.item, row = g.width * pixel;
  if constexpr (!kStream) {
    ForVectors<kIndices>(
        g, t, begin, end, [=](uint8_t* top, uint8_t* bottom, uint8_t* values, uint8_t* indices) {
          Read<kIndices>(indices);
          const Vector value = Load(values);
          Store<false>(top, value);
          Store<false>(top + pixel, value);
          Store<false>(bottom, value);
          Store<false>(bottom + pixel, value);
        });
    return;
  }
  // Line after line, which is what memory likes best.
  const uint8_t *values = t.values + begin * g.columns() * pixel,
                *indices = t.indices + begin * g.columns() * g.index_channels();
  uint8_t* const all = t.dense;
  const int64_t columns = g.columns(), step = g.index_channels();
  for (int64_t number = begin; number < end; ++number) {
    for (int64_t column = 0; column < columns; ++column, values += pixel, indices += step) {
      uint8_t* window = all + number * 2 * row + column * 2 * pixel;
      for (int local = 0; local < 4; ++local) {
        uint8_t* dense = window + local / 2 * row + local % 2 * pixel;
        const uint8_t* of = indices;
        for (int64_t c = 0; c < pixel; c += kBytes, of += kIndices) {
          Read<kIndices>(of);
          Store<true>(dense + c, Load(values + c));
        }
      }
    }
  }
}

using Kernel = void (*)(const Geometry&, const Tensors&, int64_t, int64_t);

template <int kIndices, bool kStream>
Kernel Choose(int operation) {
  constexpr Kernel kAll[] = {Pool<kIndices, kStream>, Unpool<kIndices, kStream>,
                             Gather<kIndices, kStream>};
  return kAll[operation];
}

// By the bytes of indices that go with a vector of values.
template <bool kStream>
Kernel Choose(int operation, int64_t indices) {
  switch (indices) {
    case kBytes / 2: return Choose<kBytes / 2, kStream>(operation);
    case kBytes / 4: return Choose<kBytes / 4, kStream>(operation);
    case kBytes / 8: return Choose<kBytes / 8, kStream>(operation);
    default: return Choose<kBytes / 16, kStream>(operation);
  }
}

}  // namespace

// Passes `repeats` times over tensors of 2 x 2 windows, all whole, of whole vectors of channels, on
// `threads` threads. operation: 0 pools, 1 unpools, 2 gathers; implementation: 0 is dlbench's, 1 the
// bare kernel, 2 the bare one that writes around the caches; type is 0 (float32) or 2 (bfloat16).
extern "C" void dlbench_pass(int operation, int implementation, int type, const int64_t* shape,
                             bool packed, int threads, int repeats, void* dense, void* values,
                             void* indices) {
  const Geometry g{shape[0], shape[1], shape[2], shape[3], 2, packed};
  const Type of = static_cast<Type>(type);
  const int64_t rows = g.batch * g.rows();
  const Tensors t{static_cast<uint8_t*>(dense), static_cast<uint8_t*>(values),
                  static_cast<uint8_t*>(indices), of == Type::kFloat32 ? 4 : 2};
  const char* error = nullptr;
  const dlbench::Kernels& ours = *dlbench::CurrentKernels(&error);
  const int64_t index_bytes = kBytes / t.item / (packed ? 4 : 1);
  const Kernel bare = implementation == 2 ? Choose<true>(operation, index_bytes)
                                          : Choose<false>(operation, index_bytes);
  const auto work = [&](int thread) {
    const int64_t begin = rows * thread / threads, end = rows * (thread + 1) / threads;
    for (int i = 0; i < repeats; ++i) {
      if (implementation != 0) {
        bare(g, t, begin, end);
      } else if (operation == 0) {
        ours.pool(of, g, t.dense, t.values, t.indices, begin, end);
      } else if (operation == 1) {
        ours.unpool(of, g, t.values, t.indices, t.dense, begin, end);
      } else {
        ours.gather(of, g, t.dense, t.indices, t.values, begin, end);
      }
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& thread : others) thread.join();
}
