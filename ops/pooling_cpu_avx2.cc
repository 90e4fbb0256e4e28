#include <immintrin.h>

#include <cstdint>

// In place of _mm_loadu_si32, which GCC 11 got wrong.
static inline __m128i FourBytes(const uint8_t* from) {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm_cvtsi32_si128(bytes);
}

#define DLBENCH_VECTOR_BYTES 32
#define DLBENCH_STREAM(address, vector) \
  _mm256_stream_si256(reinterpret_cast<__m256i*>(address), (__m256i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#define DLBENCH_WIDEN(bits, address) _mm256_cvtepu8_epi##bits(DLBENCH_BYTES_##bits(address))
#define DLBENCH_BYTES_16(address) _mm_loadu_si128(reinterpret_cast<const __m128i*>(address))
#define DLBENCH_BYTES_32(address) _mm_loadl_epi64(reinterpret_cast<const __m128i*>(address))
#define DLBENCH_BYTES_64(address) FourBytes(address)
#define DLBENCH_SIGN16(magnitude, bits) _mm256_sign_epi16((__m256i)(magnitude), (__m256i)(bits))
#include "pooling_cpu_kernels.h"

namespace dlbench {
const Kernels kAvx2Kernels{"avx2", Pool, Unpool, Gather};
}
