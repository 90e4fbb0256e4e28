// What is left around the loops: how rows are divided, and coefficients from sums.
#include "normalization_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "processor.h"

namespace dlbench {
namespace {

// Those of the instruction set in use, which the op has asked for when it was made.
const NormalizationKernels& Chosen() {
  static constexpr const NormalizationKernels* kAll[] = {
#if defined(__x86_64__)
      &kAvx512Normalization, &kAvx2Normalization,
#endif
      &kPortableNormalization};
  const char* error = nullptr;
  return *Current(kAll, &error);
}

int64_t Size(Data data) { return data == Data::kFloat32 ? 4 : 2; }

// Rows of a tensor, counted in values.
const char* At(Data data, const void* of, int64_t value) {
  return static_cast<const char*>(of) + value * Size(data);
}
char* At(Data data, void* of, int64_t value) { return static_cast<char*>(of) + value * Size(data); }

float Value(Data data, const void* of, int64_t at) {
  float value;
  if (data == Data::kFloat32) {
    std::memcpy(&value, At(data, of, at), 4);
  } else {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, At(data, of, at), 2);
    std::memcpy(&value, &bits, 4);
  }
  return value;
}

// The rows that are left, as one wide row filled up with zeros.
class LeftRow {
 public:
  LeftRow(Data data, const Plan& plan, const void* of)
      : bytes_(plan.left() == 0 ? 0 : plan.width * Size(data)) {
    const int64_t used = plan.left() * plan.channels;
    if (used != 0) {
      std::memcpy(bytes_.data(), At(data, of, plan.rows * plan.channels - used),
                  used * Size(data));
    }
  }
  char* data() { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

// Where the kernels have each value of a wide row.
std::vector<int64_t> Places(const NormalizationKernels& kernels, Data data, const Plan& plan) {
  std::vector<int64_t> places(plan.width);
  for (int64_t i = 0; i < plan.width; ++i) places[i] = kernels.Place(data, i);
  return places;
}

// One number for each channel as a wide row has it, in the kernels' order.
template <class Number>
std::vector<float> Spread(const std::vector<int64_t>& places, const Plan& plan, Number number) {
  std::vector<float> own(plan.channels), wide(plan.width);
  for (int64_t c = 0; c < plan.channels; ++c) own[c] = static_cast<float>(number(c));
  for (int64_t i = 0, c = 0; i < plan.width; ++i) {
    wide[places[i]] = own[c];
    if (++c == plan.channels) c = 0;
  }
  return wide;
}

float Scale(const Parameters& parameters, const float* variance, int64_t channel) {
  const double wide = static_cast<double>(variance[channel]) + parameters.epsilon;
  return static_cast<float>(parameters.gamma[channel] / std::sqrt(wide));
}

// Runs `rows(first, count)` over the wide rows of every part, the last read first: they may still
// be in the cache. In short stretches for the same reason.
template <class Rows>
void Backwards(const Plan& plan, int64_t bytes, const Parallel& parallel, Rows rows) {
  constexpr int64_t kStretch = 64;
  parallel(plan.parts, bytes, [&](int64_t part) {
    part = plan.parts - 1 - part;
    const int64_t begin = plan.Begin(part);
    for (int64_t end = plan.Begin(part + 1); end > begin;) {
      const int64_t first = end - kStretch > begin ? end - kStretch : begin;
      rows(first, end - first);
      end = first;
    }
  });
}

bool Streams(Data data, const Plan& plan, const void* to) {
  return plan.rows * plan.channels * Size(data) > StreamBytes() &&
         reinterpret_cast<uintptr_t>(to) % 64 == 0;
}

}  // namespace

Plan::Plan(int64_t rows, int64_t channels) : rows(rows), channels(channels) {
  fold = channels == 0 ? 1 : kUnit / std::gcd(channels, kUnit);
  while (channels != 0 && fold * channels < kLeastWidth) fold *= 2;
  width = fold * channels;
  wide_rows = rows / fold;
  const int64_t wanted = wide_rows * width / kPartSize;
  parts = wanted < 1 ? 1 : wanted > kMostParts ? kMostParts : wanted;
  if (parts > wide_rows) parts = wide_rows < 1 ? 1 : wide_rows;
}

void NormalizeBatch(Data data, const Plan& plan, const Parameters& parameters,
                    const Parallel& parallel, const void* x, void* y, float* mean,
                    float* variance) {
  const NormalizationKernels& kernels = Chosen();
  const int64_t width = plan.width, channels = plan.channels;
  const int64_t bytes = plan.wide_rows * width * Size(data);
  std::vector<double> means(plan.parts * width), squares(plan.parts * width);
  parallel(plan.parts, bytes, [&](int64_t part) {
    const int64_t begin = plan.Begin(part), end = plan.Begin(part + 1);
    std::vector<float> work(3 * width);
    kernels.moments(data, width, end - begin, At(data, x, begin * width), &means[part * width],
                    &squares[part * width], work.data());
  });

  // Chan's formula once more, for all parts and all places of a channel at once.
  std::vector<double> total(channels), around(channels);
  const auto place = Places(kernels, data, plan);
  const auto each = [&](auto add) {
    for (int64_t part = 0; part < plan.parts; ++part) {
      const double count = static_cast<double>(plan.Begin(part + 1) - plan.Begin(part));
      for (int64_t i = 0, c = 0; i < width; ++i) {
        const int64_t at = part * width + place[i];
        add(c, count, means[at], squares[at]);
        if (++c == channels) c = 0;
      }
    }
    const int64_t left = plan.rows - plan.left();
    for (int64_t row = left; row < plan.rows; ++row) {
      for (int64_t c = 0; c < channels; ++c) add(c, 1.0, Value(data, x, row * channels + c), 0.0);
    }
  };
  const double rows = static_cast<double>(plan.rows);
  each([&](int64_t c, double count, double own, double) { total[c] += count * own; });
  for (double& one : total) one /= rows;
  each([&](int64_t c, double count, double own, double square) {
    const double apart = own - total[c];
    around[c] += square + count * apart * apart;
  });
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = static_cast<float>(total[c]);
    const double found = around[c] / rows;
    variance[c] = static_cast<float>(found < 0.0 ? 0.0 : found);
  }

  const auto spread = [&](auto number) { return Spread(place, plan, number); };
  const auto m = spread([&](int64_t c) { return mean[c]; });
  const auto scale = spread([&](int64_t c) { return Scale(parameters, variance, c); });
  const auto offset = spread([&](int64_t c) { return parameters.beta[c]; });
  const Coefficients coefficients{m.data(), scale.data(), offset.data()};
  const bool stream = Streams(data, plan, y);
  Backwards(plan, 2 * bytes, parallel, [&](int64_t first, int64_t count) {
    kernels.normalize(data, width, count, parameters.relu, stream, coefficients,
                      At(data, x, first * width), At(data, y, first * width));
  });
  if (plan.left() == 0) return;
  LeftRow left(data, plan, x);
  kernels.normalize(data, width, 1, parameters.relu, false, coefficients, left.data(), left.data());
  const int64_t used = plan.left() * channels;
  std::memcpy(At(data, y, plan.rows * channels - used), left.data(), used * Size(data));
}

void NormalizeBatchGradient(Data data, const Plan& plan, const Parameters& parameters,
                            const Parallel& parallel, const void* dy, const void* x,
                            const float* mean, const float* variance, void* dx, float* dgamma,
                            float* dbeta) {
  const NormalizationKernels& kernels = Chosen();
  const int64_t width = plan.width, channels = plan.channels;
  const int64_t bytes = plan.wide_rows * width * Size(data);
  const auto place = Places(kernels, data, plan);
  const auto spread = [&](auto number) { return Spread(place, plan, number); };
  const auto m = spread([&](int64_t c) { return mean[c]; });
  const auto scale = spread([&](int64_t c) { return Scale(parameters, variance, c); });
  const auto offset = spread([&](int64_t c) { return parameters.beta[c]; });
  Coefficients coefficients{m.data(), scale.data(), offset.data()};

  // The rows that are left are one part more.
  LeftRow left_dy(data, plan, dy), left_x(data, plan, x);
  const int64_t parts = plan.parts + (plan.left() == 0 ? 0 : 1);
  std::vector<double> sums(parts * width), products(parts * width);
  const auto add = [&](int64_t part, int64_t count, const void* gradients, const void* values) {
    std::vector<float> work(2 * width);
    kernels.sums(data, width, count, parameters.relu, coefficients, gradients, values,
                 &sums[part * width], &products[part * width], work.data());
  };
  parallel(plan.parts, 2 * bytes, [&](int64_t part) {
    const int64_t begin = plan.Begin(part), end = plan.Begin(part + 1);
    add(part, end - begin, At(data, dy, begin * width), At(data, x, begin * width));
  });
  if (parts != plan.parts) add(plan.parts, 1, left_dy.data(), left_x.data());

  std::vector<double> sum(channels), product(channels);
  for (int64_t part = 0; part < parts; ++part) {
    // What fills up the rows that are left has gradients of zero, but zero times NaN is NaN.
    const int64_t used = part == plan.parts ? plan.left() * channels : width;
    for (int64_t i = 0, c = 0; i < used; ++i) {
      const int64_t at = part * width + place[i];
      sum[c] += sums[at];
      product[c] += products[at];
      if (++c == channels) c = 0;
    }
  }
  const double rows = static_cast<double>(plan.rows);
  const auto inverse = [&](int64_t c) {
    return 1.0 / (static_cast<double>(variance[c]) + parameters.epsilon);
  };
  for (int64_t c = 0; c < channels; ++c) {
    dbeta[c] = static_cast<float>(sum[c]);
    // Without rows the variance is NaN, but nothing depends on gamma.
    dgamma[c] = plan.rows == 0 ? 0.0f : static_cast<float>(product[c] * std::sqrt(inverse(c)));
  }
  if (plan.rows == 0) return;

  const auto dy_mean = spread(
      [&](int64_t c) { return Scale(parameters, variance, c) * sum[c] / rows; });
  const auto dy_slope = spread([&](int64_t c) {
    return Scale(parameters, variance, c) * inverse(c) * product[c] / rows;
  });
  coefficients.dy_mean = dy_mean.data();
  coefficients.dy_slope = dy_slope.data();
  const bool stream = dx != dy && Streams(data, plan, dx);
  Backwards(plan, 3 * bytes, parallel, [&](int64_t first, int64_t count) {
    const int64_t at = first * width;
    kernels.gradient(data, width, count, parameters.relu, stream, coefficients, At(data, dy, at),
                     At(data, x, at), At(data, dx, at));
  });
  if (plan.left() == 0) return;
  kernels.gradient(data, width, 1, parameters.relu, false, coefficients, left_dy.data(),
                   left_x.data(), left_x.data());
  const int64_t used = plan.left() * channels;
  std::memcpy(At(data, dx, plan.rows * channels - used), left_x.data(), used * Size(data));
}

void Add(Data data, int64_t count, const Parallel& parallel, const void* a, const void* b,
         void* sum) {
  const auto add = Chosen().add;
  const int64_t parts = count / Plan::kPartSize + 1;
  parallel(parts, 3 * count * Size(data), [&](int64_t part) {
    const int64_t at = part * Plan::kPartSize;
    add(data, std::min(Plan::kPartSize, count - at), At(data, a, at), At(data, b, at),
        At(data, sum, at));
  });
}

}  // namespace dlbench
