// Chooses the kernels at run time.
#include "convolution.h"

#include "pooling_cpu.h"

namespace dlbench {

const ConvolutionKernels* CurrentConvolutionKernels(const char** error) {
  const Kernels* pooling = CurrentKernels(error);
  if (pooling == nullptr) return nullptr;
#if defined(__x86_64__)
  if (pooling == &kAvx512Kernels) return &kAvx512Convolution;
  // A virtual machine may hide FMA where it shows AVX2.
  if (pooling == &kAvx2Kernels && __builtin_cpu_supports("fma")) return &kAvx2Convolution;
#endif
  return &kPortableConvolution;
}

}  // namespace dlbench
