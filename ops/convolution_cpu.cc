// Chooses the kernels at run time.
#include "convolution.h"

#include "processor.h"

namespace dlbench {

const ConvolutionKernels* CurrentConvolutionKernels(const char** error) {
  static constexpr const ConvolutionKernels* kAll[] = {
#if defined(__x86_64__)
      &kAvx512Convolution, &kAvx2Convolution,
#endif
      &kPortableConvolution};
  return Current(kAll, error);
}

}  // namespace dlbench
