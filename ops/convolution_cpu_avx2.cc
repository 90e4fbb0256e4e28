// 6 x 16 accumulators in 12 of the 16 registers.
#define DLBENCH_VECTOR_BYTES 32
#define DLBENCH_TILE_ROWS 6
#include "convolution_cpu_kernels.h"

namespace dlbench {
const ConvolutionKernels kAvx2Convolution{"avx2", Parts, Scratch, KernelGradient};
}
