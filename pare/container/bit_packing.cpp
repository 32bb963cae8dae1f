#include "pare/container/bit_packing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "pare/base/threads.h"

namespace pare {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int kRows = 16;  // of a tile: 16 words side by side are a cache line

constexpr uint64_t lanes(int width, int count) {  // `count` < 64 low bits set in every lane of `width` bits
  uint64_t out = 0;
  for (int at = 0; at < 64; at += width) out |= ((uint64_t{1} << count) - 1) << at;
  return out;
}

// Eight codes, one per byte, to 8·kBits adjacent bits: neighbours move together, then pairs, then fours. A step joins
// two fields of kField bits that stand kLane bits apart.
template <int kField, int kLane>
uint64_t join(uint64_t x) {
  constexpr uint64_t kLow = lanes(2 * kLane, kField);
  return (x & kLow) | ((x >> (kLane - kField)) & (kLow << kField));
}
template <int kField, int kLane>
uint64_t part(uint64_t x) {
  constexpr uint64_t kLow = lanes(2 * kLane, kField);
  return (x & kLow) | ((x & (kLow << kField)) << (kLane - kField));
}
template <int kBits>
uint64_t fold(uint64_t x) {
  if constexpr (kBits == 8)
    return x;
  else
    return join<4 * kBits, 32>(join<2 * kBits, 16>(join<kBits, 8>(x)));
}
template <int kBits>
uint64_t unfold(uint64_t x) {
  if constexpr (kBits == 8)
    return x;
  else
    return part<kBits, 8>(part<2 * kBits, 16>(part<4 * kBits, 32>(x)));
}

// 32 codes <-> kBits words.
template <int kBits>
std::array<uint32_t, kBits> pack_run(const uint8_t* codes) {
  unsigned char bytes[kPackRun];  // each step writes eight bytes, of which the next keeps kBits
  for (int i = 0; i < 4; ++i) {
    uint64_t eight;
    std::memcpy(&eight, codes + 8 * i, 8);
    eight = fold<kBits>(eight);
    std::memcpy(bytes + kBits * i, &eight, 8);
  }
  std::array<uint32_t, kBits> words;
  std::memcpy(words.data(), bytes, sizeof words);
  return words;
}
template <int kBits>
void unpack_run(const std::array<uint32_t, kBits>& words, uint8_t* codes) {
  unsigned char bytes[kPackRun + 8] = {};
  std::memcpy(bytes, words.data(), sizeof words);
  for (int i = 0; i < 4; ++i) {
    uint64_t eight;
    std::memcpy(&eight, bytes + kBits * i, 8);
    eight = unfold<kBits>(eight);
    std::memcpy(codes + 8 * i, &eight, 8);
  }
}

// A tile is kRows rows of codes and the columns of words that belong to them.
template <int kBits>
void pack_tile(const uint8_t* const* rows, int64_t cols, std::byte* words, int64_t outputs) {
  uint32_t block[kBits][kRows];
  for (int64_t k = 0; k < cols; k += kPackRun) {
    for (int r = 0; r < kRows; ++r) {
      const auto packed = pack_run<kBits>(rows[r] + k);
      for (int w = 0; w < kBits; ++w) block[w][r] = packed[static_cast<size_t>(w)];
    }
    for (int w = 0; w < kBits; ++w)
      std::memcpy(words + 4 * (k / kPackRun * kBits + w) * outputs, block[w], sizeof block[w]);
  }
}
template <int kBits>
void unpack_tile(const std::byte* words, int64_t outputs, int64_t cols, uint8_t* const* rows) {
  uint32_t block[kBits][kRows];
  std::array<uint32_t, kBits> run;
  for (int64_t k = 0; k < cols; k += kPackRun) {
    for (int w = 0; w < kBits; ++w)
      std::memcpy(block[w], words + 4 * (k / kPackRun * kBits + w) * outputs, sizeof block[w]);
    for (int r = 0; r < kRows; ++r) {
      for (int w = 0; w < kBits; ++w) run[static_cast<size_t>(w)] = block[w][r];
      unpack_run<kBits>(run, rows[r] + k);
    }
  }
}

template <class F>
void with_bits(int bits, F&& body) {
  switch (bits) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
    case 3:
      return body.template operator()<3>();
    case 4:
      return body.template operator()<4>();
    case 5:
      return body.template operator()<5>();
    case 6:
      return body.template operator()<6>();
    case 7:
      return body.template operator()<7>();
    case 8:
      return body.template operator()<8>();
    default:
      throw std::logic_error("codes have 1 to 8 bits");
  }
}

[[maybe_unused]] size_t word_bytes(int bits, int64_t codes) { return static_cast<size_t>(codes * bits / 8); }

}  // namespace

void pack_bits(int bits, std::span<const uint8_t> codes, std::span<uint32_t> words) {
  assert(codes.size() % kPackRun == 0 && words.size() * 4 == word_bytes(bits, static_cast<int64_t>(codes.size())));
  with_bits(bits, [&]<int kBits>() {
    for (size_t i = 0; i < codes.size() / kPackRun; ++i) {
      const auto run = pack_run<kBits>(codes.data() + i * kPackRun);
      std::copy(run.begin(), run.end(), words.begin() + static_cast<std::ptrdiff_t>(i * kBits));
    }
  });
}

void unpack_bits(int bits, std::span<const uint32_t> words, std::span<uint8_t> codes) {
  assert(codes.size() % kPackRun == 0 && words.size() * 4 == word_bytes(bits, static_cast<int64_t>(codes.size())));
  with_bits(bits, [&]<int kBits>() {
    std::array<uint32_t, kBits> run;
    for (size_t i = 0; i < codes.size() / kPackRun; ++i) {
      std::copy_n(words.begin() + static_cast<std::ptrdiff_t>(i * kBits), kBits, run.begin());
      unpack_run<kBits>(run, codes.data() + i * kPackRun);
    }
  });
}

void pack_columns(int bits, const Plane<uint8_t>& codes, std::span<const int32_t> order, std::span<std::byte> words) {
  const int64_t outputs = codes.rows(), cols = codes.cols();
  assert(outputs % kPackRun == 0 && cols % kPackRun == 0 && words.size() == word_bytes(bits, codes.size()));
  parallel_for(outputs / kRows, [&](int64_t tile) {
    const uint8_t* rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = codes.row(tile * kRows + r);
    std::vector<uint8_t> placed(order.empty() ? 0 : static_cast<size_t>(kRows * cols));
    for (int r = 0; r < kRows && !order.empty(); ++r) {
      uint8_t* to = placed.data() + r * cols;
      for (int64_t c = 0; c < cols; ++c) to[order[static_cast<size_t>(c)]] = rows[r][c];
      rows[r] = to;
    }
    with_bits(bits, [&]<int kBits>() { pack_tile<kBits>(rows, cols, words.data() + 4 * tile * kRows, outputs); });
  });
}

void unpack_columns(int bits, std::span<const std::byte> words, std::span<const int32_t> order, Plane<uint8_t>& codes) {
  const int64_t outputs = codes.rows(), cols = codes.cols();
  assert(outputs % kPackRun == 0 && cols % kPackRun == 0 && words.size() == word_bytes(bits, codes.size()));
  parallel_for(outputs / kRows, [&](int64_t tile) {
    std::vector<uint8_t> placed(order.empty() ? 0 : static_cast<size_t>(kRows * cols));
    uint8_t* rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = order.empty() ? codes.row(tile * kRows + r) : placed.data() + r * cols;
    with_bits(bits, [&]<int kBits>() { unpack_tile<kBits>(words.data() + 4 * tile * kRows, outputs, cols, rows); });
    for (int r = 0; r < kRows && !order.empty(); ++r) {
      uint8_t* to = codes.row(tile * kRows + r);
      for (int64_t c = 0; c < cols; ++c) to[c] = rows[r][order[static_cast<size_t>(c)]];
    }
  });
}

namespace {

int64_t stride_of(size_t bytes, int64_t rows, [[maybe_unused]] int bits, [[maybe_unused]] int64_t cols) {
  const int64_t stride = rows > 0 ? static_cast<int64_t>(bytes) / rows : 0;
  assert(stride * rows == static_cast<int64_t>(bytes) && stride * 8 >= cols * bits);
  return stride;
}

// One row through a buffer of whole runs, in which the columns of each eight stand in their places.
template <int kBits>
void pack_row(const uint8_t* codes, int64_t cols, const RowOrder8& order, std::byte* out, int64_t stride) {
  uint8_t run[kPackRun];
  for (int64_t c = 0, at = 0; at < stride; c += kPackRun, at += 4 * kBits) {
    std::memset(run, 0, sizeof run);
    const int64_t count = std::clamp<int64_t>(cols - c, 0, kPackRun);
    if (order.trivial()) {
      if (count > 0) std::memcpy(run, codes + c, static_cast<size_t>(count));
    } else {
      for (int64_t i = 0; i < kPackRun; ++i)
        if (const int64_t column = i / 8 * 8 + order.place[static_cast<size_t>(i % 8)]; column < count)
          run[i] = codes[c + column];
    }
    const auto words = pack_run<kBits>(run);
    std::memcpy(out + at, words.data(), static_cast<size_t>(std::min<int64_t>(stride - at, 4 * kBits)));
  }
}
template <int kBits>
void unpack_row(const std::byte* from, int64_t stride, const RowOrder8& order, uint8_t* codes, int64_t cols) {
  uint8_t run[kPackRun];
  for (int64_t c = 0, at = 0; c < cols; c += kPackRun, at += 4 * kBits) {
    std::array<uint32_t, kBits> words = {};
    std::memcpy(words.data(), from + at, static_cast<size_t>(std::min<int64_t>(stride - at, 4 * kBits)));
    unpack_run<kBits>(words, run);
    const int64_t count = std::min(cols - c, kPackRun);
    if (order.trivial()) {
      std::memcpy(codes + c, run, static_cast<size_t>(count));
    } else {
      for (int64_t i = 0; i < kPackRun; ++i)
        if (const int64_t column = i / 8 * 8 + order.place[static_cast<size_t>(i % 8)]; column < count)
          codes[c + column] = run[i];
    }
  }
}

constexpr int64_t kRowsPerTask = 16;
template <class Body>
void for_rows(int64_t rows, const Body& body) {
  parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    for (int64_t r = task * kRowsPerTask; r < std::min(rows, (task + 1) * kRowsPerTask); ++r) body(r);
  });
}

}  // namespace

void pack_rows(int bits, const Plane<uint8_t>& codes, std::span<std::byte> words, const RowOrder8& order) {
  const int64_t stride = stride_of(words.size(), codes.rows(), bits, codes.cols());
  with_bits(bits, [&]<int kBits>() {
    for_rows(codes.rows(),
             [&](int64_t r) { pack_row<kBits>(codes.row(r), codes.cols(), order, words.data() + r * stride, stride); });
  });
}

void unpack_rows(int bits, std::span<const std::byte> words, Plane<uint8_t>& codes, const RowOrder8& order) {
  const int64_t stride = stride_of(words.size(), codes.rows(), bits, codes.cols());
  with_bits(bits, [&]<int kBits>() {
    for_rows(codes.rows(), [&](int64_t r) {
      unpack_row<kBits>(words.data() + r * stride, stride, order, codes.row(r), codes.cols());
    });
  });
}

Plane<uint8_t> gathered(const Plane<uint8_t>& codes, std::span<const int32_t> order) {
  if (order.empty()) return codes;
  Plane<uint8_t> out(codes.rows(), codes.cols());
  for_rows(codes.rows(), [&](int64_t r) {
    for (int64_t c = 0; c < codes.cols(); ++c) out(r, c) = codes(r, order[static_cast<size_t>(c)]);
  });
  return out;
}

Plane<uint8_t> scattered(const Plane<uint8_t>& codes, std::span<const int32_t> order) {
  if (order.empty()) return codes;
  Plane<uint8_t> out(codes.rows(), codes.cols());
  for_rows(codes.rows(), [&](int64_t r) {
    for (int64_t c = 0; c < codes.cols(); ++c) out(r, order[static_cast<size_t>(c)]) = codes(r, c);
  });
  return out;
}

Plane<uint8_t> transposed_codes(const Plane<uint8_t>& codes) {
  constexpr int64_t kBlock = 64;
  Plane<uint8_t> out(codes.cols(), codes.rows());
  parallel_for((codes.cols() + kBlock - 1) / kBlock, [&](int64_t block) {
    const int64_t first = block * kBlock, last = std::min(first + kBlock, codes.cols());
    for (int64_t r = 0; r < codes.rows(); r += kBlock)
      for (int64_t c = first; c < last; ++c)
        for (int64_t i = r; i < std::min(r + kBlock, codes.rows()); ++i) out(c, i) = codes(i, c);
  });
  return out;
}

}  // namespace pare
