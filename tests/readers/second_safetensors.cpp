// safetensors files, Hugging Face directories of them, and the GPTQ convention on top.
//
//   | u64 N | N bytes of JSON | data |      JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end) in data}, …}
#include <cctype>
#include <regex>
#include <set>
#include <stdexcept>

#include "tests/readers/second_bytes.h"
#include "tests/readers/second_reader.h"

namespace pare::test {
namespace {

using nlohmann::json;
using Settings = nlohmann::ordered_json;  // the order of `dynamic` matters
namespace fs = std::filesystem;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

uint64_t bytes_of_type(const std::string& type) {
  static const std::map<std::string, uint64_t> kBytes = {
      {"bool", 1}, {"u8", 1},  {"i8", 1},  {"f8_e4m3", 1}, {"i16", 2}, {"u16", 2}, {"f16", 2},
      {"bf16", 2}, {"i32", 4}, {"u32", 4}, {"f32", 4},     {"i64", 8}, {"u64", 8}, {"f64", 8}};
  const auto found = kBytes.find(type);
  if (found == kBytes.end()) throw std::runtime_error("safetensors: dtype " + type);
  return found->second;
}

json read_header(Cursor& file) {
  const uint64_t size = file.read<uint64_t>();
  return json::parse(file.take(size));
}

json read_json(const fs::path& path) { return json::parse(whole_file(path)); }

// --- GPTQ ---

// Field `index` of a run of b-bit fields laid end to end, lowest bits first, in 32-bit words. `word(w)` is word w.
template <class Word>
int field(const Word& word, int bits, int64_t index) {
  int value = 0;
  for (int i = 0; i < bits; ++i) {
    const int64_t position = index * bits + i;
    value |= static_cast<int>(word(position / 32) >> (position % 32) & 1u) << i;
  }
  return value;
}

// The settings that hold for one module: `dynamic` maps patterns ("+:" or nothing: overrides) to other values; the
// first pattern that matches from the name's beginning counts.
Settings settings_of(const Settings& config, const std::string& module) {
  Settings settings = config;
  if (!config.contains("dynamic") || !config["dynamic"].is_object()) return settings;
  for (const auto& [pattern, overrides] : config["dynamic"].items()) {
    const bool marked = pattern.starts_with("+:") || pattern.starts_with("-:");
    const std::regex expression(marked ? pattern.substr(2) : pattern);
    if (!std::regex_search(module, expression, std::regex_constants::match_continuous)) continue;
    if (pattern.starts_with("-:")) throw std::runtime_error("GPTQ: " + module + " should not be quantized");
    settings.update(overrides);
    return settings;
  }
  return settings;
}

bool made_by_gptqmodel(const Settings& config) {
  return config.contains("meta") &&
         lower(config["meta"].value("quantizer", Settings()).dump()).find("gptqmodel") != std::string::npos;
}

// The same where every 32 fields are cut into planes, each a run of its own: 7 bits are 4 + 2 + 1.
template <class Word>
int planar_field(const Word& word, int bits, int64_t index) {
  int value = 0, done = 0;
  for (const int width : {8, 4, 2, 1}) {
    if (!(bits & width)) continue;
    const auto own = [&](int64_t w) { return word(index / 32 * bits + done + w); };
    value |= field(own, width, index % 32) << done;
    done += width;
  }
  return value;
}

// Zero point of a group and an output feature. Version 1 stores zero - 1; GPTQModel subtracted 1 from all fields of a
// word at once, so that a stored 0 borrows from its neighbours: it must be undone in the same way.
int zero_point(const SecondTensor& qzeros, int64_t group, int64_t n, int bits, const Settings& settings) {
  const std::string format = settings.value("checkpoint_format", "gptq");
  const bool whole_words = format == "gptq" && bits != 3 && made_by_gptqmodel(settings);
  uint32_t ones = 0;  // a 1 in every field
  for (int shift = 0; shift < 32; shift += bits) ones |= 1u << shift;
  const auto word = [&](int64_t w) {
    const auto stored = number_at<uint32_t>(qzeros.bytes, static_cast<size_t>(group * qzeros.shape.at(1) + w));
    return whole_words ? stored + ones : stored;
  };
  if (format == "gptq_p") return planar_field(word, bits, n);
  const int value = field(word, bits, n);
  if (format == "gptq_v2" || whole_words) return value;
  if (format != "gptq") throw std::runtime_error("GPTQ: checkpoint_format " + format);
  return bits == 3 ? (value + 1) % 8 : value + 1;
}

//   qweight  i32 [in * bits / 32, out]    codes, packed down the inputs
//   qzeros   i32 [groups, out * bits / 32]  packed along the outputs
//   scales   f16 [groups, out]
//   g_idx    i32 [in]                     group of each input; may be missing
//   weight[n, k] = scale[g, n] * (code[k, n] - zero[g, n]),  g = g_idx[k]
SecondTensor assemble(const SecondTensors& stored, const std::string& module, const Settings& config) {
  const Settings settings = settings_of(config, module);
  const int bits = settings.at("bits").get<int>();
  const SecondTensor &qweight = stored.at(module + ".qweight"), &qzeros = stored.at(module + ".qzeros"),
                     &scales = stored.at(module + ".scales");
  const int64_t out = qweight.shape.at(1), in = qweight.shape.at(0) * 32 / bits, groups = scales.shape.at(0);
  if (qweight.type != "i32" || qzeros.type != "i32") throw std::runtime_error("GPTQ: words of " + module);
  if (scales.shape.at(1) != out || qzeros.shape.at(0) != groups || qzeros.shape.at(1) * 32 != out * bits)
    throw std::runtime_error("GPTQ: the shapes of " + module + " contradict each other");

  const auto found = stored.find(module + ".g_idx");
  const int64_t group_size = settings.value("group_size", -1) > 0 ? settings["group_size"].get<int64_t>() : in;
  const auto group_of = [&](int64_t k) {
    if (found == stored.end()) return k / group_size;
    const int64_t g = number_at<int32_t>(found->second.bytes, static_cast<size_t>(k));
    return g < 0 ? g + groups : g;
  };

  std::vector<int> zeros;  // [groups, out]
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t n = 0; n < out; ++n) zeros.push_back(zero_point(qzeros, g, n, bits, settings));

  SecondTensor weight{module + ".weight", {out, in}, "gptq-" + std::to_string(bits), {}, {}};
  for (int64_t n = 0; n < out; ++n)
    for (int64_t k = 0; k < in; ++k) {
      const auto word = [&](int64_t w) { return number_at<uint32_t>(qweight.bytes, static_cast<size_t>(w * out + n)); };
      const auto at = static_cast<size_t>(group_of(k) * out + n);
      const bool planar = settings.value("checkpoint_format", "") == "gptq_p";
      const int difference = (planar ? planar_field(word, bits, k) : field(word, bits, k)) - zeros.at(at);
      weight.values.push_back(scales.values.at(at) * static_cast<float>(difference));
    }
  return weight;
}

Settings quantization_config(const fs::path& directory) {
  const Settings config = Settings::parse(whole_file(directory / "config.json"));
  const Settings found = config.value("quantization_config", Settings::object());
  if (found.value("quant_method", "") != "gptq") throw std::runtime_error("GPTQ: config.json names another method");
  return found;
}

}  // namespace

SecondTensors read_safetensors(const fs::path& path) {
  Cursor file(whole_file(path), path.string());
  const json header = read_header(file);
  const uint64_t data_begin = file.offset();
  SecondTensors tensors;
  std::map<uint64_t, uint64_t> ranges;  // begin → end, of the tensors that are not empty
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    SecondTensor tensor{name, entry.at("shape"), lower(entry.at("dtype")), {}, {}};
    const uint64_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    const uint64_t count = count_of(tensor.shape);
    if (end < begin || end - begin != count * bytes_of_type(tensor.type))
      throw std::runtime_error("safetensors: the size of " + name);
    file.seek(data_begin + begin);
    tensor.bytes = file.take(end - begin);
    for (uint64_t i = 0; i < count; ++i) tensor.values.push_back(plain_value(tensor.type, tensor.bytes, i));
    if (begin != end && !ranges.emplace(begin, end).second) throw std::runtime_error("safetensors: overlap at " + name);
    tensors.emplace(name, std::move(tensor));
  }
  uint64_t reached = 0;  // no holes, no overlap, nothing behind the last tensor
  for (const auto& [begin, end] : ranges) {
    if (begin != reached) throw std::runtime_error("safetensors: a hole or an overlap");
    reached = end;
  }
  if (data_begin + reached != file.size()) throw std::runtime_error("safetensors: the file's size");
  return tensors;
}

json read_safetensors_metadata(const fs::path& path) {
  Cursor file(whole_file(path), path.string());
  return read_header(file).value("__metadata__", json::object());
}

SecondTensors read_directory(const fs::path& directory) {
  const fs::path index = directory / "model.safetensors.index.json";
  if (!fs::exists(index)) return read_safetensors(directory / "model.safetensors");
  const json map = read_json(index).at("weight_map");
  std::set<std::string> shards;
  for (const auto& [name, shard] : map.items()) shards.insert(shard.get<std::string>());
  SecondTensors all;
  for (const std::string& shard : shards)
    for (auto& [name, tensor] : read_safetensors(directory / shard)) {
      if (map.value(name, "") != shard) throw std::runtime_error("the index does not place " + name + " in " + shard);
      all.emplace(name, std::move(tensor));
    }
  for (const auto& [name, shard] : map.items())
    if (!all.contains(name)) throw std::runtime_error("the index names " + name + ", which no shard has");
  return all;
}

SecondTensors read_gptq_directory(const fs::path& directory) {
  const Settings config = quantization_config(directory);
  const SecondTensors stored = read_directory(directory);
  SecondTensors tensors;
  for (const auto& [name, tensor] : stored) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? "" : name.substr(dot + 1);
    const bool packed = stored.contains(module + ".qweight");
    if (packed && last == "weight") throw std::runtime_error("GPTQ: " + module + " is there packed and unpacked");
    if (packed && last == "qweight") tensors.emplace(module + ".weight", assemble(stored, module, config));
    if (!packed || last == "bias") tensors.emplace(name, tensor);
  }
  return tensors;
}

}  // namespace pare::test
