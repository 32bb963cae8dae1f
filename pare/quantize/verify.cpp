#include "pare/quantize/verify.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/mapped_file.h"
#include "pare/base/threads.h"

namespace pare {
namespace {

constexpr int64_t kPanel = 32;  // rows
constexpr uint64_t kStart = 0x9E3779B97F4A7C15u;

uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
  return hash ^ (hash >> 32);
}

uint64_t hash_bytes(uint64_t hash, const void* data, size_t size) {
  const auto* from = static_cast<const unsigned char*>(data);
  std::array<uint64_t, 4> chains{hash, hash + 1, hash + 2, hash + 3};  // one multiply waits for the last: four at once
  uint64_t word;
  for (; size >= sizeof(chains); size -= sizeof(chains), from += sizeof(chains))
    for (size_t i = 0; i < chains.size(); ++i) {
      std::memcpy(&word, from + 8 * i, 8);
      chains[i] = mix(chains[i], word);
    }
  for (const uint64_t chain : chains) hash = mix(hash, chain);
  for (; size >= 8; size -= 8, from += 8) {
    std::memcpy(&word, from, 8);
    hash = mix(hash, word);
  }
  if (size == 0) return hash;
  word = 0;
  std::memcpy(&word, from, size);
  return mix(hash, word ^ (uint64_t{size} << 56));
}

}  // namespace

uint64_t fingerprint_of(std::span<const std::byte> bytes) { return hash_bytes(kStart, bytes.data(), bytes.size()); }

namespace {

// In double, over eight sums that vectorise.
template <class Value>
double sum_of_squares(int64_t count, Value&& value) {
  std::array<double, 8> sums{};
  const int64_t whole = count / 8 * 8;
  for (int64_t c = 0; c < whole; c += 8)
    for (int64_t i = 0; i < 8; ++i) {
      const double x = value(c + i);
      sums[static_cast<size_t>(i)] += x * x;
    }
  for (int64_t c = whole; c < count; ++c) sums[0] += static_cast<double>(value(c)) * value(c);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

Assessment assess(const Quantized& q, MatrixView w) {
  const Shape s = q.shape();
  const int64_t panels = (s.rows + kPanel - 1) / kPanel;
  std::vector<Assessment> parts(static_cast<size_t>(panels));
  parallel_for(panels, [&](int64_t p) {
    const int64_t first = p * kPanel, last = std::min(first + kPanel, s.rows);
    std::vector<float> values(static_cast<size_t>((last - first) * s.cols));
    dequantize_rows(q, first, last, values.data());
    Assessment& part = parts[static_cast<size_t>(p)];
    part.fingerprint = hash_bytes(kStart, values.data(), values.size() * sizeof(float));
    if (w.rows == 0) return;
    for (int64_t r = first; r < last; ++r) {
      const float *wanted = w.row(r), *got = values.data() + (r - first) * s.cols;
      part.error += sum_of_squares(s.cols, [&](int64_t c) { return wanted[c] - got[c]; });
      part.power += sum_of_squares(s.cols, [&](int64_t c) { return wanted[c]; });
    }
  });
  Assessment total{.fingerprint = kStart};
  for (const Assessment& part : parts) {
    total.fingerprint = mix(total.fingerprint, part.fingerprint);
    total.error += part.error;
    total.power += part.power;
  }
  return total;
}

void verify_written(const Plan& plan, const std::filesystem::path& staged, const std::vector<TensorReport>& intended,
                    const Observer& observer) {
  const auto written = Checkpoint::open(staged);
  const auto total = static_cast<int64_t>(plan.tensors.size());
  for (int64_t i = 0; i < total; ++i) {
    check_interrupt();
    const PlannedTensor& t = plan.tensors[static_cast<size_t>(i)];
    const Weight weight = written->load(t.name);
    const auto* q = std::get_if<Quantized>(&weight);
    const uint64_t found = q ? assess(*q, {}).fingerprint : fingerprint_of(std::get<FloatTensor>(weight).bytes);
    if (found != intended[static_cast<size_t>(i)].fingerprint || (q != nullptr) != t.on_grid())
      throw Error({.what = "the written tensor does not read back as intended",
                   .where = t.name,
                   .remedy = "this is a bug in Pare or a faulty disk; nothing was left behind",
                   .code = ExitCode::internal});
    written->forget(t.name);
    observer.report({.stage = "verify", .detail = t.name, .done = i + 1, .total = total});
  }
}

}  // namespace pare
