#include <immintrin.h>

#define DLBENCH_VECTOR_BYTES 64
#define DLBENCH_STREAM(address, vector) \
  _mm512_stream_si512(reinterpret_cast<__m512i*>(address), (__m512i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#define DLBENCH_WIDEN(bits, address) _mm512_cvtepu8_epi##bits(DLBENCH_BYTES_##bits(address))
#define DLBENCH_BYTES_16(address) _mm256_loadu_si256(reinterpret_cast<const __m256i*>(address))
#define DLBENCH_BYTES_32(address) _mm_loadu_si128(reinterpret_cast<const __m128i*>(address))
#define DLBENCH_BYTES_64(address) _mm_loadl_epi64(reinterpret_cast<const __m128i*>(address))
#include "pooling_cpu_kernels.h"

namespace dlbench {
const Kernels kAvx512Kernels{"avx512", Pool, Unpool, Gather};
}
