// Chooses the kernels at run time.
#include "pooling_cpu.h"

#include "processor.h"

namespace dlbench {

const Kernels* CurrentKernels(const char** error) {
  static constexpr const Kernels* kAll[] = {
#if defined(__x86_64__)
      &kAvx512Kernels, &kAvx2Kernels,
#endif
      &kPortableKernels};
  return Current(kAll, error);
}

}  // namespace dlbench
