// TensorFlow registration of batch normalisation in training and of sums: ops, shape functions,
// glue.
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "normalization.h"
#include "processor.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace dlbench {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Merges the channels of the values, the last axis of input `values`, and of the vectors from input
// `vectors` on.
absl::Status ChannelsOf(InferenceContext* c, int values, int vectors, ShapeHandle* channels) {
  ShapeHandle shape;
  TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(values), 1, &shape));
  *channels = c->Vector(c->RankKnown(shape) ? c->Dim(shape, -1) : c->UnknownDim());
  for (int i = vectors; i < c->num_inputs(); ++i) {
    TF_RETURN_IF_ERROR(c->Merge(c->input(i), *channels, channels));
  }
  return absl::OkStatus();
}

absl::Status NormalizationShape(InferenceContext* c) {
  ShapeHandle channels;
  TF_RETURN_IF_ERROR(ChannelsOf(c, 0, 1, &channels));
  c->set_output(0, c->input(0));
  c->set_output(1, channels);
  c->set_output(2, channels);
  return absl::OkStatus();
}

absl::Status GradientShape(InferenceContext* c) {
  ShapeHandle channels, values;
  TF_RETURN_IF_ERROR(ChannelsOf(c, 1, 2, &channels));
  TF_RETURN_IF_ERROR(c->Merge(c->input(0), c->input(1), &values));
  c->set_output(0, values);
  c->set_output(1, channels);
  c->set_output(2, channels);
  return absl::OkStatus();
}

const float* Floats(const Tensor& tensor) { return tensor.flat<float>().data(); }
float* Floats(Tensor* tensor) { return tensor->flat<float>().data(); }

Data DataOf(const Tensor& x) {
  return x.dtype() == tensorflow::DT_FLOAT ? Data::kFloat32 : Data::kBFloat16;
}

Parallel ParallelOf(OpKernelContext* context) {
  return [context](int64_t parts, int64_t bytes, const std::function<void(int64_t)>& part) {
    using tensorflow::thread::ThreadPool;
    // Bound by memory: about 4 bytes pass in a cycle.
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        parts, ThreadPool::SchedulingParams::Adaptive(bytes / parts / 4 + 1),
        [&](int64_t begin, int64_t end) {
          const ExactSubnormals exact;
          for (int64_t i = begin; i < end; ++i) part(i);
        });
  };
}

absl::Status CheckInstructionSet() {
  const char* error = nullptr;
  if (CurrentInstructionSet(&error) != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("DLBENCH_POOLING_ISA: ", error));
}

class NormalizationKernel : public OpKernel {
 public:
  explicit NormalizationKernel(OpKernelConstruction* construction) : OpKernel(construction) {
    OP_REQUIRES_OK(construction, construction->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(construction, construction->GetAttr("relu", &relu_));
    OP_REQUIRES_OK(construction, CheckInstructionSet());
  }

 protected:
  static absl::Status Check(OpKernelContext* context, const Tensor& x, int vectors) {
    if (x.dims() < 1) return absl::InvalidArgumentError("expected (..., channels), got a scalar");
    const int64_t channels = x.dim_size(x.dims() - 1);
    for (int i = vectors; i < context->num_inputs(); ++i) {
      const TensorShape& shape = context->input(i).shape();
      if (shape == TensorShape({channels})) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("input ", i, " for values of shape ", x.shape().DebugString(),
                       " must have shape [", channels, "], got ", shape.DebugString()));
    }
    return absl::OkStatus();
  }

  static Plan PlanOf(const Tensor& x) {
    const int64_t channels = x.dim_size(x.dims() - 1);
    return Plan(channels == 0 ? 0 : x.NumElements() / channels, channels);
  }

  float epsilon_;
  bool relu_;
};

class BatchNormalizationOp : public NormalizationKernel {
 public:
  using NormalizationKernel::NormalizationKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &gamma = context->input(1), &beta = context->input(2);
    OP_REQUIRES_OK(context, Check(context, x, 1));
    const ExactSubnormals exact;
    Tensor *y = nullptr, *mean = nullptr, *variance = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    OP_REQUIRES_OK(context, context->allocate_output(1, gamma.shape(), &mean));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &variance));
    NormalizeBatch(DataOf(x), PlanOf(x), {Floats(gamma), Floats(beta), epsilon_, relu_},
                   ParallelOf(context), x.data(), y->data(), Floats(mean), Floats(variance));
  }
};

class BatchNormalizationGradientOp : public NormalizationKernel {
 public:
  using NormalizationKernel::NormalizationKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &gamma = context->input(2);
    OP_REQUIRES_OK(context, Check(context, x, 2));
    const ExactSubnormals exact;
    OP_REQUIRES(context, dy.shape() == x.shape(),
                absl::InvalidArgumentError(
                    absl::StrCat("the gradient has shape ", dy.shape().DebugString(),
                                 ", the values ", x.shape().DebugString())));
    Tensor *dx = nullptr, *dgamma = nullptr, *dbeta = nullptr;
    // Over dy where nothing else reads that: its lines are in the cache.
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, gamma.shape(), &dgamma));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &dbeta));
    NormalizeBatchGradient(DataOf(x), PlanOf(x),
                           {Floats(gamma), Floats(context->input(3)), epsilon_, relu_},
                           ParallelOf(context), dy.data(), x.data(), Floats(context->input(4)),
                           Floats(context->input(5)), dx->data(), Floats(dgamma), Floats(dbeta));
  }
};

class AddOp : public OpKernel {
 public:
  explicit AddOp(OpKernelConstruction* construction) : OpKernel(construction) {
    OP_REQUIRES_OK(construction, CheckInstructionSet());
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &a = context->input(0), &b = context->input(1);
    OP_REQUIRES(context, a.shape() == b.shape(),
                absl::InvalidArgumentError(
                    absl::StrCat("cannot add values of shape ", b.shape().DebugString(),
                                 " to values of shape ", a.shape().DebugString())));
    Tensor* sum = nullptr;
    OP_REQUIRES_OK(context,
                   context->forward_input_or_allocate_output({0, 1}, 0, a.shape(), &sum));
    Add(DataOf(a), a.NumElements(), ParallelOf(context), a.data(), b.data(), sum->data());
  }
};

}  // namespace

REGISTER_OP("DlbenchAdd")
    .Input("a: T")
    .Input("b: T")
    .Output("sum: T")
    .Attr("T: {bfloat16, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle shape;
      TF_RETURN_IF_ERROR(c->Merge(c->input(0), c->input(1), &shape));
      c->set_output(0, shape);
      return absl::OkStatus();
    });

REGISTER_OP("DlbenchBatchNormalization")
    .Input("x: T")
    .Input("gamma: float")
    .Input("beta: float")
    .Output("y: T")
    .Output("mean: float")
    .Output("variance: float")
    .Attr("T: {bfloat16, float}")
    .Attr("epsilon: float")
    .Attr("relu: bool = false")
    .SetShapeFn(NormalizationShape);

REGISTER_OP("DlbenchBatchNormalizationGrad")
    .Input("dy: T")
    .Input("x: T")
    .Input("gamma: float")
    .Input("beta: float")
    .Input("mean: float")
    .Input("variance: float")
    .Output("dx: T")
    .Output("dgamma: float")
    .Output("dbeta: float")
    .Attr("T: {bfloat16, float}")
    .Attr("epsilon: float")
    .Attr("relu: bool = false")
    .SetShapeFn(GradientShape);

#define DLBENCH_REGISTER(T)                                                         \
  REGISTER_KERNEL_BUILDER(                                                          \
      Name("DlbenchAdd").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),     \
      AddOp);                                                                       \
  REGISTER_KERNEL_BUILDER(Name("DlbenchBatchNormalization")                         \
                              .Device(tensorflow::DEVICE_CPU)                       \
                              .TypeConstraint<T>("T"),                              \
                          BatchNormalizationOp);                                    \
  REGISTER_KERNEL_BUILDER(Name("DlbenchBatchNormalizationGrad")                     \
                              .Device(tensorflow::DEVICE_CPU)                       \
                              .TypeConstraint<T>("T"),                              \
                          BatchNormalizationGradientOp)
DLBENCH_REGISTER(float);
DLBENCH_REGISTER(Eigen::bfloat16);
#undef DLBENCH_REGISTER

}  // namespace dlbench
