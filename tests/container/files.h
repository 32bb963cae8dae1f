// Files made by hand, right and wrong, and what the readers say about them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "pare/base/error.h"
#include "pare/base/float_formats.h"
#include "pare/grid/line.h"
#include "tests/support/golden.h"

namespace pare::test {

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The text of the Error that `body` throws; a test failure when it throws none.
template <class F>
std::string error_of(F&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
inline std::string raw_string(const std::string& text) { return raw<uint64_t>(text.size()) + text; }

inline std::string from_hex(std::string hex) {
  std::erase_if(hex, [](char c) { return c == ' ' || c == '\n'; });
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

inline std::string safetensors(const std::string& header, const std::string& data) {
  return raw<uint64_t>(header.size()) + header + data;
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}
inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }
inline std::string text_of(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// Any content that the grid allows.
inline Quantized random_quantized(const Grid& grid, Shape shape, unsigned seed) {
  std::mt19937 random(seed);
  Quantized q(grid, shape);
  const auto scales = [&](Plane<float>& plane) {
    for (float& x : plane.values())
      x = round_to_f16((random() % 2 ? -1.0f : 1.0f) * 1e-3f * static_cast<float>(1 + random() % 997));
  };
  int top = 255;
  if (auto* affine = std::get_if<Affine>(&q.params)) {
    top = (1 << affine->spec.bits) - 1;
    scales(affine->scale);
    scales(affine->bias);
    for (float& x : affine->scale.values()) x = stored_scale(affine->spec.scale, x);
    for (float& x : affine->bias.values()) x = stored_scale(affine->spec.scale, x);
    if (affine->spec.rows == 0) std::fill(affine->scale.values().begin(), affine->scale.values().end(), -0.25f);
    if (!affine->spec.symmetric && !affine->spec.biased)
      for (uint8_t& z : affine->zero.values())
        z = static_cast<uint8_t>(
            affine->spec.lowest_zero +
            static_cast<int>(random() % static_cast<unsigned>(top + 1 - affine->spec.lowest_zero)));
  } else if (auto* block = std::get_if<Block>(&q.params)) {
    top = block->spec.type == BlockSpec::Type::q4_0 ? 15 : 255;
    scales(block->scale);
  } else if (std::holds_alternative<Codebook>(q.params)) {
    top = codes_of(grid) - 1;
    Matrix w(shape.rows, shape.cols);
    scales(w);
    q.prepare(w);
    for (int64_t i = 0; i < q.windows(); ++i) q.fit(i, w, {.search = Search::range});
  } else {
    auto& super = std::get<SuperBlock>(q.params);
    const bool q4 = super.spec.type == SuperBlockSpec::Type::q4_k;
    top = q4 ? 15 : 63;
    scales(super.d);
    scales(super.dmin);
    for (int8_t& s : super.scale.values()) s = static_cast<int8_t>(q4 ? random() % 64 : random() % 256);
    for (uint8_t& m : super.min.values()) m = static_cast<uint8_t>(random() % 64);
  }
  for (uint8_t& c : q.codes.values()) c = static_cast<uint8_t>(random() % static_cast<unsigned>(top + 1));
  return q;
}

inline void expect_equal(const Quantized& a, const Quantized& b) {
  EXPECT_EQ(name_of(a.grid()), name_of(b.grid()));
  EXPECT_TRUE(a.grid() == b.grid());
  EXPECT_TRUE(a.codes == b.codes);
  EXPECT_EQ(a.order, b.order);
  EXPECT_TRUE(dequantize(a) == dequantize(b));
}

}  // namespace pare::test
