// Quantized Hugging Face directories other than GPTQ, from the formats' descriptions: see second_reader.h.
#include <cctype>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "tests/readers/second_bytes.h"
#include "tests/readers/second_reader.h"

namespace pare::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// What every format's function gets: all stored tensors and one quantized module.
struct Module {
  const SecondTensors& stored;
  std::string name;
  const json& config;

  bool has(const std::string& part) const { return stored.contains(name + "." + part); }
  const SecondTensor& at(const std::string& part) const { return stored.at(name + "." + part); }
  uint32_t word(const std::string& part, int64_t index) const {
    return number_at<uint32_t>(at(part).bytes, static_cast<size_t>(index));
  }
  double value(const std::string& part, int64_t index) const { return at(part).values.at(static_cast<size_t>(index)); }
};

SecondTensor made(const Module& m, int64_t rows, int64_t cols, const std::string& type,
                  const std::function<float(int64_t, int64_t)>& value) {
  SecondTensor weight{m.name + ".weight", {rows, cols}, type, {}, {}};
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t k = 0; k < cols; ++k) weight.values.push_back(value(n, k));
  return weight;
}

// ---- AWQ gemm: words run along the outputs; this nibble of a word holds column j of its eight.
SecondTensor awq(const Module& m) {
  constexpr int kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  if (m.config.at("version") != "gemm" || m.config.at("bits") != 4 || m.config.at("zero_point") != true)
    throw std::runtime_error("AWQ: not gemm, 4 bits, with zero points");
  const int64_t in = m.at("qweight").shape.at(0), out = m.at("scales").shape.at(1);
  const int64_t group = m.config.at("group_size") == -1 ? in : m.config.at("group_size").get<int64_t>();
  if (m.at("qweight").shape.at(1) * 8 != out || m.at("scales").shape.at(0) * group != in)
    throw std::runtime_error("AWQ: the shapes of " + m.name);
  const auto field = [&](const char* part, int64_t row, int64_t n) {
    return static_cast<int>(m.word(part, row * (out / 8) + n / 8) >> (4 * kNibble[n % 8]) & 15u);
  };
  return made(m, out, in, "awq", [&](int64_t n, int64_t k) {
    const int64_t g = k / group;
    return static_cast<float>(m.value("scales", g * out + n)) *
           static_cast<float>(field("qweight", k, n) - field("qzeros", g, n));
  });
}

// The part that makes a module, and the function that assembles it.
struct Method {
  std::string part;
  SecondTensor (*assemble)(const Module& m);
};
Method method_of(const json& config) {
  const std::string name = config.value("quant_method", "");
  if (name == "awq") return {"qweight", awq};
  throw std::runtime_error("a quantization method that the second reader does not know: " + name);
}

}  // namespace

SecondTensors read_hf_directory(const fs::path& directory) {
  const json whole = json::parse(whole_file(directory / "config.json"));
  const json config = whole.value("quantization_config", json::object());
  if (config.value("quant_method", "") == "gptq") return read_gptq_directory(directory);
  const Method method = method_of(config);
  const SecondTensors stored = read_directory(directory);
  SecondTensors tensors;
  for (const auto& [name, tensor] : stored) {
    if (!name.ends_with("." + method.part)) continue;
    const std::string module = name.substr(0, name.size() - method.part.size() - 1);
    tensors.emplace(module + ".weight", method.assemble({stored, module, config}));
  }
  return tensors;
}

}  // namespace pare::test
