#define DLBENCH_VECTOR_BYTES 32
#include <immintrin.h>
#define DLBENCH_STREAM(address, vector) \
  _mm256_stream_si256(reinterpret_cast<__m256i*>(address), (__m256i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#include "normalization_cpu_kernels.h"

namespace dlbench {
const NormalizationKernels kAvx2Normalization{
    "avx2", kLanes, AnyMoments, AnyNormalize, AnySums, AnyGradient, AnyAdd};
}
