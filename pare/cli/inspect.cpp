#include "pare/cli/inspect.h"

#include <functional>
#include <map>
#include <numeric>

#include "pare/base/error.h"
#include "pare/model/config.h"

namespace pare {
namespace {

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// Tables and masks that some files carry along; nothing in them was learned.
bool is_buffer(const StoredTensor& tensor) {
  const auto dtype = dtype_from_name(tensor.type);
  if (dtype && !info(*dtype).floating) return true;
  for (const char* name : {"rotary_emb.inv_freq", "rope_freqs.weight", "attn.masked_bias"})
    if (tensor.name.ends_with(name)) return true;
  return tensor.name.ends_with("attn.bias") && tensor.shape.size() == 4;
}

// The quantized matrix that a stored tensor is a part of ("….q_proj.weight" for "….q_proj.qweight"), if any.
std::optional<std::string> matrix_of_part(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  const size_t dot = tensor.name.rfind('.');
  if (dot == std::string::npos || tensor.name.substr(dot) == ".bias") return std::nullopt;
  const std::string matrix = tensor.name.substr(0, dot) + ".weight";
  if (tensor.name != matrix && checkpoint.find(matrix)) return std::nullopt;
  if (!checkpoint.has(matrix) || !checkpoint.grid_of_weight(matrix)) return std::nullopt;
  return matrix;
}

InspectedTensor quantized_matrix(const Checkpoint& checkpoint, const std::string& name) {
  const Shape shape = checkpoint.shape_of(name).value_or(Shape{});
  return {.name = name,
          .shape = {shape.rows, shape.cols},
          .type = name_of(*checkpoint.grid_of_weight(name)),
          .on_grid = true,
          .parameters = shape.size()};
}

std::vector<InspectedTensor> inspect_tensors(const Checkpoint& checkpoint) {
  std::vector<InspectedTensor> out;
  std::map<std::string, size_t> matrices;  // name -> index in `out`
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const auto bytes = static_cast<int64_t>(tensor.bytes.size());
    if (const auto matrix = matrix_of_part(checkpoint, tensor)) {
      const auto [at, added] = matrices.try_emplace(*matrix, out.size());
      if (added) out.push_back(quantized_matrix(checkpoint, *matrix));
      out[at->second].bytes += bytes;
      continue;
    }
    out.push_back({.name = tensor.name,
                   .shape = tensor.shape,
                   .type = tensor.type,
                   .on_grid = !dtype_from_name(tensor.type),  // blocks that Pare lists but does not decode
                   .parameters = is_buffer(tensor) ? 0 : product(tensor.shape),
                   .bytes = bytes});
  }
  return out;
}

std::optional<int64_t> first_integer(const Json& config, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (const auto found = config.find(key); found != config.end() && found->is_number_integer())
      return found->get<int64_t>();
  return std::nullopt;
}

// What the file says of itself, for architectures that read_config refuses.
void describe_unknown(const Checkpoint& checkpoint, Inspection& out) {
  if (checkpoint.format() == Format::gguf) {
    const Metadata& keys = checkpoint.metadata();
    out.architecture = keys.text("general.architecture").value_or("");
    out.context_length = keys.integer(out.architecture + ".context_length");
    out.layers = keys.integer(out.architecture + ".block_count");
    out.hidden = keys.integer(out.architecture + ".embedding_length");
    return;
  }
  const Json& config = checkpoint.config();
  if (!config.is_object()) return;
  const auto type = config.find("model_type");
  if (type != config.end() && type->is_string()) out.architecture = type->get<std::string>();
  const auto classes = config.find("architectures");
  if (out.architecture.empty() && classes != config.end() && classes->is_array() && !classes->empty() &&
      classes->front().is_string())
    out.architecture = classes->front().get<std::string>();
  out.context_length = first_integer(config, {"max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"});
  out.layers = first_integer(config, {"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
  out.hidden = first_integer(config, {"hidden_size", "n_embd", "d_model"});
  out.vocabulary = first_integer(config, {"vocab_size"});
}

void describe_model(const Checkpoint& checkpoint, Inspection& out) {
  try {
    const Config config = read_config(checkpoint);
    out.architecture = config.architecture;
    out.context_length = config.context;
    out.layers = config.layers;
    out.hidden = config.hidden;
    out.vocabulary = config.vocab;
  } catch (const Error& e) {
    out.unsupported = e.what();
    describe_unknown(checkpoint, out);
  }
}

}  // namespace

std::string_view name_of(Format format) { return format == Format::gguf ? "gguf" : "huggingface"; }

Inspection inspect(const Checkpoint& checkpoint) {
  Inspection out;
  out.format = checkpoint.format();
  out.quantization = checkpoint.quantization();
  out.file_bytes = checkpoint.file_bytes();
  out.tensors = inspect_tensors(checkpoint);
  for (const InspectedTensor& tensor : out.tensors) {
    out.parameters += tensor.parameters;
    out.weight_bytes += tensor.bytes;
  }
  if (out.parameters > 0)
    out.bits_per_weight = 8.0 * static_cast<double>(out.weight_bytes) / static_cast<double>(out.parameters);
  describe_model(checkpoint, out);
  return out;
}

}  // namespace pare
