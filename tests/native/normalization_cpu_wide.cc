// Stands in for ops/normalization_cpu_avx512.cc, see pooling_cpu_wide.cc.
#define DLBENCH_VECTOR_BYTES 64
#include "normalization_cpu_kernels.h"

namespace dlbench {
const NormalizationKernels kAvx512Normalization{
    "avx512", kLanes, AnyMoments, AnyNormalize, AnySums, AnyGradient, AnyAdd};
}
