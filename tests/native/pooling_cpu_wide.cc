// Stands in for ops/pooling_cpu_avx512.cc where the processor lacks AVX-512: the same kernels with
// vectors as long, which the compiler makes of shorter ones. What is left untested are the
// instructions that the other file names.
#define DLBENCH_VECTOR_BYTES 64
#define DLBENCH_STREAM(address, vector) __builtin_memcpy(address, &vector, sizeof(vector))
#define DLBENCH_STREAM_END()
#include "pooling_cpu_kernels.h"

namespace dlbench {
const Kernels kAvx512Kernels{"avx512", Pool, Unpool, Gather};
}
