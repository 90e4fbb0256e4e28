// A fuzz target for the TensorFlow-free core: any bytes are a case, run through all three kernels
// and compared with plain loops. The CUDA kernels run here too, thread after thread on the CPU, see
// cuda_runtime.h: that shows their logic, not that a GPU runs them. Buffers end where the tensors
// end, so that a sanitizer sees every step beyond them.
//
//   pooling_fuzz FILE...           each file is one case
//   pooling_fuzz --random N SEED   N cases of random bytes
//
// LLVMFuzzerTestOneInput is what a coverage-guided fuzzer calls; -DLIBFUZZER leaves out main.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "pooling_cpu.h"
#include "pooling_cuda.h"
#include "processor.h"

namespace {

using dlbench::Geometry;
using dlbench::Type;

constexpr int kBytes[] = {4, 8, 2, 2};  // of each Type

// The input's bytes in turn; zeros when they are used up.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t Next() { return at_ < size_ ? data_[at_++] : 0; }
  int64_t Below(int64_t limit) {
    const int high = Next();  // first, whatever order a compiler has
    return (high * 256 + Next()) % limit;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

// `size` bytes on the heap, beginning `offset` bytes after an aligned address.
class Buffer {
 public:
  Buffer(int64_t size, int64_t offset, uint8_t fill)
      : memory_(new uint8_t[size + offset]), data_(memory_.get() + offset), size_(size) {
    std::memset(memory_.get(), fill, size + offset);
  }
  uint8_t* data() { return data_; }
  bool operator==(const std::vector<uint8_t>& other) const {
    return static_cast<size_t>(size_) == other.size() &&
           (size_ == 0 || std::memcmp(data_, other.data(), size_) == 0);
  }

 private:
  std::unique_ptr<uint8_t[]> memory_;
  uint8_t* data_;
  int64_t size_;
};

double Decode(Type type, const uint8_t* from) {
  if (type == Type::kFloat32 || type == Type::kBFloat16) {
    float value = 0;
    // bfloat16 is the upper half of a float32.
    const int skipped = type == Type::kBFloat16 ? 2 : 0;
    std::memcpy(reinterpret_cast<uint8_t*>(&value) + skipped, from, 4 - skipped);
    return value;
  }
  if (type == Type::kFloat64) {
    double value;
    std::memcpy(&value, from, 8);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 31 ? (fraction != 0 ? std::nan("") : INFINITY)
                 : exponent == 0 ? std::ldexp(fraction, -24)
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 != 0 ? -value : value;
}

void Fail(const char* kernel, const char* isa, Type type, const Geometry& g) {
  std::fprintf(stderr, "%s on %s differs: type %d, shape (%ld, %ld, %ld, %ld), k %d, packed %d\n",
               kernel, isa, static_cast<int>(type), static_cast<long>(g.batch),
               static_cast<long>(g.height), static_cast<long>(g.width),
               static_cast<long>(g.channels), g.k, g.packed);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const Type type = static_cast<Type>(bytes.Next() % 4);
  const char* const isas[] = {"portable", "avx2", "avx512", "cuda"};
  const char* isa = isas[bytes.Next() % 4];
  const bool cuda = isa == isas[3];
  const char* error = nullptr;
  if (!cuda && !dlbench::UseInstructionSet(isa, &error)) {
    dlbench::UseInstructionSet(isa = "portable", &error);
  }
  const dlbench::Kernels& kernels = *dlbench::CurrentKernels(&error);

  Geometry g;
  g.packed = bytes.Next() % 2 != 0;
  g.k = g.packed ? 2 : static_cast<int>(2 + bytes.Next() % 15);
  g.batch = 1 + bytes.Below(3);
  g.height = 1 + bytes.Below(2 * g.k + 3);
  g.width = 1 + bytes.Below(2 * g.k + 3);
  g.channels = 1 + bytes.Below(140);
  const int64_t item = kBytes[static_cast<int>(type)];
  const int64_t rows = g.batch * g.rows(), split = bytes.Below(rows + 1);
  int64_t dense_offset = bytes.Next() % 130, values_offset = bytes.Next() % 130;
  if (dense_offset >= 65) {  // as TensorFlow allocates them, which lets whole vectors be used
    dense_offset = values_offset = 0;
    g.channels = (g.channels + 7) / 8 * 8;
  }
  const int64_t index_count = g.pooled_size() / g.channels * g.index_channels();

  Buffer dense(g.dense_size() * item, dense_offset / item * item, 0);
  for (int64_t i = 0; i < g.dense_size() * item; ++i) dense.data()[i] = bytes.Next();
  Buffer foreign(index_count, values_offset, 0);
  for (int64_t i = 0; i < index_count; ++i) {
    const uint8_t byte = bytes.Next();
    foreign.data()[i] = g.packed || byte >= 192 ? byte : byte % (g.k * g.k);
  }

  // What plain loops give.
  std::vector<uint8_t> values(g.pooled_size() * item), indices(index_count, 0);
  std::vector<uint8_t> unpooled(g.dense_size() * item, 0), gathered(values.size(), 0);
  for (int64_t row = 0, at = 0; row < rows; ++row) {
    for (int64_t column = 0; column < g.columns(); ++column) {
      for (int64_t c = 0; c < g.channels; ++c, ++at) {
        const int64_t pixel = row * g.columns() + column;
        const auto element = [&](int local) -> int64_t {
          const int64_t y = row % g.rows() * g.k + local / g.k, x = column * g.k + local % g.k;
          if (y >= g.height || x >= g.width) return -1;
          return ((row / g.rows() * g.height + y) * g.width + x) * g.channels + c;
        };
        int best = 0;
        double maximum = Decode(type, dense.data() + element(0) * item);
        for (int local = 1; local < g.k * g.k; ++local) {
          if (element(local) < 0) continue;
          const double value = Decode(type, dense.data() + element(local) * item);
          if (value > maximum || (std::isnan(value) && !std::isnan(maximum))) {
            maximum = value;
            best = local;
          }
        }
        std::memcpy(&values[at * item], dense.data() + element(best) * item, item);
        int index;
        if (g.packed) {
          const int64_t byte = pixel * g.index_channels() + c / 4;
          indices[byte] |= static_cast<uint8_t>(best << 2 * (c % 4));
          index = foreign.data()[byte] >> 2 * (c % 4) & 3;
        } else {
          indices[at] = static_cast<uint8_t>(best);
          index = foreign.data()[at];
        }
        if (index >= g.k * g.k || element(index) < 0) continue;
        std::memcpy(&gathered[at * item], dense.data() + element(index) * item, item);
        std::memcpy(&unpooled[element(index) * item], &values[at * item], item);
      }
    }
  }

  // Two ranges, the later first: neither may depend on the other.
  const int64_t ranges[2][2] = {{split, rows}, {0, split}};
  Buffer found_values(values.size(), values_offset / item * item, 0xa5);
  Buffer found_indices(index_count, dense_offset, 0xa5);
  Buffer found_dense(unpooled.size(), dense_offset / item * item, 0xa5);
  Buffer found_gathered(values.size(), values_offset / item * item, 0xa5);
  if (cuda) {
    dlbench_cuda_pool(type, &g, dense.data(), found_values.data(), found_indices.data(), nullptr);
    dlbench_cuda_gather(type, &g, dense.data(), foreign.data(), found_gathered.data(), nullptr);
    dlbench_cuda_unpool(type, &g, found_values.data(), foreign.data(), found_dense.data(),
                        nullptr);
  }
  for (const auto& [begin, end] : ranges) {
    if (cuda) break;
    kernels.pool(type, g, dense.data(), found_values.data(), found_indices.data(), begin, end);
    kernels.gather(type, g, dense.data(), foreign.data(), found_gathered.data(), begin, end);
  }
  for (const auto& [begin, end] : ranges) {
    if (cuda) break;
    kernels.unpool(type, g, found_values.data(), foreign.data(), found_dense.data(), begin, end);
  }
  if (!(found_values == values)) Fail("pool (values)", isa, type, g);
  if (!(found_indices == indices)) Fail("pool (indices)", isa, type, g);
  if (!(found_dense == unpooled)) Fail("unpool", isa, type, g);
  if (!(found_gathered == gathered)) Fail("gather", isa, type, g);
  return 0;
}

#if !defined(LIBFUZZER)
int main(int count, char** arguments) {
  if (count == 4 && std::strcmp(arguments[1], "--random") == 0) {
    std::mt19937_64 random(std::strtoull(arguments[3], nullptr, 10));
    const long cases = std::strtol(arguments[2], nullptr, 10);
    for (long i = 0; i < cases; ++i) {
      std::vector<uint8_t> data(random() % 20000);
      // Few distinct bytes in every second case: ties, zeros, infinities and NaN come up.
      const bool few = i % 2 != 0;
      const uint8_t choice[] = {0x00, 0x7f, 0x80, 0xff, 0xf0, 0x3f, 0x7c, 0x01};
      for (uint8_t& byte : data) {
        byte = few && &byte - data.data() > 20 ? choice[random() % 8]
                                               : static_cast<uint8_t>(random());
      }
      LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("%ld random cases\n", cases);
    return 0;
  }
  for (int i = 1; i < count; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", arguments[i]);
      return 2;
    }
    const std::string data((std::istreambuf_iterator<char>(file)), {});
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(data.data()), data.size());
  }
  std::printf("%d files\n", count - 1);
  return 0;
}
#endif
