#include <immintrin.h>

#define DLBENCH_VECTOR_BYTES 64
#define DLBENCH_STREAM(address, vector) \
  _mm512_stream_si512(reinterpret_cast<__m512i*>(address), (__m512i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#include "pooling_cpu_kernels.h"

namespace dlbench {
const Kernels kAvx512Kernels{"avx512", Pool, Unpool, Gather};
}
