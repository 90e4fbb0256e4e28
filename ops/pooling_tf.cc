// TensorFlow registration of the pooling kernels: ops, shape functions, glue to the thread pool.
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "pooling_cpu.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

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

absl::Status CheckPoolSize(int64_t k) {
  if (k >= kMinPoolSize && k <= kMaxPoolSize) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("pool_size must be from ", kMinPoolSize, " to ",
                                                 kMaxPoolSize, ", got ", k));
}

// The number of windows along one axis, where it is known.
absl::Status PooledDim(InferenceContext* c, DimensionHandle dense, int64_t k,
                       DimensionHandle* pooled) {
  if (!c->ValueKnown(dense)) {
    *pooled = c->UnknownDim();
    return absl::OkStatus();
  }
  *pooled = c->MakeDim((c->Value(dense) + k - 1) / k);
  return absl::OkStatus();
}

absl::Status PooledShape(InferenceContext* c, ShapeHandle dense, ShapeHandle* pooled) {
  int64_t k;
  TF_RETURN_IF_ERROR(c->GetAttr("pool_size", &k));
  TF_RETURN_IF_ERROR(CheckPoolSize(k));
  DimensionHandle rows, columns;
  TF_RETURN_IF_ERROR(PooledDim(c, c->Dim(dense, 1), k, &rows));
  TF_RETURN_IF_ERROR(PooledDim(c, c->Dim(dense, 2), k, &columns));
  *pooled = c->MakeShape({c->Dim(dense, 0), rows, columns, c->Dim(dense, 3)});
  return absl::OkStatus();
}

absl::Status PoolShape(InferenceContext* c) {
  ShapeHandle dense, pooled;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &dense));
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled));
  c->set_output(0, pooled);
  c->set_output(1, pooled);
  return absl::OkStatus();
}

absl::Status UnpoolShape(InferenceContext* c) {
  ShapeHandle values, indices, size, pooled;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &values));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &indices));
  TF_RETURN_IF_ERROR(c->Merge(values, indices, &values));
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(2, &size));
  TF_RETURN_IF_ERROR(c->WithRank(size, 2, &size));
  const ShapeHandle dense =
      c->MakeShape({c->Dim(values, 0), c->Dim(size, 0), c->Dim(size, 1), c->Dim(values, 3)});
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled));
  TF_RETURN_IF_ERROR(c->Merge(values, pooled, &pooled));
  c->set_output(0, dense);
  return absl::OkStatus();
}

absl::Status GatherShape(InferenceContext* c) {
  ShapeHandle dense, indices, pooled;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &dense));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &indices));
  TF_RETURN_IF_ERROR(PooledShape(c, dense, &pooled));
  TF_RETURN_IF_ERROR(c->Merge(indices, pooled, &pooled));
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

// What the three kernels share: the window size, the geometry, the split over threads.
class PoolingKernel : public OpKernel {
 public:
  explicit PoolingKernel(OpKernelConstruction* construction) : OpKernel(construction) {
    int64_t k;
    OP_REQUIRES_OK(construction, construction->GetAttr("pool_size", &k));
    OP_REQUIRES_OK(construction, CheckPoolSize(k));
    k_ = static_cast<int>(k);
    const char* error = nullptr;
    OP_REQUIRES(construction, CurrentKernels(&error) != nullptr,
                absl::InvalidArgumentError(absl::StrCat("DLBENCH_POOLING_ISA: ", error)));
  }

 protected:
  absl::Status DenseGeometry(const TensorShape& shape, Geometry* geometry) const {
    if (shape.dims() != 4) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected (batch, height, width, channels), got shape ", shape.DebugString()));
    }
    *geometry = {shape.dim_size(0), shape.dim_size(1), shape.dim_size(2), shape.dim_size(3), k_};
    return absl::OkStatus();
  }

  static TensorShape Pooled(const Geometry& g) {
    return TensorShape({g.batch, g.rows(), g.columns(), g.channels});
  }

  // Runs `rows(kernels, begin, end)` over all window rows on the device's worker threads.
  template <class Rows>
  static void ForWindowRows(OpKernelContext* context, const Geometry& g, Rows rows) {
    if (g.dense_size() == 0) return;
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
  }

  int k_;
};

class MaxPoolOp : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& dense = context->input(0);
    Geometry g;
    OP_REQUIRES_OK(context, DenseGeometry(dense.shape(), &g));
    Tensor* values = nullptr;
    Tensor* indices = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, Pooled(g), &values));
    OP_REQUIRES_OK(context, context->allocate_output(1, Pooled(g), &indices));
    const Type type = TypeOf(dense.dtype());
    ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.pool(type, g, Data(dense), Data(values), static_cast<uint8_t*>(Data(indices)), begin,
                   end);
    });
  }
};

class MaxUnpoolOp : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& values = context->input(0);
    const Tensor& indices = context->input(1);
    const Tensor& size = context->input(2);
    OP_REQUIRES(context, values.dims() == 4 && values.shape() == indices.shape(),
                absl::InvalidArgumentError(absl::StrCat(
                    "values and indices must both be (batch, rows, columns, channels), got ",
                    values.shape().DebugString(), " and ", indices.shape().DebugString())));
    OP_REQUIRES(context, size.dims() == 1 && size.NumElements() == 2,
                absl::InvalidArgumentError(absl::StrCat(
                    "output_size must be (height, width), got a tensor of shape ",
                    size.shape().DebugString())));
    const int64_t height = size.flat<int32_t>()(0), width = size.flat<int32_t>()(1);
    Geometry g{values.dim_size(0), height, width, values.dim_size(3), k_};
    OP_REQUIRES(
        context,
        height >= 0 && width >= 0 && g.rows() == values.dim_size(1) &&
            g.columns() == values.dim_size(2),
        absl::InvalidArgumentError(absl::StrCat(
            "output_size (", height, ", ", width, ") does not fit values of shape ",
            values.shape().DebugString(), " at pool_size ", k_,
            ": give the pool's input size, of which ceil(size / pool_size) is (",
            values.dim_size(1), ", ", values.dim_size(2), ")")));
    TensorShape shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape(
                                {g.batch, g.height, g.width, g.channels}, &shape));
    Tensor* dense = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &dense));
    const Type type = TypeOf(values.dtype());
    ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.unpool(type, g, Data(values), Indices(indices), Data(dense), begin, end);
    });
  }
};

class MaxGatherOp : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& dense = context->input(0);
    const Tensor& indices = context->input(1);
    Geometry g;
    OP_REQUIRES_OK(context, DenseGeometry(dense.shape(), &g));
    OP_REQUIRES(context, indices.shape() == Pooled(g),
                absl::InvalidArgumentError(absl::StrCat(
                    "indices for a dense tensor of shape ", dense.shape().DebugString(),
                    " at pool_size ", k_, " must have shape ", Pooled(g).DebugString(), ", got ",
                    indices.shape().DebugString())));
    Tensor* values = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, Pooled(g), &values));
    const Type type = TypeOf(dense.dtype());
    ForWindowRows(context, g, [&](const Kernels& kernels, int64_t begin, int64_t end) {
      kernels.gather(type, g, Data(dense), Indices(indices), Data(values), begin, end);
    });
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
    .SetShapeFn(PoolShape);

REGISTER_OP("DlbenchMaxUnpool")
    .Input("values: T")
    .Input("indices: uint8")
    .Input("output_size: int32")
    .Output("dense: T")
    .Attr(kTypes)
    .Attr("pool_size: int = 2")
    .SetShapeFn(UnpoolShape);

REGISTER_OP("DlbenchMaxGather")
    .Input("dense: T")
    .Input("indices: uint8")
    .Output("values: T")
    .Attr(kTypes)
    .Attr("pool_size: int = 2")
    .SetShapeFn(GatherShape);

#define DLBENCH_REGISTER(T)                                                              \
  REGISTER_KERNEL_BUILDER(                                                               \
      Name("DlbenchMaxPool").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),      \
      MaxPoolOp);                                                                        \
  REGISTER_KERNEL_BUILDER(                                                               \
      Name("DlbenchMaxUnpool").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),    \
      MaxUnpoolOp);                                                                      \
  REGISTER_KERNEL_BUILDER(                                                               \
      Name("DlbenchMaxGather").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),    \
      MaxGatherOp)
DLBENCH_REGISTER(float);
DLBENCH_REGISTER(double);
DLBENCH_REGISTER(Eigen::half);
DLBENCH_REGISTER(Eigen::bfloat16);
#undef DLBENCH_REGISTER

}  // namespace dlbench

// Read from the file's bytes by dlbench/ops.py before it loads the library, which would otherwise
// fail on TensorFlow's symbols with a linker's message.
extern "C" __attribute__((used)) const char dlbench_pooling_build[] =
    "dlbench-pooling-build:" DLBENCH_BUILD;

// The instruction set in use, or null with the reason.
extern "C" const char* dlbench_pooling_isa(const char** error) {
  const dlbench::Kernels* kernels = dlbench::CurrentKernels(error);
  return kernels == nullptr ? nullptr : kernels->name;
}

// Switches the instruction set of this process; for the tests, which compare all of them.
extern "C" bool dlbench_pooling_use_isa(const char* name, const char** error) {
  return dlbench::UseKernels(name, error);
}
