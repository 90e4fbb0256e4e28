// TensorFlow registration of the convolution's gradient by its kernel.
#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "convolution.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/denormal.h"

namespace dlbench {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// The kernel's rows and columns, from an `OpKernelConstruction` or `InferenceContext`.
template <class Context>
absl::Status KernelSize(Context* context, int64_t* rows, int64_t* columns) {
  TF_RETURN_IF_ERROR(context->GetAttr("rows", rows));
  TF_RETURN_IF_ERROR(context->GetAttr("columns", columns));
  for (const int64_t length : {*rows, *columns}) {
    if (length % 2 == 1 && length > 0 && length <= kMaxKernelLength) continue;
    return absl::InvalidArgumentError(absl::StrCat("rows and columns of the kernel must be odd, 1 to ",
                                                   kMaxKernelLength, ", got ", *rows, " x ", *columns));
  }
  return absl::OkStatus();
}

absl::Status KernelGradientShape(InferenceContext* c) {
  int64_t rows, columns;
  TF_RETURN_IF_ERROR(KernelSize(c, &rows, &columns));
  ShapeHandle input, gradient;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &input));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &gradient));
  for (int axis = 0; axis < 3; ++axis) {
    DimensionHandle same;
    TF_RETURN_IF_ERROR(c->Merge(c->Dim(input, axis), c->Dim(gradient, axis), &same));
  }
  c->set_output(0, c->MakeShape({c->MakeDim(rows), c->MakeDim(columns), c->Dim(input, 3),
                                 c->Dim(gradient, 3)}));
  return absl::OkStatus();
}

class KernelGradientOp : public OpKernel {
 public:
  explicit KernelGradientOp(OpKernelConstruction* construction) : OpKernel(construction) {
    OP_REQUIRES_OK(construction, KernelSize(construction, &rows_, &columns_));
    const char* error = nullptr;
    OP_REQUIRES(construction, CurrentConvolutionKernels(&error) != nullptr,
                absl::InvalidArgumentError(absl::StrCat("DLBENCH_POOLING_ISA: ", error)));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    const Tensor& gradient = context->input(1);
    const TensorShape &in = input.shape(), &out = gradient.shape();
    OP_REQUIRES(context,
                in.dims() == 4 && out.dims() == 4 && in.dim_size(0) == out.dim_size(0) &&
                    in.dim_size(1) == out.dim_size(1) && in.dim_size(2) == out.dim_size(2),
                absl::InvalidArgumentError(absl::StrCat(
                    "input and gradient must be (batch, height, width, channels) with the same "
                    "batch, height and width, got shapes ",
                    in.DebugString(), " and ", out.DebugString())));
    const Convolution c{in.dim_size(0),  in.dim_size(1), in.dim_size(2), in.dim_size(3),
                        out.dim_size(3), rows_,          columns_};
    TensorShape shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape({rows_, columns_, c.inputs, c.outputs},
                                                          &shape));
    Tensor* result = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &result));
    float* to = result->flat<float>().data();
    if (c.pixels() == 0 || c.kernel_size() == 0) {
      std::fill_n(to, c.kernel_size(), 0.0f);
      return;
    }

    const char* error = nullptr;
    const ConvolutionKernels& kernels = *CurrentConvolutionKernels(&error);
    const int64_t parts = kernels.parts(c);
    auto* workers = context->device()->tensorflow_cpu_worker_threads();
    // As few blocks as threads, since each copies what it reads; none shorter than some 20 us.
    constexpr double kLeast = 1e6;
    const double cost = static_cast<double>(c.pixels()) * c.kernel_size() / parts;
    const int64_t worth = std::min<double>(parts, kLeast / cost + 1);
    const int64_t block = std::max((parts + workers->num_threads - 1) / workers->num_threads, worth);
    const int64_t blocks = (parts + block - 1) / block;
    int64_t floats = 0;
    for (int64_t begin = 0; begin < parts; begin += block) {
      floats = std::max(floats, kernels.scratch(c, begin, std::min(begin + block, parts)));
    }
    floats = (floats + 15) / 16 * 16;  // each block's memory is aligned as the first one's
    Tensor scratch;
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                   TensorShape({blocks * floats}), &scratch));
    float* memory = scratch.flat<float>().data();
    const float* from = input.flat<float>().data();
    const float* by = gradient.flat<float>().data();
    using tensorflow::thread::ThreadPool;
    workers->workers->ParallelFor(
        parts, ThreadPool::SchedulingParams::Fixed(block), [&](int64_t begin, int64_t end) {
          // As on TensorFlow's own threads, whoever runs this.
          const tensorflow::port::ScopedFlushDenormal flush;
          kernels.kernel_gradient(c, from, by, to, memory + begin / block * floats, begin, end);
        });
  }

 private:
  int64_t rows_, columns_;
};

}  // namespace

REGISTER_OP("DlbenchConv2DKernelGradient")
    .Input("input: float")
    .Input("gradient: float")
    .Output("kernel_gradient: float")
    .Attr("rows: int")
    .Attr("columns: int")
    .SetShapeFn(KernelGradientShape);

REGISTER_KERNEL_BUILDER(Name("DlbenchConv2DKernelGradient").Device(tensorflow::DEVICE_CPU),
                        KernelGradientOp);

}  // namespace dlbench

// The most rows or columns that a kernel of the op may have.
extern "C" __attribute__((used)) const int64_t dlbench_max_kernel_length = dlbench::kMaxKernelLength;
