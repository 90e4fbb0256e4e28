// Random convolutions whose buffers end where the tensors end, so that a sanitizer sees every step
// beyond them, compared with plain loops in double precision.
//
//   convolution_fuzz N SEED
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "convolution.h"

using dlbench::Convolution;
using dlbench::ConvolutionKernels;

namespace {

std::vector<double> Sums(const Convolution& c, const float* input, const float* gradient) {
  std::vector<double> sums(c.kernel_size());
  for (int64_t pixel = 0; pixel < c.pixels(); ++pixel) {
    const int64_t x = pixel % c.width, y = pixel / c.width % c.height;
    for (int64_t k = 0; k < c.rows * c.columns; ++k) {
      const int64_t dy = k / c.columns - c.rows / 2, dx = k % c.columns - c.columns / 2;
      if (y + dy < 0 || y + dy >= c.height || x + dx < 0 || x + dx >= c.width) continue;
      const float* from = input + (pixel + dy * c.width + dx) * c.inputs;
      for (int64_t i = 0; i < c.inputs * c.outputs; ++i) {
        sums[k * c.inputs * c.outputs + i] +=
            static_cast<double>(from[i / c.outputs]) * gradient[pixel * c.outputs + i % c.outputs];
      }
    }
  }
  return sums;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  std::mt19937_64 random(std::strtoull(arguments[2], nullptr, 10));
  const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % limit); };
  std::vector<const ConvolutionKernels*> all{&dlbench::kPortableConvolution};
#if defined(__x86_64__)
  // Compiled without AVX-512 where the processor lacks it, its vectors made of shorter ones.
  all.push_back(&dlbench::kAvx512Convolution);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    all.push_back(&dlbench::kAvx2Convolution);
  }
#endif
  const long cases = std::strtol(arguments[1], nullptr, 10);
  for (long number = 0; number < cases; ++number) {
    const ConvolutionKernels& kernels = *all[number % all.size()];
    Convolution c{1 + below(4),  1 + below(9),      1 + below(9),     1 + below(40),
                  1 + below(70), 1 + 2 * below(4), 1 + 2 * below(4)};
    if (below(20) == 0) c.width += 1024;  // longer than a chunk
    if (c.width > 1024) c.inputs = 1 + c.inputs % 7, c.outputs = 1 + c.outputs % 7;
    std::unique_ptr<float[]> input(new float[c.pixels() * c.inputs]);
    std::unique_ptr<float[]> gradient(new float[c.pixels() * c.outputs]);
    std::unique_ptr<float[]> result(new float[c.kernel_size()]);
    // Small integers: every sum is exact.
    for (int64_t i = 0; i < c.pixels() * c.inputs; ++i) input[i] = below(17) - 8;
    for (int64_t i = 0; i < c.pixels() * c.outputs; ++i) gradient[i] = below(17) - 8;
    for (int64_t i = 0; i < c.kernel_size(); ++i) result[i] = NAN;
    const int64_t parts = kernels.parts(c), split = below(parts + 1);
    const int64_t ranges[2][2] = {{split, parts}, {0, split}};
    for (const auto& [begin, end] : ranges) {
      if (begin == end) continue;
      std::unique_ptr<float[]> scratch(new float[kernels.scratch(c, begin, end)]);
      kernels.kernel_gradient(c, input.get(), gradient.get(), result.get(), scratch.get(), begin,
                              end);
    }
    const std::vector<double> expected = Sums(c, input.get(), gradient.get());
    for (int64_t i = 0; i < c.kernel_size(); ++i) {
      if (result[i] == expected[i]) continue;
      std::fprintf(stderr, "case %ld on %s: element %ld is %g, expected %g\n", number,
                   kernels.name, static_cast<long>(i), result[i], expected[i]);
      return 1;
    }
  }
  std::printf("%ld random cases\n", cases);
  return 0;
}
