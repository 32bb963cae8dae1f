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

// ---- compressed-tensors

// Field `index` of a string of b-bit fields, lowest bits first, in the words that start at `first`, `stride` apart.
int field_of(const Module& m, const std::string& part, int64_t first, int64_t stride, int bits, int64_t index) {
  int value = 0;
  for (int i = 0; i < bits; ++i) {
    const int64_t position = index * bits + i;
    value |= static_cast<int>(m.word(part, first + position / 32 * stride) >> (position % 32) & 1u) << i;
  }
  return value;
}

const json& weights_of(const Module& m) {
  const json& groups = m.config.at("config_groups");
  for (const auto& [name, group] : groups.items())
    for (const std::string target : group.at("targets"))
      if (target == m.name) return group.at("weights");
  return groups.at("group_0").at("weights");
}

//   weight_packed i32 [out, words]: code + 2^(b-1) along the inputs; weight_zero_point i32 [words, groups]: the same
//   along the outputs; weight_scale [out, groups]; weight_shape [2]
SecondTensor packed_ints(const Module& m) {
  const json& weights = weights_of(m);
  const int bits = weights.at("num_bits");
  const auto shape = m.at("weight_shape").bytes;
  const auto out = number_at<int64_t>(shape, 0), in = number_at<int64_t>(shape, 1);
  const int64_t words = m.at("weight_packed").shape.at(1), groups = m.at("weight_scale").shape.at(1);
  if (words != (in * bits + 31) / 32 || m.at("weight_packed").shape.at(0) != out)
    throw std::runtime_error("compressed-tensors: the shapes of " + m.name);
  if (weights.at("symmetric") == m.has("weight_zero_point"))
    throw std::runtime_error("compressed-tensors: zero points of " + m.name);
  return made(m, out, in, "ct", [&](int64_t n, int64_t k) {
    const int64_t g = k / (in / groups);
    const int zero =
        m.has("weight_zero_point") ? field_of(m, "weight_zero_point", g, groups, bits, n) : 1 << (bits - 1);
    const int code = field_of(m, "weight_packed", n * words, 1, bits, k);
    return static_cast<float>(m.value("weight_scale", n * groups + g)) * static_cast<float>(code - zero);
  });
}

//   weight i8 [out, in]; weight_scale [out, groups] or [1]
SecondTensor plain_ints(const Module& m) {
  const int64_t out = m.at("weight").shape.at(0), in = m.at("weight").shape.at(1);
  const auto scales = static_cast<int64_t>(m.at("weight_scale").values.size());
  return made(m, out, in, "ct", [&](int64_t n, int64_t k) {
    const int64_t at = scales == 1 ? 0 : n * (scales / out) + k / (in / (scales / out));
    return static_cast<float>(m.value("weight_scale", at)) * static_cast<float>(m.value("weight", n * in + k));
  });
}

// An E2M1 number of byte k / 2: the first of two stands in the low half.
float half_byte(const std::string& bytes, int64_t i) {
  constexpr float kSizes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const int byte = static_cast<unsigned char>(bytes.at(static_cast<size_t>(i / 2)));
  const int code = i % 2 == 0 ? byte & 15 : byte >> 4;
  return code & 8 ? -kSizes[code & 7] : kSizes[code & 7];
}

//   weight f8 [out, in] or weight_packed u8 [out, in / 2]; weight_scale: floats [1], [out, 1] or one per block; u8
//   [out, in / 32]: powers of two, bias 127; f8 [out, in / 16], divided by weight_global_scale
SecondTensor floats(const Module& m) {
  const bool half = m.has("weight_packed");
  const SecondTensor &codes = m.at(half ? "weight_packed" : "weight"), &scales = m.at("weight_scale");
  const int64_t out = codes.shape.at(0), in = codes.shape.at(1) * (half ? 2 : 1);
  const json& weights = weights_of(m);
  const std::string strategy = weights.at("strategy");
  const auto scale = [&](int64_t n, int64_t k) {
    if (strategy == "tensor") return scales.values.at(0);
    if (strategy == "channel") return scales.values.at(static_cast<size_t>(n));
    if (strategy == "block") {
      const int64_t side = weights.at("block_structure").at(0);
      return scales.values.at(static_cast<size_t>(n / side * ((in + side - 1) / side) + k / side));
    }
    const int64_t group = weights.at("group_size");
    const float stored = scales.values.at(static_cast<size_t>(n * (in / group) + k / group));
    if (strategy == "tensor_group") return stored / static_cast<float>(m.value("weight_global_scale", 0));
    return std::ldexp(1.0f, static_cast<int>(stored) - 127);
  };
  return made(m, out, in, "ct", [&](int64_t n, int64_t k) {
    return scale(n, k) *
           (half ? half_byte(codes.bytes, n * in + k) : static_cast<float>(m.value("weight", n * in + k)));
  });
}

// ---- MLX: words along the inputs; value = scale code + bias, or mxfp4 without biases
SecondTensor mlx(const Module& m) {
  const json own = m.config.value(m.name, m.config);
  const int bits = own.at("bits");
  const int64_t group = own.at("group_size"), out = m.at("weight").shape.at(0), words = m.at("weight").shape.at(1);
  const int64_t in = words * 32 / bits, groups = in / group;
  return made(m, out, in, "mlx", [&](int64_t n, int64_t k) {
    const int64_t g = n * groups + k / group;
    if (own.at("mode") == "mxfp4")
      return std::ldexp(half_byte(m.at("weight").bytes, n * in + k), static_cast<int>(m.value("scales", g)) - 127);
    const auto code = static_cast<float>(field_of(m, "weight", n * words, 1, bits, k));
    const float product = static_cast<float>(m.value("scales", g)) * code;
    return product + static_cast<float>(m.value("biases", g));
  });
}

// ---- bitsandbytes: blocks run over the flattened matrix, the first of two codes stands in the high half of a byte
SecondTensor four_bits(const Module& m) {
  const json& config = m.config;
  const std::string type = config.at("bnb_4bit_quant_type");
  const json state = json::parse(m.at("weight.quant_state.bitsandbytes__" + type).bytes);
  if (state.at("quant_type") != type || m.has("weight.nested_absmax") != config.at("bnb_4bit_use_double_quant"))
    throw std::runtime_error("bitsandbytes: the config contradicts " + m.name);
  const int64_t out = state.at("shape").at(0), in = state.at("shape").at(1), block = state.at("blocksize");
  const std::string& codes = m.at("weight").bytes;
  const auto absmax = [&](int64_t b) {
    if (!m.has("weight.nested_absmax")) return static_cast<float>(m.value("weight.absmax", b));
    const auto code = static_cast<unsigned char>(m.at("weight.absmax").bytes.at(static_cast<size_t>(b)));
    const float scaled = static_cast<float>(m.value("weight.nested_quant_map", code)) *
                         static_cast<float>(m.value("weight.nested_absmax", b / 256));
    return scaled + state.at("nested_offset").get<float>();
  };
  return made(m, out, in, type, [&](int64_t n, int64_t k) {
    const int64_t i = n * in + k;
    const auto byte = static_cast<unsigned char>(codes.at(static_cast<size_t>(i / 2)));
    return static_cast<float>(m.value("weight.quant_map", i % 2 == 0 ? byte >> 4 : byte & 15)) * absmax(i / block);
  });
}
SecondTensor llm_int8(const Module& m) {
  const int64_t out = m.at("weight").shape.at(0), in = m.at("weight").shape.at(1);
  return made(m, out, in, "int8", [&](int64_t n, int64_t k) {
    return static_cast<float>(m.value("weight", n * in + k) / 127.0f) * static_cast<float>(m.value("SCB", n));
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
  if (name == "bitsandbytes")
    return config.at("load_in_8bit") == true ? Method{"SCB", llm_int8} : Method{"weight.absmax", four_bits};
  if (name == "compressed-tensors") {
    const std::string format = config.at("format");
    if (format == "pack-quantized") return {"weight_packed", packed_ints};
    if (format == "int-quantized") return {"weight", plain_ints};
    if (format == "mxfp4-pack-quantized" || format == "nvfp4-pack-quantized") return {"weight_packed", floats};
    if (format == "float-quantized" || format == "mxfp8-quantized") return {"weight", floats};
    throw std::runtime_error("compressed-tensors: format " + format);
  }
  throw std::runtime_error("a quantization method that the second reader does not know: " + name);
}

}  // namespace

SecondTensors read_hf_directory(const fs::path& directory) {
  const json whole = json::parse(whole_file(directory / "config.json"));
  const bool is_mlx = whole.contains("quantization");
  const json config = is_mlx ? whole.at("quantization") : whole.value("quantization_config", json::object());
  if (config.value("quant_method", "") == "gptq") return read_gptq_directory(directory);
  const Method method = is_mlx ? Method{"scales", mlx} : method_of(config);
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
