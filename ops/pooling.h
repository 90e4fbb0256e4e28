// Window geometry and the per-element body of max pooling with window-local indices.
//
// The body is written once for every executor: `Value` is a scalar in the scalar tail and in a
// CUDA thread, and a GCC vector in the CPU kernels; `condition ? a : b` selects lane by lane.
// Everything is forced inline, so that no copy compiled for AVX-512 can be linked into code that
// runs elsewhere.
#ifndef DLBENCH_OPS_POOLING_H_
#define DLBENCH_OPS_POOLING_H_

#include <cstdint>

#if defined(__CUDACC__)
#define DLBENCH_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DLBENCH_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace dlbench {

constexpr int kMinPoolSize = 2;
constexpr int kMaxPoolSize = 16;  // 16 x 16 positions are all that one byte can name
constexpr int kPackedPoolSize = 2;  // 2 x 2 positions are all that two bits can name

// The windows of a dense tensor (batch, height, width, channels): size k, stride k, the first at
// the top left, the last of a row or column clipped at the edge.
struct Geometry {
  int64_t batch = 0, height = 0, width = 0, channels = 0;
  int k = 2;
  // Indices of k = 2 windows at two bits each: a pixel's channel 4 j + i stands in bits 2 i and
  // 2 i + 1 of its byte j, and the last byte is filled up with zeros.
  bool packed = false;

  DLBENCH_HOST_DEVICE int64_t rows() const { return (height + k - 1) / k; }
  DLBENCH_HOST_DEVICE int64_t columns() const { return (width + k - 1) / k; }
  DLBENCH_HOST_DEVICE int64_t row_stride() const { return width * channels; }
  DLBENCH_HOST_DEVICE int64_t index_channels() const {
    return packed ? (channels + 3) / 4 : channels;
  }
  DLBENCH_HOST_DEVICE int64_t dense_size() const { return batch * height * row_stride(); }
  DLBENCH_HOST_DEVICE int64_t pooled_size() const {
    return batch * rows() * columns() * channels;
  }
};

// Length of the window that starts at `start` along an axis of `length`.
DLBENCH_HOST_DEVICE int Clip(int64_t start, int64_t length, int k) {
  return length - start < k ? static_cast<int>(length - start) : k;
}

enum class Type { kFloat32, kFloat64, kBFloat16, kHalf };

// Number formats. `Stored` is how a value travels, `Position` an integer of the same width, `Key`
// orders values and `Above` says whether a candidate replaces the best so far: strictly greater
// (the first maximum wins, -0 equals +0), or the first NaN.
template <class Float, class Integer>
struct Ieee {
  using Stored = Float;
  using Position = Integer;
  template <class Value>
  static DLBENCH_HOST_DEVICE Value Key(Value value) { return value; }
  template <class Value>
  static DLBENCH_HOST_DEVICE auto Above(Value candidate, Value best) {
    // "Not at most" is one comparison that a NaN candidate passes.
    return (!(candidate <= best)) & (best == best);
  }
};

// 16-bit formats are ordered as integers: sign and magnitude become two's complement, which is
// exact, and every NaN becomes the largest key.
template <int16_t kInfinity>
struct Bits16 {
  using Stored = int16_t;
  using Position = int16_t;
  template <class Value>
  static DLBENCH_HOST_DEVICE Value Key(Value bits) {
    const Value magnitude = Value(bits & int16_t{0x7fff});
    const Value key = Signed(magnitude, bits);
    return magnitude > kInfinity ? Value(Value{} + int16_t{0x7fff}) : key;
  }
  template <class Value>
  static DLBENCH_HOST_DEVICE auto Above(Value candidate, Value best) { return candidate > best; }

 private:
  // The magnitude, negative where the bits' sign is set.
  template <class Value>
  static DLBENCH_HOST_DEVICE Value Signed(Value magnitude, Value bits) {
#if defined(DLBENCH_SIGN16)  // one instruction for vectors
    if constexpr (sizeof(Value) > sizeof(int16_t)) return (Value)DLBENCH_SIGN16(magnitude, bits);
#endif
    const Value sign = Value(bits >> 15);
    return Value((magnitude ^ sign) - sign);
  }
};

using Float32 = Ieee<float, int32_t>;
using Float64 = Ieee<double, int64_t>;
using BFloat16 = Bits16<0x7f80>;
using Half = Bits16<0x7c00>;

// The maximum of some of a window's elements, and where it stands.
template <class Format, class Value, class Position>
struct Maximum {
  Value value;
  Value key;
  Position position;

  Maximum() = default;  // an array's elements, before their first value
  DLBENCH_HOST_DEVICE explicit Maximum(Value only, int local = 0)
      : value(only),
        key(Format::Key(only)),
        position(Position{} + static_cast<typename Format::Position>(local)) {}

  // Takes in the maximum of elements that all stand later in the window.
  DLBENCH_HOST_DEVICE void Offer(const Maximum& later) {
    const auto above = Format::Above(later.key, key);
    value = above ? later.value : value;
    key = above ? later.key : key;
    position = above ? later.position : position;
  }
};

// One element of the dense tensor from its window's value and index; any other index gives zero,
// so a foreign index is harmless.
template <class Value, class Position>
DLBENCH_HOST_DEVICE Value Placed(Value value, Position index, Position local) {
  return index == local ? value : Value{};
}

}  // namespace dlbench

#endif  // DLBENCH_OPS_POOLING_H_
