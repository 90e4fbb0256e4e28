#include <immintrin.h>

#define DLBENCH_VECTOR_BYTES 32
#define DLBENCH_STREAM(address, vector) \
  _mm256_stream_si256(reinterpret_cast<__m256i*>(address), (__m256i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#include "pooling_cpu_kernels.h"

namespace dlbench {
const Kernels kAvx2Kernels{"avx2", Pool, Unpool, Gather};
}
