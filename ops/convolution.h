// The gradient of a convolution by its kernel on the CPU, free of TensorFlow.
//
// TensorFlow's kernels reach a peak processor's speed in a convolution and in its gradient by the
// input, but on processors with AVX2 alone about half of it in the gradient by the kernel.
#ifndef DLBENCH_OPS_CONVOLUTION_H_
#define DLBENCH_OPS_CONVOLUTION_H_

#include <cstdint>

namespace dlbench {

constexpr int64_t kMaxKernelLength = 63;

// A convolution with stride 1 and zeros around the image, so that the output has the input's size:
// (batch, height, width, inputs) and (rows, columns, inputs, outputs) ->
// (batch, height, width, outputs). Rows and columns of the kernel are odd, at most
// kMaxKernelLength.
struct Convolution {
  int64_t batch = 0, height = 0, width = 0, inputs = 0, outputs = 0;
  int64_t rows = 1, columns = 1;

  int64_t pixels() const { return batch * height * width; }
  int64_t kernel_size() const { return rows * columns * inputs * outputs; }
};

struct ConvolutionKernels {
  const char* name;
  // The work's parts, numbered from 0. A part owns some of the result's elements, and adds them up
  // over all pixels in an order that the shape alone decides: how parts are handed to threads
  // does not change a bit of the result.
  int64_t (*parts)(const Convolution&);
  // Floats of working memory, aligned to 64 bytes, that parts [begin, end) need together.
  int64_t (*scratch)(const Convolution&, int64_t begin, int64_t end);
  // result[i, j, c, o] = sum over n, y, x of
  //     input[n, y + i - rows / 2, x + j - columns / 2, c] * gradient[n, y, x, o]
  // for the elements of parts [begin, end), which are all written. No dimension may be 0.
  void (*kernel_gradient)(const Convolution&, const float* input, const float* gradient,
                          float* result, float* scratch, int64_t begin, int64_t end);
};

// Those of the instruction set in use, see processor.h.
const ConvolutionKernels* CurrentConvolutionKernels(const char** error);

extern const ConvolutionKernels kPortableConvolution;
#if defined(__x86_64__)
extern const ConvolutionKernels kAvx2Convolution;
extern const ConvolutionKernels kAvx512Convolution;
#endif

}  // namespace dlbench

#endif  // DLBENCH_OPS_CONVOLUTION_H_
