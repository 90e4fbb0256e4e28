#define DLBENCH_VECTOR_BYTES 64
// GCC 12 warns of values within its own header that are undefined on purpose (bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#define DLBENCH_STREAM(address, vector) \
  _mm512_stream_si512(reinterpret_cast<__m512i*>(address), (__m512i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#include "normalization_cpu_kernels.h"

namespace dlbench {
const NormalizationKernels kAvx512Normalization{
    "avx512", kLanes, AnyMoments, AnyNormalize, AnySums, AnyGradient, AnyAdd};
}
