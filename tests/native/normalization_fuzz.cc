// Random batch normalisations and sums whose buffers end where the tensors end, so that a sanitizer
// sees every step beyond them, compared with plain loops in double precision; every instruction set
// must give the bits of the portable one.
//
//   normalization_fuzz N SEED
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <random>
#include <vector>

#include "normalization.h"
#include "processor.h"

namespace {

using dlbench::Data;

constexpr float kEpsilon = 1e-3f;

// Values that begin `offset` of them after an address that is a multiple of 64.
class Tensor {
 public:
  Tensor(Data data, int64_t count, int64_t offset)
      : item_(data == Data::kFloat32 ? 4 : 2),
        count_(count),
        memory_(static_cast<char*>(::operator new((count + offset) * item_, kAlignment))),
        data_(memory_ + offset * item_) {
    std::memset(memory_, 0xff, (count + offset) * item_);  // NaN
  }
  ~Tensor() { ::operator delete(memory_, kAlignment); }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  void* data() { return data_; }
  // bfloat16 is the upper half of a float32.
  void Set(int64_t at, float value) {
    std::memcpy(data_ + at * item_, reinterpret_cast<char*>(&value) + 4 - item_, item_);
  }
  std::vector<float> Values() const {
    std::vector<float> values(count_);
    for (int64_t i = 0; i < count_; ++i) {
      std::memcpy(reinterpret_cast<char*>(&values[i]) + 4 - item_, data_ + i * item_, item_);
    }
    return values;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  int64_t item_, count_;
  char* memory_;
  char* data_;
};

struct Case {
  Data data;
  int64_t rows, channels, offset;
  bool relu, in_place;
  std::vector<float> x, dy, gamma, beta;
};

struct Results {
  std::vector<float> y, mean, variance, dx, dgamma, dbeta, sum;
};

Results Run(const Case& c, uint64_t seed) {
  Tensor x(c.data, c.x.size(), c.offset), y(c.data, c.x.size(), c.offset);
  Tensor dy(c.data, c.x.size(), c.offset), own(c.data, c.x.size(), c.offset);
  for (size_t i = 0; i < c.x.size(); ++i) x.Set(i, c.x[i]), dy.Set(i, c.dy[i]);
  Tensor a(c.data, c.x.size(), c.offset), b(c.data, c.x.size(), 0);
  Tensor& dx = c.in_place ? dy : own;
  const dlbench::Parallel shuffled = [&](int64_t parts, int64_t, const auto& part) {
    std::vector<int64_t> order(parts);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    for (const int64_t one : order) part(one);
  };
  const dlbench::Plan plan(c.rows, c.channels);
  const dlbench::Parameters parameters{c.gamma.data(), c.beta.data(), kEpsilon, c.relu};
  Results r;
  for (auto* one : {&r.mean, &r.variance, &r.dgamma, &r.dbeta}) one->resize(c.channels);
  NormalizeBatch(c.data, plan, parameters, shuffled, x.data(), y.data(), r.mean.data(),
                 r.variance.data());
  r.y = y.Values();
  NormalizeBatchGradient(c.data, plan, parameters, shuffled, dy.data(), x.data(), r.mean.data(),
                         r.variance.data(), dx.data(), r.dgamma.data(), r.dbeta.data());
  r.dx = dx.Values();
  for (size_t i = 0; i < c.x.size(); ++i) a.Set(i, c.x[i]), b.Set(i, c.dy[i]);
  Tensor& sum = c.in_place ? b : y;
  Add(c.data, c.x.size(), shuffled, a.data(), b.data(), sum.data());
  r.sum = sum.Values();
  return r;
}

// How precise sums in float32 are is not asked here, only that they are of the right values.
bool Close(float found, double expected, double terms, double unit = 0.0) {
  if (std::isnan(expected)) return std::isnan(found);
  return std::fabs(found - expected) <= 1e-3 * (1.0 + terms) + unit * std::fabs(expected);
}

// The name of a result that plain loops find to be another, or null.
const char* Wrong(const Case& c, const Results& found) {
  const double unit = c.data == Data::kFloat32 ? 0.0 : 1.0 / 256, rows = c.rows;
  for (size_t i = 0; i < c.x.size(); ++i) {
    if (found.sum[i] != c.x[i] + c.dy[i]) return "sum";
  }
  for (int64_t channel = 0; channel < c.channels; ++channel) {
    const int64_t end = c.rows * c.channels;
    double mean = 0.0, variance = 0.0, sum = 0.0, product = 0.0, terms = 0.0;
    for (int64_t i = channel; i < end; i += c.channels) mean += c.x[i];
    mean /= rows;
    for (int64_t i = channel; i < end; i += c.channels) variance += std::pow(c.x[i] - mean, 2);
    variance /= rows;
    if (!Close(found.mean[channel], mean, std::fabs(mean))) return "mean";
    if (!Close(found.variance[channel], variance, variance)) return "variance";

    const double inverse = 1.0 / std::sqrt(variance + kEpsilon), gamma = c.gamma[channel];
    const auto normal = [&](int64_t i) { return (c.x[i] - mean) * inverse; };
    // What is near zero may be on either side of it: the result says on which.
    const auto dy = [&](int64_t i) { return c.relu && !(found.y[i] > 0.0f) ? 0.0 : c.dy[i]; };
    for (int64_t i = channel; i < end; i += c.channels) {
      const double y = normal(i) * gamma + c.beta[channel];
      const double shown = c.relu ? std::fmax(y, 0.0) : y;
      if (!Close(found.y[i], shown, std::fabs(normal(i) * gamma), unit)) return "y";
      sum += dy(i);
      product += dy(i) * normal(i);
      terms += std::fabs(dy(i)) * (1.0 + std::fabs(normal(i)));
    }
    if (!Close(found.dbeta[channel], sum, terms)) return "dbeta";
    if (!Close(found.dgamma[channel], product, terms)) return "dgamma";
    for (int64_t i = channel; i < end; i += c.channels) {
      const double lost = (sum + normal(i) * product) / rows;
      const double size = std::fabs(dy(i)) + terms / rows * (1.0 + std::fabs(normal(i)));
      const double dx = gamma * inverse * (dy(i) - lost);
      if (!Close(found.dx[i], dx, gamma * inverse * size, unit)) return "dx";
    }
  }
  return nullptr;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  std::mt19937_64 random(std::strtoull(arguments[2], nullptr, 10));
  const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % limit); };
  const long cases = std::strtol(arguments[1], nullptr, 10);
  for (long number = 0; number < cases; ++number) {
    Case c;
    c.data = below(2) == 0 ? Data::kFloat32 : Data::kBFloat16;
    c.channels = 1 + below(below(4) == 0 ? 300 : 70);
    c.rows = below(100);
    if (below(10) == 0) c.rows += 70000 / c.channels;  // more than one part
    c.offset = below(3);  // 0 lets stores go around the caches
    c.relu = below(2) == 0;
    c.in_place = below(2) == 0;
    for (int64_t channel = 0; channel < c.channels; ++channel) {
      c.gamma.push_back(0.5f + below(4));
      c.beta.push_back(below(5) - 2);
    }
    for (int64_t i = 0; i < c.rows * c.channels; ++i) {  // what 8 bits hold
      c.x.push_back(below(17) - 8 + i % c.channels % 50);
      c.dy.push_back(below(17) - 8);
    }

    const char* error = nullptr;
    dlbench::UseInstructionSet("portable", &error);
    const Results portable = Run(c, random());
    const auto fail = [&](const char* isa, const char* what) {
      std::fprintf(stderr, "case %ld on %s: %s is wrong, %ld rows of %ld channels\n", number, isa,
                   what, static_cast<long>(c.rows), static_cast<long>(c.channels));
      return 1;
    };
    if (const char* what = Wrong(c, portable)) return fail("portable", what);
    for (const char* isa : {"avx2", "avx512"}) {
      if (!dlbench::UseInstructionSet(isa, &error)) continue;
      const Results other = Run(c, random());
      if (!SameBits(other.y, portable.y)) return fail(isa, "y");
      if (!SameBits(other.mean, portable.mean)) return fail(isa, "mean");
      if (!SameBits(other.variance, portable.variance)) return fail(isa, "variance");
      if (!SameBits(other.dx, portable.dx)) return fail(isa, "dx");
      if (!SameBits(other.dgamma, portable.dgamma)) return fail(isa, "dgamma");
      if (!SameBits(other.dbeta, portable.dbeta)) return fail(isa, "dbeta");
      if (!SameBits(other.sum, portable.sum)) return fail(isa, "sum");
    }
  }
  std::printf("%ld random cases\n", cases);
  return 0;
}
