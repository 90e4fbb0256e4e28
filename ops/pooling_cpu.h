// The CPU core of the pooling op, free of TensorFlow: three kernels over ranges of window rows.
#ifndef DLBENCH_OPS_POOLING_CPU_H_
#define DLBENCH_OPS_POOLING_CPU_H_

#include <cstdint>

#include "pooling.h"

namespace dlbench {

// A window row is one row of windows of one image: `batch * rows()` in all, number n*rows() + row.
// Ranges may run on different threads; each writes memory of its own. Pointers are those of the
// whole tensors; `indices` has Geometry::index_channels() bytes a pixel.
struct Kernels {
  const char* name;
  // dense -> values, indices
  void (*pool)(Type, const Geometry&, const void* dense, void* values, uint8_t* indices,
               int64_t begin, int64_t end);
  // values, indices -> dense; every element of the range's dense rows is written
  void (*unpool)(Type, const Geometry&, const void* values, const uint8_t* indices, void* dense,
                 int64_t begin, int64_t end);
  // dense, indices -> values; an index outside its window gives zero
  void (*gather)(Type, const Geometry&, const void* dense, const uint8_t* indices, void* values,
                 int64_t begin, int64_t end);
};

// Those of the instruction set in use, see processor.h.
const Kernels* CurrentKernels(const char** error);

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace dlbench

#endif  // DLBENCH_OPS_POOLING_CPU_H_
