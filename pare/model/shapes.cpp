// Which shape every tensor must have, and the check that the file agrees, before any work.
#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/model/arch.h"

namespace pare {
namespace {

std::string text_of(Shape s) {
  return s.rows == 1 ? fmt::format("[{}]", s.cols) : fmt::format("[{}, {}]", s.rows, s.cols);
}

class Checker {
 public:
  Checker(const Config& config, const Arch& arch, const Checkpoint& checkpoint)
      : config_(config), checkpoint_(checkpoint), names_(arch, checkpoint) {}

  void check(const TensorName& t, int layer) const {
    const Shape shape = expected_shape(config_, t.role);
    if (t.stacked) {
      const Shape one = t.transposed ? Shape{shape.cols, shape.rows} : shape;
      compare(names_.weight(t, layer), {config_.moe->experts * one.rows, one.cols});
      if (!t.stacked_bias.empty()) compare(names_.stacked_bias(t, layer), {config_.moe->experts, shape.rows});
      return;
    }
    if (is_per_expert(t)) {
      for (int e = 0; e < config_.moe->experts; ++e) compare(names_.weight(t, layer, e), shape);
      return;
    }
    const std::vector<std::string> parts = names_of_parts(config_, t, names_.weight(t, layer));
    const std::string& name = parts.front();
    if (parts.size() > 1) {
      for (const std::string& part : parts) compare(part, {1, shape.size() / std::ssize(parts)});
      return;
    }
    const bool conv1d =
        t.transposed && checkpoint_.format() == Format::huggingface && !checkpoint_.grid_of_weight(name).has_value();
    compare(name, conv1d ? Shape{shape.cols, shape.rows} : shape);
    if (has_bias(config_, t)) compare(names_.bias(t, layer), {1, is_norm(t.role) ? shape.cols : shape.rows});
  }

 private:
  void compare(const std::string& name, Shape expected) const {
    const std::optional<Shape> found = checkpoint_.has(name) ? checkpoint_.shape_of(name) : std::nullopt;
    if (!found)
      throw Error({.what = "the model lacks a tensor that its configuration asks for",
                   .where = fmt::format("{}: {}", checkpoint_.path().string(), name),
                   .expected = text_of(expected),
                   .got = "no such tensor",
                   .remedy = "the configuration is of another model, or a file is missing"});
    if (*found == expected) return;
    throw Error({.what = "the shape of a tensor contradicts the configuration",
                 .where = fmt::format("{}: {}", checkpoint_.path().string(), name),
                 .expected = text_of(expected),
                 .got = text_of(*found),
                 .remedy = "the configuration is of another model"});
  }
  const Config& config_;
  const Checkpoint& checkpoint_;
  TensorNames names_;
};

}  // namespace

std::string sought_name(const Config& config, const Arch& arch, const Checkpoint& checkpoint,
                        const std::string& stored) {
  const TensorNames names(arch, checkpoint);
  const auto place = names.place(stored);
  if (!config.tied_head || !place || place->tensor->role != Role::head || !place->weight) return stored;
  const std::string embedding = names.weight(*find_tensor(arch, Role::token_embedding));
  return checkpoint.find(embedding) ? stored : embedding;
}

namespace {

Shape head_norm_shape(const Config& c, int64_t heads) {
  if (c.qk_norm == QkNorm::heads) return {heads, c.head_dim};
  return {1, c.qk_norm == QkNorm::whole ? heads * c.head_dim : c.head_dim};
}

}  // namespace

Shape expected_shape(const Config& c, Role role) {
  switch (role) {
    case Role::token_embedding:
    case Role::head:
      return {c.vocab, c.embedding};
    case Role::position_embedding:
      return {c.context + c.position_offset, c.hidden};
    case Role::project_in:
      return {c.hidden, c.embedding};
    case Role::project_out:
      return {c.embedding, c.hidden};
    case Role::embedding_norm:
    case Role::attn_norm:
    case Role::attn_post_norm:
    case Role::ffn_norm:
    case Role::ffn_post_norm:
    case Role::final_norm:
      return {1, c.hidden};
    case Role::q:
      return {c.q_width(), c.hidden};
    case Role::k:
    case Role::v:
      return {c.key_width(), c.hidden};
    case Role::qkv:
      return {c.q_width() + 2 * c.key_width(), c.hidden};
    case Role::o:
      return {c.hidden, c.mixed_width()};
    case Role::q_a:
      return {c.latent->q_rank, c.hidden};
    case Role::q_a_norm:
      return {1, c.latent->q_rank};
    case Role::q_b:
      return {c.q_width(), c.latent->q_rank};
    case Role::kv_a:
      return {c.latent->kv_rank + c.latent->rotated, c.hidden};
    case Role::kv_a_norm:
      return {1, c.latent->kv_rank};
    case Role::kv_b:
      return {c.heads * (c.latent->plain + c.latent->value), c.latent->kv_rank};
    case Role::q_norm:
      return head_norm_shape(c, c.heads);
    case Role::k_norm:
      return head_norm_shape(c, c.kv_heads);
    case Role::gate_up:
      return {2 * c.ffn, c.hidden};
    case Role::gate:
    case Role::up:
      return {c.ffn, c.hidden};
    case Role::down:
      return {c.hidden, c.ffn};
    case Role::router:
      return {c.moe->experts, c.hidden};
    case Role::router_correction:
      return {1, c.moe->experts};
    case Role::expert_gate:
    case Role::expert_up:
      return {c.moe->ffn, c.hidden};
    case Role::expert_gate_up:
      return {2 * c.moe->ffn, c.hidden};
    case Role::expert_down:
      return {c.hidden, c.moe->ffn};
    case Role::sinks:
      return {1, c.heads};
    case Role::xielu_alpha_p:
    case Role::xielu_alpha_n:
    case Role::xielu_beta:
    case Role::xielu_eps:
      return {1, 1};
    case Role::shared_router:
      return {1, c.hidden};
    case Role::shared_gate:
    case Role::shared_up:
      return {c.moe->shared_ffn, c.hidden};
    case Role::shared_down:
      return {c.hidden, c.moe->shared_ffn};
  }
  return {};
}

void check_shapes(const Config& config, const Arch& arch, const Checkpoint& checkpoint) {
  const Checker checker(config, arch, checkpoint);
  for (const TensorName& t : arch.tensors)
    if (!is_per_layer(t) && has_tensor(config, t)) checker.check(t, -1);
  for (int layer = 0; layer < config.layers; ++layer)
    for (const TensorName& t : arch.tensors)
      if (is_per_layer(t) && has_tensor(config, t, layer)) checker.check(t, layer);
}

}  // namespace pare
