// What the kernels of every op share about the CPU that they run on, free of TensorFlow.
#ifndef DLBENCH_OPS_PROCESSOR_H_
#define DLBENCH_OPS_PROCESSOR_H_

#include <cstdint>
#include <cstring>

namespace dlbench {

// The instruction set in use, "avx512", "avx2" (with FMA) or "portable": the best of this processor,
// unless DLBENCH_POOLING_ISA or UseInstructionSet names another. Null with a reason in `*error` when
// the named one is unknown or this processor lacks it.
const char* CurrentInstructionSet(const char** error);
bool UseInstructionSet(const char* name, const char** error);

// Of an op's kernels, compiled once for each instruction set, those for the one in use; null as
// above.
template <class Kernels, int kCount>
const Kernels* Current(const Kernels* const (&all)[kCount], const char** error) {
  const char* name = CurrentInstructionSet(error);
  if (name == nullptr) return nullptr;
  for (const Kernels* kernels : all) {
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

// Where a tensor is larger than this, outputs go around the caches: what passes through them pushes
// itself out, and a plain store first reads the line that it overwrites.
int64_t StreamBytes();

// Subnormal numbers keep their order while this lives: TensorFlow has its threads treat them as
// zero, and results must not depend on who runs the kernels.
class ExactSubnormals {
 public:
  ExactSubnormals();
  ~ExactSubnormals();
  ExactSubnormals(const ExactSubnormals&) = delete;
  ExactSubnormals& operator=(const ExactSubnormals&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace dlbench

#endif  // DLBENCH_OPS_PROCESSOR_H_
