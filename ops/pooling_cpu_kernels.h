// The kernels, vectorised over channels. Each instruction set includes this file in a translation
// unit of its own, with its own compiler flags, after defining DLBENCH_VECTOR_BYTES; where it can
// store around the caches DLBENCH_STREAM(address, vector) and DLBENCH_STREAM_END(); and where the
// compiler does not find the instruction by itself DLBENCH_WIDEN(bits, address), which makes a
// vector of so many bits a lane from bytes, and DLBENCH_SIGN16(magnitude, bits), see pooling.h.
//
// The anonymous namespace keeps the copies apart. No std:: function is called here: the linker
// could choose an AVX-512 copy of it for the whole program.
#include "pooling_cpu.h"
#include "pooling_cpu_lanes.h"
#include "processor.h"

namespace dlbench {
namespace {

// Calls body(c) for the whole vectors from channel c on, the last one overlapping its neighbour
// (each body is a pure function from inputs to outputs, so writing a lane twice is harmless), or
// tail(c) for every channel when there are fewer of them than lanes.
template <int64_t kCount, class Body, class Tail>
inline __attribute__((always_inline)) void ForChannels(int64_t c, int64_t channels, Body body,
                                                       Tail tail) {
  if (channels < kCount) {
    for (; c < channels; ++c) tail(c);
    return;
  }
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

// The maximum of a window, from `load(dense offset)`.
template <class Maximum, class Load>
inline __attribute__((always_inline)) Maximum MaximumOf(Extent<0, 0> w, int64_t row_stride,
                                                        int64_t channels, Load load) {
  Maximum best(load(0));
  ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
    if (local != 0) best.Offer(Maximum(load(offset), local));
  });
  return best;
}
// Of a whole 2 x 2 window row by row: two short chains of comparisons in place of a long one.
template <class Maximum, class Load>
inline __attribute__((always_inline)) Maximum MaximumOf(Extent<2, 2>, int64_t row_stride,
                                                        int64_t channels, Load load) {
  Maximum top(load(0), 0), bottom(load(row_stride), 2);
  top.Offer(Maximum(load(channels), 1));
  bottom.Offer(Maximum(load(row_stride + channels), 3));
  top.Offer(bottom);
  return top;
}

// Whether an output is written around the caches: where the dense tensor does not fit into them.
template <class T>
bool Streams(const Geometry& g, const void* output) {
  constexpr int64_t kBytes = DLBENCH_VECTOR_BYTES, kItem = sizeof(T);
  return kStoresAroundCaches && g.dense_size() * kItem > StreamBytes() &&
         g.channels * kItem % kBytes == 0 && reinterpret_cast<uintptr_t>(output) % kBytes == 0;
}

template <class Format, template <class> class Indices, bool kStream>
void PoolRows(const Geometry& g, const void* dense_data, void* values_data, uint8_t* indices,
              int64_t begin, int64_t end) {
  using T = typename Format::Stored;
  using Position = typename Format::Position;
  using Value = Lanes<T>;
  using Index = Lanes<Position>;
  using Best = Maximum<Format, typename Value::Vector, typename Index::Vector>;
  constexpr int64_t kBlock = DLBENCH_VECTOR_BYTES;  // channels whose indices fill a vector
  const T* dense = static_cast<const T*>(dense_data);
  T* values = static_cast<T*>(values_data);
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    const auto best_of = [=](int64_t c) {
      const Best best = MaximumOf<Best>(w, row_stride, channels, [=](int64_t offset) {
        return Value::Load(dense + first + offset + c);
      });
      Value::template Store<kStream>(values + pooled + c, best.value);
      return best.position;
    };
    int64_t block = 0;
    for (; block + kBlock <= channels; block += kBlock) {
      typename Index::Vector positions[sizeof(T)];
      for (int i = 0; i < static_cast<int>(sizeof(T)); ++i) {
        positions[i] = best_of(block + i * Value::kCount);
      }
      Indices<T>::StoreAll(indices + (index_at + block) / Indices<T>::kPerByte,
                           LowBytes(positions));
    }
    if (Indices<T>::kPerByte != 1) return;  // channels are whole blocks
    ForChannels<Value::kCount>(
        block, channels,
        [=](int64_t c) { StoreLowBytes<Position>(indices + index_at + c, best_of(c)); },
        [=](int64_t c) {
          using One = Maximum<Format, T, Position>;
          const One best = MaximumOf<One>(w, row_stride, channels, [=](int64_t offset) {
            return dense[first + offset + c];
          });
          values[pooled + c] = best.value;
          indices[index_at + c] = static_cast<uint8_t>(best.position);
        });
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class Format, template <class> class Indices>
void PoolRows(const Geometry& g, const void* dense, void* values, uint8_t* indices, int64_t begin,
              int64_t end) {
  const auto rows = Streams<typename Format::Stored>(g, values)
                        ? PoolRows<Format, Indices, true> : PoolRows<Format, Indices, false>;
  rows(g, dense, values, indices, begin, end);
}

// Unpool and gather move values without looking at them: T is the integer of their width.
template <class T, template <class> class Indices, bool kStream>
void UnpoolRows(const Geometry& g, const T* values, const uint8_t* indices, T* dense,
                int64_t begin, int64_t end) {
  using Value = Lanes<T>;
  using Vector = typename Value::Vector;
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    const auto index_of = [=](int64_t c) {
      return Indices<T>::Load(indices + (index_at + c) / Indices<T>::kPerByte);
    };
    if constexpr (kStream) {
      // Element by element, so that stores around the caches fill line after line; reading the
      // values four times costs less, they are in the cache.
      ForElements(w, row_stride, channels, [=](int local, int64_t offset) {
        for (int64_t c = 0; c < channels; c += Value::kCount) {
          const Vector value = Value::Load(values + pooled + c);
          Value::template Store<true>(dense + first + offset + c,
                                      Placed(value, index_of(c), Indices<T>::At(local)));
        }
      });
    } else {
      ForChannels<Value::kCount>(
          0, channels,
          [=](int64_t c) {
            const Vector value = Value::Load(values + pooled + c);
            const Vector index = index_of(c);
            ForElements(w, row_stride, channels, [=](int local, int64_t offset) {
              Value::template Store<false>(dense + first + offset + c,
                                           Placed(value, index, Indices<T>::At(local)));
            });
          },
          [=](int64_t c) {
            const T value = values[pooled + c], index = indices[index_at + c];
            ForElements(w, row_stride, channels, [=](int local, int64_t offset) {
              dense[first + offset + c] = Placed(value, index, static_cast<T>(local));
            });
          });
    }
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class T, template <class> class Indices>
void UnpoolRows(const Geometry& g, const void* values, const uint8_t* indices, void* dense,
                int64_t begin, int64_t end) {
  const auto rows = Streams<T>(g, dense) ? UnpoolRows<T, Indices, true>
                                         : UnpoolRows<T, Indices, false>;
  rows(g, static_cast<const T*>(values), indices, static_cast<T*>(dense), begin, end);
}

template <class T, template <class> class Indices, bool kStream>
void GatherRows(const Geometry& g, const T* dense, const uint8_t* indices, T* values,
                int64_t begin, int64_t end) {
  using Value = Lanes<T>;
  using Vector = typename Value::Vector;
  const int64_t row_stride = g.row_stride(), channels = g.channels;
  ForWindows(g, begin, end, [=](auto w, int64_t pooled, int64_t first, int64_t index_at) {
    ForChannels<Value::kCount>(
        0, channels,
        [=](int64_t c) {
          const Vector index = Indices<T>::Load(indices + (index_at + c) / Indices<T>::kPerByte);
          Vector value{};
          ForElements(w, row_stride, channels, [&](int local, int64_t offset) {
            value |= Placed(Value::Load(dense + first + offset + c), index, Indices<T>::At(local));
          });
          Value::template Store<kStream>(values + pooled + c, value);
        },
        [=](int64_t c) {
          const int index = indices[index_at + c];
          const int dy = index / w.k(), dx = index % w.k();
          const bool inside = dy < w.rows() && dx < w.columns();
          values[pooled + c] = inside ? dense[first + dy * row_stride + dx * channels + c] : T{};
        });
  });
  if (kStream) DLBENCH_STREAM_END();
}

template <class T, template <class> class Indices>
void GatherRows(const Geometry& g, const void* dense, const uint8_t* indices, void* values,
                int64_t begin, int64_t end) {
  const auto rows = Streams<T>(g, values) ? GatherRows<T, Indices, true>
                                          : GatherRows<T, Indices, false>;
  rows(g, static_cast<const T*>(dense), indices, static_cast<T*>(values), begin, end);
}

// The kernels for one form of indices; `indices` are those of row `begin`.
template <template <class> class Indices>
struct Typed {
  static void Pool(Type type, const Geometry& g, const void* dense, void* values,
                   uint8_t* indices, int64_t begin, int64_t end) {
    switch (type) {
      case Type::kFloat32: return PoolRows<Float32, Indices>(g, dense, values, indices, begin, end);
      case Type::kFloat64: return PoolRows<Float64, Indices>(g, dense, values, indices, begin, end);
      case Type::kBFloat16:
        return PoolRows<BFloat16, Indices>(g, dense, values, indices, begin, end);
      case Type::kHalf: return PoolRows<Half, Indices>(g, dense, values, indices, begin, end);
    }
  }
  static void Unpool(Type type, const Geometry& g, const void* values, const uint8_t* indices,
                     void* dense, int64_t begin, int64_t end) {
    switch (type) {
      case Type::kFloat32:
        return UnpoolRows<int32_t, Indices>(g, values, indices, dense, begin, end);
      case Type::kFloat64:
        return UnpoolRows<int64_t, Indices>(g, values, indices, dense, begin, end);
      case Type::kBFloat16:
      case Type::kHalf: return UnpoolRows<int16_t, Indices>(g, values, indices, dense, begin, end);
    }
  }
  static void Gather(Type type, const Geometry& g, const void* dense, const uint8_t* indices,
                     void* values, int64_t begin, int64_t end) {
    switch (type) {
      case Type::kFloat32:
        return GatherRows<int32_t, Indices>(g, dense, indices, values, begin, end);
      case Type::kFloat64:
        return GatherRows<int64_t, Indices>(g, dense, indices, values, begin, end);
      case Type::kBFloat16:
      case Type::kHalf: return GatherRows<int16_t, Indices>(g, dense, indices, values, begin, end);
    }
  }
};
using OnBytes = Typed<ByteIndices>;
using OnPacked = Typed<PackedIndices>;

// Whether packed indices are used as they stand: whole vectors of them, and whole bytes for a vector
// of values. Others pass through one row of bytes.
bool AsTheyStand(Type type, const Geometry& g) {
  const bool whole_bytes = type != Type::kFloat64 || Lanes<double>::kCount >= 4;
  return whole_bytes && g.channels % DLBENCH_VECTOR_BYTES == 0;
}

// Indices of two bits from indices of one byte, four to a byte; the last may hold fewer.
void Pack(const uint8_t* bytes, uint8_t* packed, int64_t count) {
  int64_t at = 0;
  for (; at + DLBENCH_VECTOR_BYTES <= count; at += DLBENCH_VECTOR_BYTES) {
    PackedIndices<int32_t>::StoreAll(packed + at / 4, Lanes<uint8_t>::Load(bytes + at));
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

// Runs `kernel(indices of one byte, begin, end)` row by row for unpool and gather, which read them.
template <class Kernel>
inline __attribute__((always_inline)) void Unpacked(const Geometry& g, const uint8_t* packed,
                                                    int64_t begin, int64_t end, Kernel kernel) {
  IndexRow row(g);
  for (int64_t number = begin; number < end; ++number) {
    ForStretches(g, [&](int64_t at, int64_t count, int64_t packed_at) {
      Unpack(packed + packed_at, row.bytes() + at, count);
    });
    kernel(row.bytes(), number, number + 1);
    packed += g.columns() * g.index_channels();
  }
}

void Pool(Type type, const Geometry& g, const void* dense, void* values, uint8_t* indices,
          int64_t begin, int64_t end) {
  const int64_t row_bytes = g.columns() * g.index_channels();
  indices += begin * row_bytes;
  if (!g.packed) return OnBytes::Pool(type, g, dense, values, indices, begin, end);
  if (AsTheyStand(type, g)) return OnPacked::Pool(type, g, dense, values, indices, begin, end);
  IndexRow row(g);
  for (int64_t number = begin; number < end; ++number, indices += row_bytes) {
    OnBytes::Pool(type, g, dense, values, row.bytes(), number, number + 1);
    ForStretches(g, [&](int64_t at, int64_t count, int64_t packed_at) {
      Pack(row.bytes() + at, indices + packed_at, count);
    });
  }
}

void Unpool(Type type, const Geometry& g, const void* values, const uint8_t* indices, void* dense,
            int64_t begin, int64_t end) {
  indices += begin * g.columns() * g.index_channels();
  if (!g.packed) return OnBytes::Unpool(type, g, values, indices, dense, begin, end);
  if (AsTheyStand(type, g)) return OnPacked::Unpool(type, g, values, indices, dense, begin, end);
  Unpacked(g, indices, begin, end, [&](const uint8_t* bytes, int64_t first, int64_t last) {
    OnBytes::Unpool(type, g, values, bytes, dense, first, last);
  });
}

void Gather(Type type, const Geometry& g, const void* dense, const uint8_t* indices, void* values,
            int64_t begin, int64_t end) {
  indices += begin * g.columns() * g.index_channels();
  if (!g.packed) return OnBytes::Gather(type, g, dense, indices, values, begin, end);
  if (AsTheyStand(type, g)) return OnPacked::Gather(type, g, dense, indices, values, begin, end);
  Unpacked(g, indices, begin, end, [&](const uint8_t* bytes, int64_t first, int64_t last) {
    OnBytes::Gather(type, g, dense, bytes, values, first, last);
  });
}

}  // namespace
}  // namespace dlbench
