// The kernels, vectorised over channels. Each instruction set includes this file in a translation
// unit of its own, with its own compiler flags, after defining DLBENCH_VECTOR_BYTES,
// DLBENCH_STREAM(address, vector) and DLBENCH_STREAM_END().
//
// The anonymous namespace keeps the copies apart. No std:: function is called here: the linker
// could choose an AVX-512 copy of it for the whole program.
#include "pooling_cpu.h"

namespace dlbench {
namespace {

// Dense outputs above this size go around the caches: they would evict what the next operation
// reads, and a plain store first reads the line that it overwrites.
constexpr int64_t kStreamBytes = int64_t{4} << 20;

template <class T>
struct Lanes {
  static constexpr int64_t kCount = DLBENCH_VECTOR_BYTES / sizeof(T);
  using Vector __attribute__((vector_size(DLBENCH_VECTOR_BYTES))) = T;
  using Bytes __attribute__((vector_size(DLBENCH_VECTOR_BYTES / sizeof(T)))) = uint8_t;

  static inline __attribute__((always_inline)) Vector Load(const T* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }
  template <bool kStream>
  static inline __attribute__((always_inline)) void Store(T* to, Vector vector) {
    if (kStream) {
      DLBENCH_STREAM(to, vector);
    } else {
      __builtin_memcpy(to, &vector, sizeof(vector));
    }
  }
  static inline __attribute__((always_inline)) Vector Widen(const uint8_t* from) {
    Bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof(bytes));
    return __builtin_convertvector(bytes, Vector);
  }
  static inline __attribute__((always_inline)) void Narrow(uint8_t* to, Vector vector) {
    const Bytes bytes = __builtin_convertvector(vector, Bytes);
    __builtin_memcpy(to, &bytes, sizeof(bytes));
  }
};

// Calls body(c) for whole vectors, the last one overlapping its neighbour (each body is a pure
// function from inputs to outputs, so writing a lane twice is harmless), or tail(c) for every
// channel when there are fewer of them than lanes.
template <int64_t kCount, class Body, class Tail>
inline __attribute__((always_inline)) void ForChannels(int64_t channels, Body body, Tail tail) {
  if (channels < kCount) {
    for (int64_t c = 0; c < channels; ++c) tail(c);
    return;
  }
  int64_t c = 0;
  for (; c + kCount <= channels; c += kCount) body(c);
  if (c < channels) body(channels - kCount);
}

// A window's size: known at compile time for whole k = 2 windows, else at run time.
template <int kRows, int kColumns>
struct Extent {
  int rows() const { return kRows; }
  int columns() const { return kColumns; }
  int k() const { return kRows; }
};
template <>
struct Extent<0, 0> {
  int rows_, columns_, k_;
  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int k() const { return k_; }
};

// Runs `window(extent, pooled offset, dense offset)` over the windows of rows [begin, end).
template <class Window>
inline __attribute__((always_inline)) void ForWindows(const Geometry& g, int64_t begin,
                                                      int64_t end, Window window) {
  const int64_t rows = g.rows(), columns = g.columns(), channels = g.channels;
  for (int64_t number = begin; number < end; ++number) {
    const int64_t image = number / rows, row = number % rows;
    const int height = Clip(row * g.k, g.height, g.k);
    int64_t pooled = number * columns * channels;
    int64_t dense = (image * g.height + row * g.k) * g.row_stride();
    int64_t column = 0;
    if (g.k == 2 && height == 2) {
      for (; column < g.width / 2; ++column, pooled += channels, dense += 2 * channels) {
        window(Extent<2, 2>{}, pooled, dense);
      }
    }
    for (; column < columns; ++column, pooled += channels, dense += g.k * channels) {
      window(Extent<0, 0>{height, Clip(column * g.k, g.width, g.k), g.k}, pooled, dense);
    }
  }
}

// Runs `element(local, dense offset)` over the positions of one window; whole 2 x 2 windows are
// spelled out, because a loop would keep the lanes in memory.
template <class Window, class Element>
inline __attribute__((always_inline)) void ForElements(Window w, int64_t row_stride,
                                                       int64_t channels, Element element) {
  for (int dy = 0; dy < w.rows(); ++dy) {
    for (int dx = 0; dx < w.columns(); ++dx) {
      element(dy * w.k() + dx, dy * row_stride + dx * channels);
    }
  }
}
template <class Element>
inline __attribute__((always_inline)) void ForElements(Extent<2, 2>, int64_t row_stride,
                                                       int64_t channels, Element element) {
  element(0, 0);
  element(1, channels);
  element(2, row_stride);
  element(3, row_stride + channels);
}

template <class Format>
void PoolRows(const Geometry& g, const void* dense_data, void* values_data, uint8_t* indices,
              int64_t begin, int64_t end) {
  using T = typename Format::Stored;
  using Position = typename Format::Position;
  using Value = Lanes<T>;
  using Index = Lanes<Position>;
  const T* dense = static_cast<const T*>(dense_data);
  T* values = static_cast<T*>(values_data);
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          Maximum<Format, typename Value::Vector, typename Index::Vector> best(
              Value::Load(dense + first + c));
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            if (local != 0) best.Offer(Value::Load(dense + first + offset + c), local);
          });
          Value::template Store<false>(values + pooled + c, best.value);
          Index::Narrow(indices + pooled + c, best.position);
        },
        [=](int64_t c) {
          Maximum<Format, T, Position> best(dense[first + c]);
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            if (local != 0) best.Offer(dense[first + offset + c], local);
          });
          values[pooled + c] = best.value;
          indices[pooled + c] = static_cast<uint8_t>(best.position);
        });
  });
}

// Unpool and gather move values without looking at them: T is the integer of their width.
template <class T, bool kStream>
void UnpoolRows(const Geometry& g, const T* values, const uint8_t* indices, T* dense,
                int64_t begin, int64_t end) {
  using Value = Lanes<T>;
  using Vector = typename Value::Vector;
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          const Vector value = Value::Load(values + pooled + c);
          const Vector index = Value::Widen(indices + pooled + c);
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            Value::template Store<kStream>(
                dense + first + offset + c,
                Placed(value, index, Vector(Vector{} + static_cast<T>(local))));
          });
        },
        [=](int64_t c) {
          const T value = values[pooled + c], index = indices[pooled + c];
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            dense[first + offset + c] = Placed(value, index, static_cast<T>(local));
          });
        });
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class T>
void UnpoolRows(const Geometry& g, const void* values, const uint8_t* indices, void* dense,
                int64_t begin, int64_t end) {
  constexpr int64_t kBytes = DLBENCH_VECTOR_BYTES;
  const bool stream = g.dense_size() * static_cast<int64_t>(sizeof(T)) > kStreamBytes &&
                      g.channels * static_cast<int64_t>(sizeof(T)) % kBytes == 0 &&
                      reinterpret_cast<uintptr_t>(dense) % kBytes == 0;
  const auto rows = stream ? UnpoolRows<T, true> : UnpoolRows<T, false>;
  rows(g, static_cast<const T*>(values), indices, static_cast<T*>(dense), begin, end);
}

template <class T>
void GatherRows(const Geometry& g, const void* dense_data, const uint8_t* indices,
                void* values_data, int64_t begin, int64_t end) {
  using Value = Lanes<T>;
  using Vector = typename Value::Vector;
  const T* dense = static_cast<const T*>(dense_data);
  T* values = static_cast<T*>(values_data);
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          const Vector index = Value::Widen(indices + pooled + c);
          Vector value{};
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            value |= Placed(Value::Load(dense + first + offset + c), index,
                            Vector(Vector{} + static_cast<T>(local)));
          });
          Value::template Store<false>(values + pooled + c, value);
        },
        [=](int64_t c) {
          const int index = indices[pooled + c];
          const int dy = index / w.k(), dx = index % w.k();
          const bool inside = dy < w.rows() && dx < w.columns();
          values[pooled + c] = inside ? dense[first + dy * row_stride + dx * channels + c] : T{};
        });
  });
}

void Pool(Type type, const Geometry& g, const void* dense, void* values, uint8_t* indices,
          int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return PoolRows<Float32>(g, dense, values, indices, begin, end);
    case Type::kFloat64: return PoolRows<Float64>(g, dense, values, indices, begin, end);
    case Type::kBFloat16: return PoolRows<BFloat16>(g, dense, values, indices, begin, end);
    case Type::kHalf: return PoolRows<Half>(g, dense, values, indices, begin, end);
  }
}

void Unpool(Type type, const Geometry& g, const void* values, const uint8_t* indices, void* dense,
            int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return UnpoolRows<int32_t>(g, values, indices, dense, begin, end);
    case Type::kFloat64: return UnpoolRows<int64_t>(g, values, indices, dense, begin, end);
    case Type::kBFloat16:
    case Type::kHalf: return UnpoolRows<int16_t>(g, values, indices, dense, begin, end);
  }
}

void Gather(Type type, const Geometry& g, const void* dense, const uint8_t* indices, void* values,
            int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return GatherRows<int32_t>(g, dense, indices, values, begin, end);
    case Type::kFloat64: return GatherRows<int64_t>(g, dense, indices, values, begin, end);
    case Type::kBFloat16:
    case Type::kHalf: return GatherRows<int16_t>(g, dense, indices, values, begin, end);
  }
}

}  // namespace
}  // namespace dlbench
