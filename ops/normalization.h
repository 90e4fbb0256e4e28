// Batch normalisation over the rows of a matrix (rows, channels), and the sum of two tensors that
// residual networks put around it; free of TensorFlow.
#ifndef DLBENCH_OPS_NORMALIZATION_H_
#define DLBENCH_OPS_NORMALIZATION_H_

#include <cstdint>
#include <functional>

namespace dlbench {

enum class Data { kFloat32, kBFloat16 };

// How rows are taken together: `fold` rows that stand one after another are one wide row, so that
// any number of channels fills whole vectors. Depends on the shape alone, never on the processor or
// its threads: sums are then always added in the same order.
struct Plan {
  static constexpr int64_t kUnit = 32;       // values in the largest vector: 64 bytes of bfloat16
  static constexpr int64_t kLeastWidth = 128;  // a shorter loop costs more to start than to run
  static constexpr int64_t kPartSize = 32768;  // values
  static constexpr int64_t kMostParts = 64;

  Plan(int64_t rows, int64_t channels);

  int64_t rows, channels;
  int64_t fold, width, wide_rows;
  int64_t parts;

  // First wide row of a part.
  int64_t Begin(int64_t part) const { return wide_rows * part / parts; }
  // Rows that do not fill a wide one.
  int64_t left() const { return rows - wide_rows * fold; }
};

// Runs `part(i)` for every i in [0, parts), on any threads.
using Parallel =
    std::function<void(int64_t parts, int64_t bytes, const std::function<void(int64_t)>& part)>;

struct Parameters {
  const float* gamma;
  const float* beta;
  float epsilon;
  bool relu;  // what is normalised goes through a ReLU
};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, with mean and population variance of
// each channel; both are NaN without rows. Ioffe & Szegedy, 2015, arXiv 1502.03167.
void NormalizeBatch(Data, const Plan&, const Parameters&, const Parallel&, const void* x, void* y,
                    float* mean, float* variance);

// Gradients of x, gamma and beta from that of y; `dx` may be `dy`.
void NormalizeBatchGradient(Data, const Plan&, const Parameters&, const Parallel&, const void* dy,
                            const void* x, const float* mean, const float* variance, void* dx,
                            float* dgamma, float* dbeta);

// sum = a + b, of `count` values; `sum` may be `a` or `b`.
void Add(Data, int64_t count, const Parallel&, const void* a, const void* b, void* sum);

}  // namespace dlbench

#endif  // DLBENCH_OPS_NORMALIZATION_H_
