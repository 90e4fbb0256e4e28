// The loops over wide rows that each instruction set has a copy of.
#ifndef DLBENCH_OPS_NORMALIZATION_CPU_H_
#define DLBENCH_OPS_NORMALIZATION_CPU_H_

#include <cstdint>

#include "normalization.h"

namespace dlbench {

// Vectors of `width` values stand in the order of `Place`, for the kernels' sake.
struct Coefficients {
  const float* mean;
  const float* scale;
  const float* offset;
  const float* dy_mean = nullptr;  // what dx loses, times scale, ...
  const float* dy_slope = nullptr;  // ... and for each unit of x - mean
};

// Of a range of wide rows, but for `add`; pointers are those of its first.
struct NormalizationKernels {
  const char* name;
  int lanes;  // float32 values in a vector
  // mean and the sum of squares around it; `work` holds 3 * width
  void (*moments)(Data, int64_t width, int64_t rows, const void* x, double* mean, double* squares,
                  float* work);
  void (*normalize)(Data, int64_t width, int64_t rows, bool relu, bool stream,
                    const Coefficients&, const void* x, void* y);
  // sum of dy, and of dy * (x - mean); `work` holds 2 * width
  void (*sums)(Data, int64_t width, int64_t rows, bool relu, const Coefficients&, const void* dy,
               const void* x, double* sum, double* product, float* work);
  void (*gradient)(Data, int64_t width, int64_t rows, bool relu, bool stream, const Coefficients&,
                   const void* dy, const void* x, void* dx);
  // of `count` values, however they stand; `sum` may be `a` or `b`
  void (*add)(Data, int64_t count, const void* a, const void* b, void* sum);

  // Where value i of a wide row stands: a vector of bfloat16 becomes two, its even values and its
  // odd ones, which needs no shuffling.
  int64_t Place(Data data, int64_t i) const {
    if (data == Data::kFloat32) return i;
    const int64_t within = i % (2 * lanes);
    return i - within + within % 2 * lanes + within / 2;
  }
};

extern const NormalizationKernels kPortableNormalization;
#if defined(__x86_64__)
extern const NormalizationKernels kAvx2Normalization;
extern const NormalizationKernels kAvx512Normalization;
#endif

}  // namespace dlbench

#endif  // DLBENCH_OPS_NORMALIZATION_CPU_H_
