#define DLBENCH_VECTOR_BYTES 16
#define DLBENCH_TILE_ROWS 6
#include "convolution_cpu_kernels.h"

namespace dlbench {
const ConvolutionKernels kPortableConvolution{"portable", Parts, Scratch, KernelGradient};
}
