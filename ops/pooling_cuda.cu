// The kernels on CUDA. A thread owns one window and a vector of its channels: 16 bytes where the
// channels and the addresses allow it, so that a warp reads and writes whole lines.
#include "pooling_cuda.h"

#include <cuda_runtime.h>

namespace dlbench {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridY = 65535;

// What a thread holds of one tensor.
template <class T, int kLanes>
struct alignas(sizeof(T) * kLanes < 16 ? sizeof(T) * kLanes : 16) Lanes {
  T lane[kLanes];
};

// How a kernel reads and writes: `kLanes` channels at a time, as whole vectors or, where channels
// or addresses do not allow that, one by one up to the last channel.
template <int kLanes, bool kWhole>
struct Access {
  template <class T>
  static __device__ __forceinline__ Lanes<T, kLanes> Load(const T* from, int64_t left) {
    if constexpr (kWhole) {
      return *reinterpret_cast<const Lanes<T, kLanes>*>(from);
    } else {
      Lanes<T, kLanes> lanes{};
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        if (i < left) lanes.lane[i] = from[i];
      }
      return lanes;
    }
  }
  template <class T>
  static __device__ __forceinline__ void Store(T* to, const Lanes<T, kLanes>& lanes,
                                               int64_t left) {
    if constexpr (kWhole) {
      *reinterpret_cast<Lanes<T, kLanes>*>(to) = lanes;
    } else {
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        if (i < left) to[i] = lanes.lane[i];
      }
    }
  }
};

// The indices of `kLanes` channels in memory: a byte each, or two bits each.
template <int kLanes, bool kWhole, bool kPacked>
struct Indices {
  static constexpr int kPerByte = kPacked ? 4 : 1;
  static constexpr int kCount = kLanes / kPerByte;
  static_assert(kLanes % kPerByte == 0, "a thread writes whole bytes");
  using Bytes = Access<kCount, kWhole>;

  // `left` counts channels from c on.
  static __device__ __forceinline__ void Load(const uint8_t* pixel, int64_t c, int64_t left,
                                              int (&index)[kLanes]) {
    const auto bytes = Bytes::Load(pixel + c / kPerByte, (left + kPerByte - 1) / kPerByte);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      index[i] = kPacked ? bytes.lane[i / 4] >> 2 * (i % 4) & 3 : bytes.lane[i / kPerByte];
    }
  }
  static __device__ __forceinline__ void Store(uint8_t* pixel, int64_t c, int64_t left,
                                               const int (&index)[kLanes]) {
    Lanes<uint8_t, kCount> bytes{};
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      // What lies beyond the last channel of a packed byte is zero.
      const int kept = i < left ? index[i] : 0;
      bytes.lane[i / kPerByte] |= static_cast<uint8_t>(kept << (kPacked ? 2 * (i % 4) : 0));
    }
    Bytes::Store(pixel + c / kPerByte, bytes, (left + kPerByte - 1) / kPerByte);
  }
};

// Runs `window(pixel number, offset of the window in dense, its height and width)` for the windows
// of this thread. A block owns neighbouring columns of a row of windows; the one division is for
// each row, not for each element.
template <class Window>
__device__ __forceinline__ void ForWindows(const Geometry& g, Window window) {
  const int64_t rows = g.rows(), columns = g.columns();
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (column >= columns) return;
  const int width = Clip(column * g.k, g.width, g.k);
  for (int64_t number = blockIdx.y; number < g.batch * rows; number += gridDim.y) {
    const int64_t image = number / rows, row = number - image * rows;
    const int64_t pixel = (image * g.height + row * g.k) * g.width + column * g.k;
    window(number * columns + column, pixel * g.channels, Clip(row * g.k, g.height, g.k), width);
  }
}

// Runs `element(local, dense offset)` over a window's positions; whole 2 x 2 windows are spelled
// out, so that their four loads are in flight together.
template <class Element>
__device__ __forceinline__ void ForElements(const Geometry& g, int height, int width,
                                            Element element) {
  if (g.k == 2 && height == 2 && width == 2) {
    element(0, 0);
    element(1, g.channels);
    element(2, g.row_stride());
    element(3, g.row_stride() + g.channels);
    return;
  }
  for (int dy = 0; dy < height; ++dy) {
    for (int dx = 0; dx < width; ++dx) {
      element(dy * g.k + dx, dy * g.row_stride() + dx * g.channels);
    }
  }
}

template <class Format, int kLanes, bool kWhole, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    PoolKernel(Geometry g, const typename Format::Stored* dense, typename Format::Stored* values,
               uint8_t* indices) {
  using T = typename Format::Stored;
  using Values = Access<kLanes, kWhole>;
  ForWindows(g, [=](int64_t pixel, int64_t first, int height, int width) {
    for (int64_t c = threadIdx.x * kLanes; c < g.channels; c += blockDim.x * kLanes) {
      const int64_t left = g.channels - c;
      Maximum<Format, T, int> best[kLanes];
      ForElements(g, height, width, [&](int local, int64_t offset) {
        const auto candidate = Values::Load(dense + first + offset + c, left);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) {
          const Maximum<Format, T, int> found(candidate.lane[i], local);
          if (local == 0) {
            best[i] = found;
          } else {
            best[i].Offer(found);
          }
        }
      });
      Lanes<T, kLanes> value;
      int index[kLanes];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        value.lane[i] = best[i].value;
        index[i] = best[i].position;
      }
      Values::Store(values + pixel * g.channels + c, value, left);
      Indices<kLanes, kWhole, kPacked>::Store(indices + pixel * g.index_channels(), c, left,
                                              index);
    }
  });
}

// Unpool and gather move values without looking at them: T is the integer of their width.
template <class T, int kLanes, bool kWhole, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    UnpoolKernel(Geometry g, const T* values, const uint8_t* indices, T* dense) {
  using Values = Access<kLanes, kWhole>;
  ForWindows(g, [=](int64_t pixel, int64_t first, int height, int width) {
    for (int64_t c = threadIdx.x * kLanes; c < g.channels; c += blockDim.x * kLanes) {
      const int64_t left = g.channels - c;
      const auto value = Values::Load(values + pixel * g.channels + c, left);
      int index[kLanes];
      Indices<kLanes, kWhole, kPacked>::Load(indices + pixel * g.index_channels(), c, left, index);
      ForElements(g, height, width, [&](int local, int64_t offset) {
        Lanes<T, kLanes> placed;
#pragma unroll
        for (int i = 0; i < kLanes; ++i) placed.lane[i] = Placed(value.lane[i], index[i], local);
        Values::Store(dense + first + offset + c, placed, left);
      });
    }
  });
}

template <class T, int kLanes, bool kWhole, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    GatherKernel(Geometry g, const T* dense, const uint8_t* indices, T* values) {
  using Values = Access<kLanes, kWhole>;
  ForWindows(g, [=](int64_t pixel, int64_t first, int height, int width) {
    for (int64_t c = threadIdx.x * kLanes; c < g.channels; c += blockDim.x * kLanes) {
      const int64_t left = g.channels - c;
      int index[kLanes];
      Indices<kLanes, kWhole, kPacked>::Load(indices + pixel * g.index_channels(), c, left, index);
      Lanes<T, kLanes> value{};
      ForElements(g, height, width, [&](int local, int64_t offset) {
        const auto candidate = Values::Load(dense + first + offset + c, left);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) {
          value.lane[i] |= Placed(candidate.lane[i], index[i], local);
        }
      });
      Values::Store(values + pixel * g.channels + c, value, left);
    }
  });
}

// Threads of a block along channels, then along columns; blocks along columns, then along rows.
struct Shape {
  dim3 grid, block;
  Shape(const Geometry& g, int lanes) {
    const int64_t vectors = (g.channels + lanes - 1) / lanes;
    unsigned along = 1;
    while (along < vectors && along < kThreads) along *= 2;
    block = dim3(along, kThreads / along);
    const int64_t rows = g.batch * g.rows();
    grid = dim3(static_cast<unsigned>((g.columns() + block.y - 1) / block.y),
                static_cast<unsigned>(rows < kMaxGridY ? rows : kMaxGridY));
  }
};

#if defined(__CUDACC__)
template <class... Parameters>
void Launch(void (*kernel)(Parameters...), const Shape& shape, void* stream,
            Parameters... arguments) {
  kernel<<<shape.grid, shape.block, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
}
#else  // The tests' cuda_runtime.h runs the threads one after the other on the CPU.
template <class... Parameters>
void Launch(void (*kernel)(Parameters...), const Shape& shape, void*, Parameters... arguments) {
  RunOnCpu(shape.grid, shape.block, [&] { kernel(arguments...); });
}
#endif

bool Aligned(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

// A way to reach memory, as an argument.
template <int kLanesOf, bool kWholeOf, bool kPackedOf>
struct Way {
  static constexpr int kLanes = kLanesOf;
  static constexpr bool kWhole = kWholeOf, kPacked = kPackedOf;
};

// Calls `launch(way)` with the widest access that the channels and the addresses allow.
template <class T, bool kPacked, class Launch>
void ChooseWay(const Geometry& g, const void* dense, const void* values, const uint8_t* indices,
               Launch launch) {
  // Two bits each, four channels make a byte: doubles take two vectors.
  constexpr int kLanes = kPacked && sizeof(T) == 8 ? 4 : 16 / sizeof(T);
  const bool whole = g.channels % kLanes == 0 && Aligned(dense, 16) && Aligned(values, 16) &&
                     Aligned(indices, kLanes / (kPacked ? 4 : 1));
  if (whole) {
    launch(Way<kLanes, true, kPacked>{});
  } else {
    launch(Way<kPacked ? 4 : 1, false, kPacked>{});
  }
}

template <class T, class Launch>
const char* Start(const Geometry& g, const void* dense, const void* values,
                  const uint8_t* indices, Launch launch) {
  if (g.dense_size() == 0) return nullptr;
  if (g.packed) {
    ChooseWay<T, true>(g, dense, values, indices, launch);
  } else {
    ChooseWay<T, false>(g, dense, values, indices, launch);
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <class Format>
const char* Pool(const Geometry& g, const void* dense, void* values, uint8_t* indices,
                 void* stream) {
  using T = typename Format::Stored;
  return Start<T>(g, dense, values, indices, [&](auto way) {
    using W = decltype(way);
    const Shape shape(g, W::kLanes);
    Launch(PoolKernel<Format, W::kLanes, W::kWhole, W::kPacked>, shape, stream, g,
           static_cast<const T*>(dense), static_cast<T*>(values), indices);
  });
}

template <class T>
const char* Unpool(const Geometry& g, const void* values, const uint8_t* indices, void* dense,
                   void* stream) {
  return Start<T>(g, dense, values, indices, [&](auto way) {
    using W = decltype(way);
    const Shape shape(g, W::kLanes);
    Launch(UnpoolKernel<T, W::kLanes, W::kWhole, W::kPacked>, shape, stream, g,
           static_cast<const T*>(values), indices, static_cast<T*>(dense));
  });
}

template <class T>
const char* Gather(const Geometry& g, const void* dense, const uint8_t* indices, void* values,
                   void* stream) {
  return Start<T>(g, dense, values, indices, [&](auto way) {
    using W = decltype(way);
    const Shape shape(g, W::kLanes);
    Launch(GatherKernel<T, W::kLanes, W::kWhole, W::kPacked>, shape, stream, g,
           static_cast<const T*>(dense), indices, static_cast<T*>(values));
  });
}

}  // namespace
}  // namespace dlbench

using namespace dlbench;

extern "C" const char* dlbench_cuda_pool(Type type, const Geometry* g, const void* dense,
                                         void* values, uint8_t* indices, void* stream) {
  switch (type) {
    case Type::kFloat32: return Pool<Float32>(*g, dense, values, indices, stream);
    case Type::kFloat64: return Pool<Float64>(*g, dense, values, indices, stream);
    case Type::kBFloat16: return Pool<BFloat16>(*g, dense, values, indices, stream);
    case Type::kHalf: return Pool<Half>(*g, dense, values, indices, stream);
  }
  return "unknown type";
}

extern "C" const char* dlbench_cuda_unpool(Type type, const Geometry* g, const void* values,
                                           const uint8_t* indices, void* dense, void* stream) {
  switch (type) {
    case Type::kFloat32: return Unpool<int32_t>(*g, values, indices, dense, stream);
    case Type::kFloat64: return Unpool<int64_t>(*g, values, indices, dense, stream);
    case Type::kBFloat16:
    case Type::kHalf: return Unpool<int16_t>(*g, values, indices, dense, stream);
  }
  return "unknown type";
}

extern "C" const char* dlbench_cuda_gather(Type type, const Geometry* g, const void* dense,
                                           const uint8_t* indices, void* values, void* stream) {
  switch (type) {
    case Type::kFloat32: return Gather<int32_t>(*g, dense, indices, values, stream);
    case Type::kFloat64: return Gather<int64_t>(*g, dense, indices, values, stream);
    case Type::kBFloat16:
    case Type::kHalf: return Gather<int16_t>(*g, dense, indices, values, stream);
  }
  return "unknown type";
}
