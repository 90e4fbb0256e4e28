#define DLBENCH_VECTOR_BYTES 16
#if defined(__SSE2__)
#include <emmintrin.h>
#define DLBENCH_STREAM(address, vector) \
  _mm_stream_si128(reinterpret_cast<__m128i*>(address), (__m128i)(vector))
#define DLBENCH_STREAM_END() _mm_sfence()
#endif
#include "normalization_cpu_kernels.h"

namespace dlbench {
const NormalizationKernels kPortableNormalization{
    "portable", kLanes, AnyMoments, AnyNormalize, AnySums, AnyGradient, AnyAdd};
}
