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
#if !defined(DLBENCH_STREAM_BYTES)  // the fuzz target, whose cases are small, lowers it
#define DLBENCH_STREAM_BYTES (int64_t{4} << 20)
#endif
constexpr int64_t kStreamBytes = DLBENCH_STREAM_BYTES;

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

// Runs `window(extent, pooled offset, dense offset, index offset)` over the windows of rows
// [begin, end). Index offsets count from row `begin`, one byte an index.
template <class Window>
inline __attribute__((always_inline)) void ForWindows(const Geometry& g, int64_t begin,
                                                      int64_t end, Window window) {
  const int64_t rows = g.rows(), columns = g.columns(), channels = g.channels;
  const int64_t skipped = begin * columns * channels;
  for (int64_t number = begin; number < end; ++number) {
    const int64_t image = number / rows, row = number % rows;
    const int height = Clip(row * g.k, g.height, g.k);
    int64_t pooled = number * columns * channels;
    int64_t dense = (image * g.height + row * g.k) * g.row_stride();
    int64_t column = 0;
    if (g.k == 2 && height == 2) {
      for (; column < g.width / 2; ++column, pooled += channels, dense += 2 * channels) {
        window(Extent<2, 2>{}, pooled, dense, pooled - skipped);
      }
    }
    for (; column < columns; ++column, pooled += channels, dense += g.k * channels) {
      window(Extent<0, 0>{height, Clip(column * g.k, g.width, g.k), g.k}, pooled, dense,
             pooled - skipped);
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
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          Maximum<Format, typename Value::Vector, typename Index::Vector> best(
              Value::Load(dense + first + c));
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            if (local != 0) best.Offer(Value::Load(dense + first + offset + c), local);
          });
          Value::template Store<false>(values + pooled + c, best.value);
          Index::Narrow(indices + index_at + c, best.position);
        },
        [=](int64_t c) {
          Maximum<Format, T, Position> best(dense[first + c]);
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            if (local != 0) best.Offer(dense[first + offset + c], local);
          });
          values[pooled + c] = best.value;
          indices[index_at + c] = static_cast<uint8_t>(best.position);
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
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          const Vector value = Value::Load(values + pooled + c);
          const Vector index = Value::Widen(indices + index_at + c);
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            Value::template Store<kStream>(
                dense + first + offset + c,
                Placed(value, index, Vector(Vector{} + static_cast<T>(local))));
          });
        },
        [=](int64_t c) {
          const T value = values[pooled + c], index = indices[index_at + c];
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
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    ForChannels<Value::kCount>(
        channels,
        [=](int64_t c) {
          const Vector index = Value::Widen(indices + index_at + c);
          Vector value{};
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            value |= Placed(Value::Load(dense + first + offset + c), index,
                            Vector(Vector{} + static_cast<T>(local)));
          });
          Value::template Store<false>(values + pooled + c, value);
        },
        [=](int64_t c) {
          const int index = indices[index_at + c];
          const int dy = index / w.k(), dx = index % w.k();
          const bool inside = dy < w.rows() && dx < w.columns();
          values[pooled + c] = inside ? dense[first + dy * row_stride + dx * channels + c] : T{};
        });
  });
}

void PoolBytes(Type type, const Geometry& g, const void* dense, void* values, uint8_t* indices,
               int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return PoolRows<Float32>(g, dense, values, indices, begin, end);
    case Type::kFloat64: return PoolRows<Float64>(g, dense, values, indices, begin, end);
    case Type::kBFloat16: return PoolRows<BFloat16>(g, dense, values, indices, begin, end);
    case Type::kHalf: return PoolRows<Half>(g, dense, values, indices, begin, end);
  }
}

void UnpoolBytes(Type type, const Geometry& g, const void* values, const uint8_t* indices,
                 void* dense, int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return UnpoolRows<int32_t>(g, values, indices, dense, begin, end);
    case Type::kFloat64: return UnpoolRows<int64_t>(g, values, indices, dense, begin, end);
    case Type::kBFloat16:
    case Type::kHalf: return UnpoolRows<int16_t>(g, values, indices, dense, begin, end);
  }
}

void GatherBytes(Type type, const Geometry& g, const void* dense, const uint8_t* indices,
                 void* values, int64_t begin, int64_t end) {
  switch (type) {
    case Type::kFloat32: return GatherRows<int32_t>(g, dense, indices, values, begin, end);
    case Type::kFloat64: return GatherRows<int64_t>(g, dense, indices, values, begin, end);
    case Type::kBFloat16:
    case Type::kHalf: return GatherRows<int16_t>(g, dense, indices, values, begin, end);
  }
}

// Indices of two bits from indices of one byte, four to a byte; the last may hold fewer.
void Pack(const uint8_t* bytes, uint8_t* packed, int64_t count) {
  using Words = Lanes<uint32_t>;
  int64_t at = 0;
  for (; at + DLBENCH_VECTOR_BYTES <= count; at += DLBENCH_VECTOR_BYTES) {
    Words::Vector four;  // indices in each word, one byte each
    __builtin_memcpy(&four, bytes + at, sizeof(four));
    Words::Narrow(packed + at / 4, four | four >> 6 | four >> 12 | four >> 18);
  }
  for (; at < count; at += 4) {
    int byte = 0;
    for (int i = 0; i < 4 && at + i < count; ++i) byte |= bytes[at + i] << 2 * i;
    packed[at / 4] = static_cast<uint8_t>(byte);
  }
}

void Unpack(const uint8_t* packed, uint8_t* bytes, int64_t count) {
  using Words = Lanes<uint32_t>;
  int64_t at = 0;
  for (; at + DLBENCH_VECTOR_BYTES <= count; at += DLBENCH_VECTOR_BYTES) {
    Words::Vector four = Words::Widen(packed + at / 4);
    four = (four | four << 6 | four << 12 | four << 18) & uint32_t{0x03030303};
    __builtin_memcpy(bytes + at, &four, sizeof(four));
  }
  for (; at < count; ++at) bytes[at] = packed[at / 4] >> 2 * (at % 4) & 3;
}

// Runs `run(bytes, count, packed offset)` over the stretches of one row of windows that pack
// without a gap: the whole row, or each pixel where the channels leave its last byte unfilled.
template <class Run>
inline __attribute__((always_inline)) void ForStretches(const Geometry& g, Run run) {
  const bool gaps = g.channels % 4 != 0;
  const int64_t pixels = gaps ? g.columns() : 1;
  const int64_t count = gaps ? g.channels : g.columns() * g.channels;
  for (int64_t i = 0; i < pixels; ++i) run(i * count, count, i * g.index_channels());
}

// A row of windows' indices at one byte each: a piece of cache through which packed ones pass.
class IndexRow {
 public:
  explicit IndexRow(const Geometry& g) : bytes_(new uint8_t[g.columns() * g.channels]) {}
  ~IndexRow() { delete[] bytes_; }
  IndexRow(const IndexRow&) = delete;
  IndexRow& operator=(const IndexRow&) = delete;
  uint8_t* bytes() { return bytes_; }

 private:
  uint8_t* bytes_;
};

// Runs `kernel(indices of one byte, begin, end)` for unpool and gather, which read indices.
template <class Kernel>
inline __attribute__((always_inline)) void WithIndices(const Geometry& g, const uint8_t* indices,
                                                       int64_t begin, int64_t end,
                                                       Kernel kernel) {
  const int64_t row_bytes = g.columns() * g.index_channels();
  if (!g.packed) return kernel(indices + begin * row_bytes, begin, end);
  IndexRow row(g);
  for (int64_t number = begin; number < end; ++number) {
    const uint8_t* packed = indices + number * row_bytes;
    ForStretches(g, [&](int64_t at, int64_t count, int64_t packed_at) {
      Unpack(packed + packed_at, row.bytes() + at, count);
    });
    kernel(row.bytes(), number, number + 1);
  }
}

void Pool(Type type, const Geometry& g, const void* dense, void* values, uint8_t* indices,
          int64_t begin, int64_t end) {
  const int64_t row_bytes = g.columns() * g.index_channels();
  if (!g.packed) {
    return PoolBytes(type, g, dense, values, indices + begin * row_bytes, begin, end);
  }
  IndexRow row(g);
  for (int64_t number = begin; number < end; ++number) {
    PoolBytes(type, g, dense, values, row.bytes(), number, number + 1);
    uint8_t* packed = indices + number * row_bytes;
    ForStretches(g, [&](int64_t at, int64_t count, int64_t packed_at) {
      Pack(row.bytes() + at, packed + packed_at, count);
    });
  }
}

void Unpool(Type type, const Geometry& g, const void* values, const uint8_t* indices, void* dense,
            int64_t begin, int64_t end) {
  WithIndices(g, indices, begin, end, [&](const uint8_t* bytes, int64_t first, int64_t last) {
    UnpoolBytes(type, g, values, bytes, dense, first, last);
  });
}

void Gather(Type type, const Geometry& g, const void* dense, const uint8_t* indices, void* values,
            int64_t begin, int64_t end) {
  WithIndices(g, indices, begin, end, [&](const uint8_t* bytes, int64_t first, int64_t last) {
    GatherBytes(type, g, dense, bytes, values, first, last);
  });
}

}  // namespace
}  // namespace dlbench
