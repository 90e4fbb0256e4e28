// Chooses the kernels at run time.
#include "pooling_cpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace dlbench {
namespace {

std::atomic<const Kernels*> chosen{nullptr};

bool Supported(const Kernels* kernels) {
#if defined(__x86_64__)
#if defined(DLBENCH_AVX512_STAND_IN)  // the tests' one, which runs everywhere
  if (kernels == &kAvx512Kernels) return true;
#endif
  if (kernels == &kAvx512Kernels) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
  if (kernels == &kAvx2Kernels) return __builtin_cpu_supports("avx2");
#endif
  return kernels == &kPortableKernels;
}

// Best first.
const Kernels* const kAll[] = {
#if defined(__x86_64__)
    &kAvx512Kernels, &kAvx2Kernels,
#endif
    &kPortableKernels};

}  // namespace

#if defined(DLBENCH_STREAM_BYTES)  // the fuzz target, whose cases are small, sets it
int64_t StreamBytes() { return DLBENCH_STREAM_BYTES; }
#else
int64_t StreamBytes() {
  // What half of the last cache holds is still there for the next operation. Cores of a large
  // processor share that cache, so a limit whatever its size.
  constexpr int64_t kLeast = int64_t{4} << 20, kMost = int64_t{16} << 20;
  static const int64_t bytes = [] {
#if defined(_SC_LEVEL3_CACHE_SIZE)
    const int64_t half = sysconf(_SC_LEVEL3_CACHE_SIZE) / 2;
    return half < kLeast ? kLeast : half > kMost ? kMost : half;
#else
    return kLeast;
#endif
  }();
  return bytes;
}
#endif

bool UseKernels(const char* name, const char** error) {
  for (const Kernels* kernels : kAll) {
    if (std::strcmp(kernels->name, name) != 0) continue;
    if (!Supported(kernels)) {
      *error = "this processor lacks the instruction set asked for";
      return false;
    }
    chosen.store(kernels);
    return true;
  }
  *error = "unknown instruction set; known are avx512 and avx2 (on x86-64) and portable";
  return false;
}

const Kernels* CurrentKernels(const char** error) {
  if (const Kernels* kernels = chosen.load()) return kernels;
  if (const char* name = std::getenv("DLBENCH_POOLING_ISA"); name != nullptr && *name != '\0') {
    return UseKernels(name, error) ? chosen.load() : nullptr;
  }
  for (const Kernels* kernels : kAll) {
    if (!Supported(kernels)) continue;
    chosen.store(kernels);
    break;
  }
  return chosen.load();
}

#if defined(__SSE2__)
constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
ExactSubnormals::ExactSubnormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(static_cast<unsigned>(saved_) & ~(kFlushToZero | kDenormalsAreZero));
}
ExactSubnormals::~ExactSubnormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
constexpr uint64_t kFlushToZero = uint64_t{1} << 24;
ExactSubnormals::ExactSubnormals() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(saved_ & ~kFlushToZero));
}
ExactSubnormals::~ExactSubnormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
ExactSubnormals::ExactSubnormals() : saved_(0) {}
ExactSubnormals::~ExactSubnormals() {}
#endif

}  // namespace dlbench
