// The CUDA core of the pooling op, free of TensorFlow: what pooling_cpu.h is for whole tensors on a
// device. Each function enqueues one kernel on a CUstream and returns null, or why it could not.
#ifndef DLBENCH_OPS_POOLING_CUDA_H_
#define DLBENCH_OPS_POOLING_CUDA_H_

#include <cstdint>

#include "pooling.h"

extern "C" {
// dense -> values, indices
const char* dlbench_cuda_pool(dlbench::Type type, const dlbench::Geometry* geometry,
                              const void* dense, void* values, uint8_t* indices, void* stream);
// values, indices -> dense; every element is written
const char* dlbench_cuda_unpool(dlbench::Type type, const dlbench::Geometry* geometry,
                                const void* values, const uint8_t* indices, void* dense,
                                void* stream);
// dense, indices -> values; an index outside its window gives zero
const char* dlbench_cuda_gather(dlbench::Type type, const dlbench::Geometry* geometry,
                                const void* dense, const uint8_t* indices, void* values,
                                void* stream);
}

#endif  // DLBENCH_OPS_POOLING_CUDA_H_
