// The gradient by the kernel as products of small matrices, as matrix multiplication libraries
// make them (Goto & van de Geijn, 2008, doi 10.1145/1356052.1356053): a tile of the result, some
// input channels by two vectors of output channels, stays in registers while it is added up over
// some hundred pixels. Each instruction set includes this file in a translation unit of its own,
// after defining DLBENCH_VECTOR_BYTES and DLBENCH_TILE_ROWS, the input channels of a tile.
//
// Pixels are taken in chunks. What a chunk needs is first copied to where it lies densely: images of
// 512 channels are read with a stride at which a cache keeps but a few lines. A copy serves all
// tiles and all positions in the kernel.
//
// The anonymous namespace keeps the copies apart. No std:: function is called here: the linker
// could choose an AVX-512 copy of it for the whole program.
#include "convolution.h"

#define DLBENCH_INLINE inline __attribute__((always_inline))

namespace dlbench {
namespace {

using Vector __attribute__((vector_size(DLBENCH_VECTOR_BYTES))) = float;
constexpr int64_t kLanes = DLBENCH_VECTOR_BYTES / sizeof(float);
constexpr int64_t kTileRows = DLBENCH_TILE_ROWS;
constexpr int64_t kTileColumns = 2 * kLanes;
constexpr int64_t kChunkPixels = 1024;  // of a tile's operands, which the second cache then holds

DLBENCH_INLINE int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
DLBENCH_INLINE int64_t Most(int64_t a, int64_t b) { return a < b ? b : a; }
DLBENCH_INLINE int64_t Quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

DLBENCH_INLINE Vector Load(const float* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}
DLBENCH_INLINE void Store(float* to, Vector vector) { __builtin_memcpy(to, &vector, sizeof(vector)); }

// A chunk's copies. Pixels: `images` x `height` x `width` of the gradient; the input has `rows` - 1
// and `columns` - 1 more, the kernel's margin.
//
// The input is copied channel block by channel block, each pixel's channels of a block side by side.
// With fewer channels than a tile has rows, a row of the copy is a row of the image: channel c of
// the kernel's column j is then value j * inputs + c from a pixel on, and the columns together
// make the rows of a tile.
struct Plan {
  bool merged;
  int64_t rows;      // of the result's matrix at one row (and, unless merged, column) of the kernel
  int64_t columns;   // of the kernel that are apart, 1 if merged
  int64_t blocks;    // of rows
  int64_t panels;    // of kTileColumns outputs
  int64_t images, height, width;  // the largest chunk
  int64_t step;      // floats from a copied pixel to the next
  int64_t block_size, panel_size;  // floats of a block and of a panel

  explicit Plan(const Convolution& c) {
    merged = c.inputs < kTileRows;
    rows = merged ? c.columns * c.inputs : c.inputs;
    columns = merged ? 1 : c.columns;
    blocks = Quotient(rows, kTileRows);
    panels = Quotient(c.outputs, kTileColumns);
    // Equal pieces: a short one is as much trouble as a long one.
    width = Quotient(c.width, Quotient(c.width, kChunkPixels));
    const int64_t high = Least(c.height, Most(1, kChunkPixels / width));
    height = Quotient(c.height, Quotient(c.height, high));
    const int64_t copied = (height + c.rows - 1) * (width + c.columns - 1);
    images = height < c.height ? 1 : Least(c.batch, Most(1, kChunkPixels / copied));
    step = merged ? c.inputs : kTileRows;
    block_size = Lines(images * copied * step);
    panel_size = Lines(images * height * width * kTileColumns);
  }

  // Rounded up to an odd number of cache lines: copies that start at multiples of 4096 bytes would
  // push each other out of the first cache.
  static int64_t Lines(int64_t floats) { return (Quotient(floats, 16) | 1) * 16; }

  // Where block b starts: all have kTileRows rows, except that a short last one shares with the one
  // before, since a tile of few rows waits for its own sums.
  int64_t Start(int64_t b) const {
    if (b == blocks) return rows;
    const int64_t rest = rows - (blocks - 1) * kTileRows;
    if (b == blocks - 1 && blocks > 1 && rest < kTileRows / 2 + 1) {
      return rows - (kTileRows + rest) / 2;
    }
    return b * kTileRows;
  }
};

// Parts are numbered panel by panel, in a panel block by block, in a block by the kernel's rows:
// what a range of parts needs is then few panels, or few blocks.
struct Range {
  int64_t first_panel, last_panel, first_block, last_block;  // the last ones included

  Range(const Plan& plan, const Convolution& c, int64_t begin, int64_t end) {
    const int64_t first = begin / c.rows, last = (end - 1) / c.rows;
    first_panel = first / plan.blocks;
    last_panel = last / plan.blocks;
    const bool one = first_panel == last_panel;
    first_block = one && !plan.merged ? first % plan.blocks : 0;
    last_block = one && !plan.merged ? last % plan.blocks : plan.blocks - 1;
  }
  int64_t copied_blocks(const Plan& plan) const {
    return plan.merged ? 1 : last_block - first_block + 1;
  }
};

int64_t Parts(const Convolution& c) {
  const Plan plan(c);
  return plan.panels * plan.blocks * c.rows;
}

int64_t Scratch(const Convolution& c, int64_t begin, int64_t end) {
  const Plan plan(c);
  const Range range(plan, c, begin, end);
  return range.copied_blocks(plan) * plan.block_size +
         (range.last_panel - range.first_panel + 1) * plan.panel_size;
}

// The pixels of a chunk.
struct Chunk {
  int64_t image, y, x, images, height, width;
};

template <int64_t kCount>
DLBENCH_INLINE void Copy(float* to, const float* from) {
  __builtin_memcpy(to, from, kCount * sizeof(float));
}

DLBENCH_INLINE void Zero(float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = 0;
}

// One pixel's channels into the range's blocks, or zeros where `from` is null.
DLBENCH_INLINE void CopyPixel(const Plan& plan, const Range& range, const Convolution& c, float* to,
                              const float* from) {
  if (plan.merged) {
    for (int64_t i = 0; i < c.inputs; ++i) to[i] = from == nullptr ? 0 : from[i];
    return;
  }
  int64_t block = range.first_block;
  // Whole blocks; the last two may share.
  const int64_t whole = Least(range.last_block + 1, Most(block, plan.blocks - 2));
  if (from == nullptr) {
    for (; block <= range.last_block; ++block, to += plan.block_size) Zero(to, kTileRows);
    return;
  }
  for (; block < whole; ++block, to += plan.block_size) Copy<kTileRows>(to, from + block * kTileRows);
  for (; block <= range.last_block; ++block, to += plan.block_size) {
    const int64_t start = plan.Start(block), count = plan.Start(block + 1) - start;
    for (int64_t i = 0; i < count; ++i) to[i] = from[start + i];
  }
}

void CopyInput(const Plan& plan, const Range& range, const Convolution& c, const Chunk& chunk,
               const float* input, float* to) {
  for (int64_t n = chunk.image; n < chunk.image + chunk.images; ++n) {
    for (int64_t row = 0; row < chunk.height + c.rows - 1; ++row) {
      const int64_t y = chunk.y + row - c.rows / 2;
      const bool inside = y >= 0 && y < c.height;
      const float* from = inside ? input + (n * c.height + y) * c.width * c.inputs : nullptr;
      for (int64_t column = 0; column < chunk.width + c.columns - 1; ++column, to += plan.step) {
        const int64_t x = chunk.x + column - c.columns / 2;
        CopyPixel(plan, range, c, to, inside && x >= 0 && x < c.width ? from + x * c.inputs : nullptr);
      }
    }
  }
}

void CopyGradient(const Plan& plan, const Range& range, const Convolution& c, const Chunk& chunk,
                  const float* gradient, float* to) {
  for (int64_t n = chunk.image; n < chunk.image + chunk.images; ++n) {
    for (int64_t y = chunk.y; y < chunk.y + chunk.height; ++y) {
      const float* from = gradient + ((n * c.height + y) * c.width + chunk.x) * c.outputs;
      for (int64_t x = 0; x < chunk.width; ++x, from += c.outputs, to += kTileColumns) {
        float* panel = to;
        for (int64_t p = range.first_panel; p <= range.last_panel; ++p, panel += plan.panel_size) {
          const int64_t start = p * kTileColumns, count = c.outputs - start;
          if (count >= kTileColumns) {
            Copy<kTileColumns>(panel, from + start);
          } else {
            for (int64_t i = 0; i < count; ++i) panel[i] = from[start + i];
            Zero(panel + count, kTileColumns - count);
          }
        }
      }
    }
  }
}

// Adds up a tile of kRows x kVectors vectors over a chunk. `a` walks over the copied input with a
// margin after each row and image, `b` over the copied gradient.
template <int kRows, int kVectors>
void Tile(const Plan& plan, const Convolution& c, const Chunk& chunk, const float* a,
          const float* b, float* result, int64_t outputs, bool first) {
  Vector sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) sum[i][v] = Vector{};
    __builtin_prefetch(result + i * c.outputs, 1);
  }
  const int64_t step = plan.step;
  const int64_t row_end = (c.columns - 1) * step;
  const int64_t image_end = (c.rows - 1) * (chunk.width + c.columns - 1) * step;
  for (int64_t n = 0; n < chunk.images; ++n, a += image_end) {
    for (int64_t y = 0; y < chunk.height; ++y, a += row_end) {
      for (int64_t x = 0; x < chunk.width; ++x, a += step, b += kTileColumns) {
        Vector right[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) right[v] = Load(b + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) sum[i][v] += a[i] * right[v];
        }
      }
    }
  }
  for (int i = 0; i < kRows; ++i, result += c.outputs) {
    if (outputs >= kVectors * kLanes) {
      for (int v = 0; v < kVectors; ++v) {
        float* to = result + v * kLanes;
        Store(to, first ? sum[i][v] : Load(to) + sum[i][v]);
      }
    } else {
      float row[kVectors * kLanes];
      for (int v = 0; v < kVectors; ++v) Store(row + v * kLanes, sum[i][v]);
      for (int64_t o = 0; o < outputs; ++o) result[o] = first ? row[o] : result[o] + row[o];
    }
  }
}

// The tile of so many rows, found by counting down to them.
template <int kRows, int kVectors>
DLBENCH_INLINE void TileOf(int64_t rows, const Plan& plan, const Convolution& c,
                           const Chunk& chunk, const float* a, const float* b, float* result,
                           int64_t outputs, bool first) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Tile<kRows, kVectors>(plan, c, chunk, a, b, result, outputs, first);
    } else {
      TileOf<kRows - 1, kVectors>(rows, plan, c, chunk, a, b, result, outputs, first);
    }
  }
}

void KernelGradient(const Convolution& c, const float* input, const float* gradient, float* result,
                    float* scratch, int64_t begin, int64_t end) {
  const Plan plan(c);
  const Range range(plan, c, begin, end);
  float* const left = scratch;
  float* const right = scratch + range.copied_blocks(plan) * plan.block_size;
  bool first = true;
  Chunk chunk;
  for (chunk.image = 0; chunk.image < c.batch; chunk.image += plan.images) {
    chunk.images = Least(plan.images, c.batch - chunk.image);
    for (chunk.y = 0; chunk.y < c.height; chunk.y += plan.height) {
      chunk.height = Least(plan.height, c.height - chunk.y);
      for (chunk.x = 0; chunk.x < c.width; chunk.x += plan.width, first = false) {
        chunk.width = Least(plan.width, c.width - chunk.x);
        CopyInput(plan, range, c, chunk, input, left);
        CopyGradient(plan, range, c, chunk, gradient, right);
        for (int64_t part = begin; part < end; ++part) {
          const int64_t i = part % c.rows, block = part / c.rows % plan.blocks;
          const int64_t panel = part / c.rows / plan.blocks;
          const int64_t start = plan.Start(block), rows = plan.Start(block + 1) - start;
          const int64_t output = panel * kTileColumns, outputs = c.outputs - output;
          const float* b = right + (panel - range.first_panel) * plan.panel_size;
          for (int64_t j = 0; j < plan.columns; ++j) {
            const float* a = left + (i * (chunk.width + c.columns - 1) + j) * plan.step;
            a += plan.merged ? start : (block - range.first_block) * plan.block_size;
            float* to = result + ((i * plan.columns + j) * plan.rows + start) * c.outputs + output;
            if (outputs > kLanes) {
              TileOf<kTileRows, 2>(rows, plan, c, chunk, a, b, to, outputs, first);
            } else {
              TileOf<kTileRows, 1>(rows, plan, c, chunk, a, b, to, outputs, first);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace dlbench
