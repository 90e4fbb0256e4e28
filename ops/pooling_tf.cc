// TensorFlow registration of the pooling kernels: ops, shape functions, glue to the thread pool.
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "pooling_cpu.h"
#include "processor.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

#if defined(DLBENCH_CUDA)
#include "pooling_cuda.h"
#include "xla/stream_executor/stream.h"
#endif

namespace dlbench {
namespace {

using tensorflow::DataType;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// What every op is registered with, read from an `OpKernelConstruction` or `InferenceContext`.
struct Attributes {
  int64_t k = 0;
  bool packed = false;

  template <class Context>
  absl::Status Read(Context* context) {
    TF_RETURN_IF_ERROR(context->GetAttr("pool_size", &k));
    TF_RETURN_IF_ERROR(context->GetAttr("packed", &packed));
    if (k < kMinPoolSize || k > kMaxPoolSize) {
      return absl::InvalidArgumentError(absl::StrCat("pool_size must be from ", kMinPoolSize,
                                                     " to ", kMaxPoolSize, ", got ", k));
    }
    if (packed && k != kPackedPoolSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("packed indices have two bits, which is enough for pool_size ",
                       kPackedPoolSize, " alone, got ", k));
    }
    return absl::OkStatus();
  }
};

// ceil(dim / k), where it is known.
DimensionHandle Quotient(InferenceContext* c, DimensionHandle dim, int64_t k) {
  return c->ValueKnown(dim) ? c->MakeDim((c->Value(dim) + k - 1) / k) : c->UnknownDim();
}

// The shapes of a dense tensor's pooled values and of their indices.
absl::Status PooledShape(InferenceContext* c, ShapeHandle dense, ShapeHandle* pooled,
                         ShapeHandle* indices) {
  Attributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  const DimensionHandle rows = Quotient(c, c->Dim(dense, 1), attributes.k);
  const DimensionHandle columns = Quotient(c, c->Dim(dense, 2), attributes.k);
  const DimensionHandle channels = c->Dim(dense, 3);
  *pooled = c->MakeShape({c->Dim(dense, 0), rows, columns, channels});
  *indices = *pooled;
  if (!attributes.packed) return absl::OkStatus();
  return c->ReplaceDim(*pooled, 3, Quotient(c, channels, 4), indices);
}

absl::Status PoolShape(InferenceContext* c) {
  ShapeHandle dense, pooled, indices;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &dense));
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled, &indices));
  c->set_output(0, pooled);
  c->set_output(1, indices);
  return absl::OkStatus();
}

absl::Status UnpoolShape(InferenceContext* c) {
  ShapeHandle values, indices, size, pooled, pooled_indices;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &values));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &indices));
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(2, &size));
  TF_RETURN_IF_ERROR(c->WithRank(size, 2, &size));
  const ShapeHandle dense =
      c->MakeShape({c->Dim(values, 0), c->Dim(size, 0), c->Dim(size, 1), c->Dim(values, 3)});
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled, &pooled_indices));
  TF_RETURN_IF_ERROR(c->Merge(values, pooled, &pooled));
  TF_RETURN_IF_ERROR(c->Merge(indices, pooled_indices, &indices));
  c->set_output(0, dense);
  return absl::OkStatus();
}

absl::Status GatherShape(InferenceContext* c) {
  ShapeHandle dense, indices, pooled, pooled_indices;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &dense));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &indices));
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled, &pooled_indices));
  TF_RETURN_IF_ERROR(c->Merge(indices, pooled_indices, &indices));
  c->set_output(0, pooled);
  return absl::OkStatus();
}

Type TypeOf(DataType type) {
  switch (type) {
    case tensorflow::DT_DOUBLE: return Type::kFloat64;
    case tensorflow::DT_BFLOAT16: return Type::kBFloat16;
    case tensorflow::DT_HALF: return Type::kHalf;
    default: return Type::kFloat32;  // registered for these four types alone
  }
}

void* Data(Tensor* tensor) { return tensor->data(); }
const void* Data(const Tensor& tensor) { return tensor.data(); }
const uint8_t* Indices(const Tensor& tensor) { return static_cast<const uint8_t*>(tensor.data()); }

// Runs the CPU kernels on the device's worker threads.
struct Cpu {
  static absl::Status Check() {
    const char* error = nullptr;
    if (CurrentKernels(&error) != nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("DLBENCH_POOLING_ISA: ", error));
  }

  static absl::Status Pool(OpKernelContext* context, Type type, const Geometry& g,
                           const void* dense, void* values, uint8_t* indices) {
    return ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.pool(type, g, dense, values, indices, begin, end);
    });
  }
  static absl::Status Unpool(OpKernelContext* context, Type type, const Geometry& g,
                             const void* values, const uint8_t* indices, void* dense) {
    return ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.unpool(type, g, values, indices, dense, begin, end);
    });
  }
  static absl::Status Gather(OpKernelContext* context, Type type, const Geometry& g,
                             const void* dense, const uint8_t* indices, void* values) {
    return ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.gather(type, g, dense, indices, values, begin, end);
    });
  }

 private:
  // Runs `rows(kernels, begin, end)` over all window rows.
  template <class Rows>
  static absl::Status ForWindowRows(OpKernelContext* context, const Geometry& g, Rows rows) {
    const char* error = nullptr;
    const Kernels* kernels = CurrentKernels(&error);
    const int64_t total = g.batch * g.rows();
    // Bound by memory: about 4 of the input's and output's bytes pass in a cycle.
    const int64_t element = tensorflow::DataTypeSize(context->input_dtype(0));
    const int64_t cycles = g.dense_size() / total * element / 4 + 1;
    using tensorflow::thread::ThreadPool;
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        total, ThreadPool::SchedulingParams::Adaptive(cycles), [&](int64_t begin, int64_t end) {
          const ExactSubnormals exact;
          rows(*kernels, begin, end);
        });
    return absl::OkStatus();
  }
};

#if defined(DLBENCH_CUDA)
// Enqueues the CUDA kernels on TensorFlow's stream.
struct Gpu {
  static absl::Status Check() { return absl::OkStatus(); }

  static absl::Status Pool(OpKernelContext* context, Type type, const Geometry& g,
                           const void* dense, void* values, uint8_t* indices) {
    return Launched(dlbench_cuda_pool(type, &g, dense, values, indices, Stream(context)));
  }
  static absl::Status Unpool(OpKernelContext* context, Type type, const Geometry& g,
                             const void* values, const uint8_t* indices, void* dense) {
    return Launched(dlbench_cuda_unpool(type, &g, values, indices, dense, Stream(context)));
  }
  static absl::Status Gather(OpKernelContext* context, Type type, const Geometry& g,
                             const void* dense, const uint8_t* indices, void* values) {
    return Launched(dlbench_cuda_gather(type, &g, dense, indices, values, Stream(context)));
  }

 private:
  static void* Stream(OpKernelContext* context) {
    return context->op_device_context()->stream()->platform_specific_handle().stream;
  }
  static absl::Status Launched(const char* error) {
    if (error == nullptr) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("a CUDA pooling kernel did not start: ", error));
  }
};
#endif

// What the three kernels share: the window size, the geometry, the checks of shapes.
template <class Device>
class PoolingKernel : public OpKernel {
 public:
  explicit PoolingKernel(OpKernelConstruction* construction) : OpKernel(construction) {
    Attributes attributes;
    OP_REQUIRES_OK(construction, attributes.Read(construction));
    k_ = static_cast<int>(attributes.k);
    packed_ = attributes.packed;
    OP_REQUIRES_OK(construction, Device::Check());
  }

 protected:
  absl::Status DenseGeometry(const TensorShape& shape, Geometry* geometry) const {
    if (shape.dims() != 4) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected (batch, height, width, channels), got shape ", shape.DebugString()));
    }
    *geometry = {shape.dim_size(0), shape.dim_size(1), shape.dim_size(2), shape.dim_size(3), k_,
                 packed_};
    return absl::OkStatus();
  }

  static TensorShape Pooled(const Geometry& g) {
    return TensorShape({g.batch, g.rows(), g.columns(), g.channels});
  }

  static TensorShape Indexed(const Geometry& g) {
    return TensorShape({g.batch, g.rows(), g.columns(), g.index_channels()});
  }

  absl::Status CheckIndices(const TensorShape& indices, const Geometry& g, const char* whose,
                            const TensorShape& shape) const {
    if (indices == Indexed(g)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(packed_ ? "packed indices for " : "indices for ", whose, " of shape ",
                     shape.DebugString(), " at pool_size ", k_, " must have shape ",
                     Indexed(g).DebugString(), ", got ", indices.DebugString()));
  }

  int k_;
  bool packed_;
};

template <class Device>
class MaxPoolOp : public PoolingKernel<Device> {
 public:
  using PoolingKernel<Device>::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& dense = context->input(0);
    Geometry g;
    OP_REQUIRES_OK(context, this->DenseGeometry(dense.shape(), &g));
    Tensor* values = nullptr;
    Tensor* indices = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, this->Pooled(g), &values));
    OP_REQUIRES_OK(context, context->allocate_output(1, this->Indexed(g), &indices));
    const Type type = TypeOf(dense.dtype());
    if (g.dense_size() == 0) return;
    OP_REQUIRES_OK(context, Device::Pool(context, type, g, Data(dense), Data(values),
                                         static_cast<uint8_t*>(Data(indices))));
  }
};

template <class Device>
class MaxUnpoolOp : public PoolingKernel<Device> {
 public:
  using PoolingKernel<Device>::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& values = context->input(0);
    const Tensor& indices = context->input(1);
    const Tensor& size = context->input(2);
    OP_REQUIRES(context, values.dims() == 4,
                absl::InvalidArgumentError(
                    absl::StrCat("values must be (batch, rows, columns, channels), got shape ",
                                 values.shape().DebugString())));
    OP_REQUIRES(context, size.dims() == 1 && size.NumElements() == 2,
                absl::InvalidArgumentError(absl::StrCat(
                    "output_size must be (height, width), got a tensor of shape ",
                    size.shape().DebugString())));
    const int64_t height = size.flat<int32_t>()(0), width = size.flat<int32_t>()(1);
    Geometry g{values.dim_size(0), height, width, values.dim_size(3), this->k_, this->packed_};
    OP_REQUIRES(
        context,
        height >= 0 && width >= 0 && g.rows() == values.dim_size(1) &&
            g.columns() == values.dim_size(2),
        absl::InvalidArgumentError(absl::StrCat(
            "output_size (", height, ", ", width, ") does not fit values of shape ",
            values.shape().DebugString(), " at pool_size ", this->k_,
            ": give the pool's input size, of which ceil(size / pool_size) is (",
            values.dim_size(1), ", ", values.dim_size(2), ")")));
    OP_REQUIRES_OK(context, this->CheckIndices(indices.shape(), g, "values", values.shape()));
    TensorShape shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape(
                                {g.batch, g.height, g.width, g.channels}, &shape));
    Tensor* dense = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &dense));
    const Type type = TypeOf(values.dtype());
    if (g.dense_size() == 0) return;
    OP_REQUIRES_OK(context, Device::Unpool(context, type, g, Data(values), Indices(indices),
                                           Data(dense)));
  }
};

template <class Device>
class MaxGatherOp : public PoolingKernel<Device> {
 public:
  using PoolingKernel<Device>::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& dense = context->input(0);
    const Tensor& indices = context->input(1);
    Geometry g;
    OP_REQUIRES_OK(context, this->DenseGeometry(dense.shape(), &g));
    OP_REQUIRES_OK(context, this->CheckIndices(indices.shape(), g, "a dense tensor", dense.shape()));
    Tensor* values = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, this->Pooled(g), &values));
    const Type type = TypeOf(dense.dtype());
    if (g.dense_size() == 0) return;
    OP_REQUIRES_OK(context, Device::Gather(context, type, g, Data(dense), Indices(indices),
                                           Data(values)));
  }
};

constexpr char kTypes[] = "T: {half, bfloat16, float, double}";

}  // namespace

REGISTER_OP("DlbenchMaxPool")
    .Input("dense: T")
    .Output("values: T")
    .Output("indices: uint8")
    .Attr(kTypes)
    .Attr("pool_size: int = 2")
    .Attr("packed: bool = false")
    .SetShapeFn(PoolShape);

REGISTER_OP("DlbenchMaxUnpool")
    .Input("values: T")
    .Input("indices: uint8")
    .Input("output_size: int32")
    .Output("dense: T")
    .Attr(kTypes)
    .Attr("pool_size: int = 2")
    .Attr("packed: bool = false")
    .SetShapeFn(UnpoolShape);

REGISTER_OP("DlbenchMaxGather")
    .Input("dense: T")
    .Input("indices: uint8")
    .Output("values: T")
    .Attr(kTypes)
    .Attr("pool_size: int = 2")
    .Attr("packed: bool = false")
    .SetShapeFn(GatherShape);

#define DLBENCH_REGISTER_ON(DEVICE, RUNS_ON, T)                                                   \
  REGISTER_KERNEL_BUILDER(                                                                        \
      Name("DlbenchMaxPool").Device(DEVICE).TypeConstraint<T>("T"), MaxPoolOp<RUNS_ON>);          \
  REGISTER_KERNEL_BUILDER(Name("DlbenchMaxUnpool")                                                \
                              .Device(DEVICE)                                                     \
                              .HostMemory("output_size")                                          \
                              .TypeConstraint<T>("T"),                                            \
                          MaxUnpoolOp<RUNS_ON>);                                                  \
  REGISTER_KERNEL_BUILDER(                                                                        \
      Name("DlbenchMaxGather").Device(DEVICE).TypeConstraint<T>("T"), MaxGatherOp<RUNS_ON>)
#if defined(DLBENCH_CUDA)
#define DLBENCH_REGISTER(T)                             \
  DLBENCH_REGISTER_ON(tensorflow::DEVICE_CPU, Cpu, T); \
  DLBENCH_REGISTER_ON(tensorflow::DEVICE_GPU, Gpu, T)
#else
#define DLBENCH_REGISTER(T) DLBENCH_REGISTER_ON(tensorflow::DEVICE_CPU, Cpu, T)
#endif
DLBENCH_REGISTER(float);
DLBENCH_REGISTER(double);
DLBENCH_REGISTER(Eigen::half);
DLBENCH_REGISTER(Eigen::bfloat16);
#undef DLBENCH_REGISTER
#undef DLBENCH_REGISTER_ON

}  // namespace dlbench

// Read from the file's bytes by dlbench/ops.py before it loads the library, which would otherwise
// fail on TensorFlow's symbols with a linker's message.
extern "C" __attribute__((used)) const char dlbench_pooling_build[] =
    "dlbench-pooling-build:" DLBENCH_BUILD;

// The instruction set in use, or null with the reason.
extern "C" const char* dlbench_pooling_isa(const char** error) {
  return dlbench::CurrentInstructionSet(error);
}

// Switches the instruction set of this process; for the tests, which compare all of them.
extern "C" bool dlbench_pooling_use_isa(const char* name, const char** error) {
  return dlbench::UseInstructionSet(name, error);
}
