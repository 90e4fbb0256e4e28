// Stands in for CUDA's own header where there is no GPU: kernels compile as C++ and their threads
// run one after the other. Good for kernels whose threads do not talk to each other.
#ifndef DLBENCH_TESTS_NATIVE_CUDA_RUNTIME_H_
#define DLBENCH_TESTS_NATIVE_CUDA_RUNTIME_H_

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

template <class Kernel>
void RunOnCpu(dim3 grid, dim3 block, Kernel kernel) {
  gridDim = grid;
  blockDim = block;
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y) {
        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) kernel();
      }
    }
  }
}

#endif  // DLBENCH_TESTS_NATIVE_CUDA_RUNTIME_H_
