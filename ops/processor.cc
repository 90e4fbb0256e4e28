#include "processor.h"

#include <atomic>
#include <cstdlib>

#include <unistd.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace dlbench {
namespace {

struct InstructionSet {
  const char* name;
  bool (*supported)();
};

// Best first; setup.py has the compiler's flags for each.
constexpr InstructionSet kAll[] = {
#if defined(__x86_64__)
#if defined(DLBENCH_AVX512_STAND_IN)  // the tests' one, which runs everywhere
    {"avx512", [] { return true; }},
#else
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
     }},
#endif
    // A virtual machine may hide FMA where it shows AVX2.
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"portable", [] { return true; }}};

std::atomic<const char*> chosen{nullptr};

}  // namespace

bool UseInstructionSet(const char* name, const char** error) {
  for (const InstructionSet& one : kAll) {
    if (std::strcmp(one.name, name) != 0) continue;
    if (!one.supported()) {
      *error = "this processor lacks the instruction set asked for";
      return false;
    }
    chosen.store(one.name);
    return true;
  }
  *error = "unknown instruction set; known are avx512 and avx2 (on x86-64) and portable";
  return false;
}

const char* CurrentInstructionSet(const char** error) {
  if (const char* name = chosen.load()) return name;
  if (const char* name = std::getenv("DLBENCH_POOLING_ISA"); name != nullptr && *name != '\0') {
    return UseInstructionSet(name, error) ? chosen.load() : nullptr;
  }
  for (const InstructionSet& one : kAll) {
    if (!one.supported()) continue;
    chosen.store(one.name);
    break;
  }
  return chosen.load();
}

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
