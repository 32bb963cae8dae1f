#include "pare/cli/inspect.h"

#include <functional>
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

InspectedTensor inspect_tensor(const Checkpoint& checkpoint, const std::string& name) {
  const int64_t bytes = checkpoint.bytes_of(name);
  if (const auto grid = checkpoint.grid_of_weight(name)) {
    const Shape shape = checkpoint.shape_of(name).value_or(Shape{});
    return {.name = name,
            .shape = {shape.rows, shape.cols},
            .type = name_of(*grid),
            .on_grid = true,
            .parameters = shape.size(),
            .bytes = bytes};
  }
  const StoredTensor& tensor = *checkpoint.find(name);
  return {.name = name,
          .shape = tensor.shape,
          .type = tensor.type,
          .on_grid = !dtype_from_name(tensor.type),  // blocks that Pare lists but does not decode
          .parameters = is_buffer(tensor) ? 0 : product(tensor.shape),
          .bytes = bytes};
}

std::vector<InspectedTensor> inspect_tensors(const Checkpoint& checkpoint) {
  std::vector<InspectedTensor> out;
  for (const std::string& name : checkpoint.weights()) out.push_back(inspect_tensor(checkpoint, name));
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
