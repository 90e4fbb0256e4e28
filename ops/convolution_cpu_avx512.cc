// 14 x 32 accumulators in 28 of the 32 registers.
#define DLBENCH_VECTOR_BYTES 64
#define DLBENCH_TILE_ROWS 14
#include "convolution_cpu_kernels.h"

namespace dlbench {
const ConvolutionKernels kAvx512Convolution{"avx512", Parts, Scratch, KernelGradient};
}
