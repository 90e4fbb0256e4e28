// Vectors and how indices stand in memory: what the kernels of pooling_cpu_kernels.h are made of, and
// included by it alone, once for each instruction set, with the macros that it describes.
//
// Inside the anonymous namespace, as there: each translation unit needs a copy of its own.
#include <type_traits>

#include "pooling.h"

namespace dlbench {
namespace {

#if defined(DLBENCH_STREAM)
constexpr bool kStoresAroundCaches = true;
#else
constexpr bool kStoresAroundCaches = false;
#define DLBENCH_STREAM(address, vector) __builtin_memcpy(address, &vector, sizeof(vector))
#define DLBENCH_STREAM_END()
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a lane comes first");

template <class T>
struct Lanes {
  static constexpr int64_t kCount = DLBENCH_VECTOR_BYTES / sizeof(T);
  using Vector __attribute__((vector_size(DLBENCH_VECTOR_BYTES))) = T;
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
#if defined(DLBENCH_WIDEN)
    if constexpr (sizeof(T) == 2) return (Vector)DLBENCH_WIDEN(16, from);
    if constexpr (sizeof(T) == 4) return (Vector)DLBENCH_WIDEN(32, from);
    if constexpr (sizeof(T) == 8) return (Vector)DLBENCH_WIDEN(64, from);
#else
    using Bytes __attribute__((vector_size(DLBENCH_VECTOR_BYTES / sizeof(T)))) = uint8_t;
    Bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof(bytes));
    return __builtin_convertvector(bytes, Vector);
#endif
  }
};

// The low halves of two vectors' lanes, those of the first before those of the second.
template <class Half, class Vector>
inline __attribute__((always_inline)) typename Lanes<Half>::Vector LowHalves(Vector a, Vector b) {
  using HalfVector = typename Lanes<Half>::Vector;
  HalfVector even;
#pragma GCC unroll 64
  for (int i = 0; i < Lanes<Half>::kCount; ++i) even[i] = static_cast<Half>(2 * i);
  return __builtin_shuffle((HalfVector)a, (HalfVector)b, even);
}

// The low bytes of as many vectors as fill a vector of bytes.
using ByteVector = Lanes<uint8_t>::Vector;
inline __attribute__((always_inline)) ByteVector LowBytes(const Lanes<int16_t>::Vector (&of)[2]) {
  return (ByteVector)LowHalves<int8_t>(of[0], of[1]);
}
inline __attribute__((always_inline)) ByteVector LowBytes(const Lanes<int32_t>::Vector (&of)[4]) {
  return LowBytes({LowHalves<int16_t>(of[0], of[1]), LowHalves<int16_t>(of[2], of[3])});
}
inline __attribute__((always_inline)) ByteVector LowBytes(const Lanes<int64_t>::Vector (&of)[8]) {
  return LowBytes({LowHalves<int32_t>(of[0], of[1]), LowHalves<int32_t>(of[2], of[3]),
                   LowHalves<int32_t>(of[4], of[5]), LowHalves<int32_t>(of[6], of[7])});
}

// The low bytes of one vector's lanes, into memory.
template <class T>
inline __attribute__((always_inline)) void StoreLowBytes(uint8_t* to,
                                                         typename Lanes<T>::Vector of) {
  typename Lanes<T>::Vector copies[sizeof(T)];
  for (auto& copy : copies) copy = of;
  const ByteVector bytes = LowBytes(copies);
  __builtin_memcpy(to, &bytes, Lanes<T>::kCount);
}

// How the indices of a vector of T stand in memory. `Load` gives them in the form in which
// `At(local)` stands for a position, so that comparing the two finds that position's lanes.
template <class T>
struct ByteIndices {
  using Vector = typename Lanes<T>::Vector;
  static constexpr int kPerByte = 1;
  static inline __attribute__((always_inline)) Vector Load(const uint8_t* from) {
    return Lanes<T>::Widen(from);
  }
  static inline __attribute__((always_inline)) Vector At(int local) {
    return Vector(Vector{} + static_cast<T>(local));
  }
  static inline __attribute__((always_inline)) void StoreAll(uint8_t* to, ByteVector indices) {
    __builtin_memcpy(to, &indices, sizeof(indices));
  }
};

// Two bits each, compared where they stand: each lane holds the word that its bits are in.
template <class T>
struct PackedIndices {
  using Vector = typename Lanes<T>::Vector;
  static constexpr int kPerByte = 4;
  static constexpr int kBytes = Lanes<T>::kCount / 4;
  static constexpr int kLanesOfWord = kBytes < static_cast<int>(sizeof(T))
                                          ? Lanes<T>::kCount : 4 * static_cast<int>(sizeof(T));

  static inline __attribute__((always_inline)) Vector Load(const uint8_t* from) {
    Vector words;
    if constexpr (kBytes <= static_cast<int>(sizeof(T))) {
      T word = 0;
      __builtin_memcpy(&word, from, kBytes);
      words = Vector(Vector{} + word);
    } else {
      using All = std::conditional_t<kBytes == 4, int32_t, int64_t>;
      All all;
      static_assert(sizeof(all) == kBytes);
      __builtin_memcpy(&all, from, kBytes);
      Vector which;
#pragma GCC unroll 64
      for (int i = 0; i < Lanes<T>::kCount; ++i) which[i] = static_cast<T>(i / kLanesOfWord);
      words = __builtin_shuffle((Vector)(typename Lanes<All>::Vector{} + all), which);
    }
    return Vector(words & At(3));
  }
  static inline __attribute__((always_inline)) Vector At(int local) {
    Vector places;
    // By itself GCC unrolls 16 times at most, and builds longer vectors in memory at every call.
#pragma GCC unroll 64
    for (int i = 0; i < Lanes<T>::kCount; ++i) {
      places[i] = static_cast<T>(static_cast<uint64_t>(local) << 2 * (i % kLanesOfWord));
    }
    return places;
  }
  static inline __attribute__((always_inline)) void StoreAll(uint8_t* to, ByteVector indices) {
    const auto four = (Lanes<uint32_t>::Vector)indices;  // in each word, one byte each
    const auto folded = four | four >> 6 | four >> 12 | four >> 18;
    StoreLowBytes<int32_t>(to, (Lanes<int32_t>::Vector)folded);
  }
};

}  // namespace
}  // namespace dlbench
