#include "pare/convert/arrangement.h"

#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/model/gguf_export.h"
#include "pare/quantize/source.h"

namespace pare {

Arrangement::Arrangement(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  try {
    config_ = read_config(*checkpoint_);
    arch_ = &find_arch(config_->architecture);
  } catch (const Error& e) {
    unknown_ = e.what();
  }
}

std::optional<TensorNames::Place> Arrangement::place(const std::string& name) const {
  if (!arch_) return std::nullopt;
  return TensorNames(*arch_, *checkpoint_).place(sought_name(*config_, *arch_, *checkpoint_, name));
}

std::string Arrangement::key(const std::string& name) const {
  const auto at = place(name);
  if (!at) return name;
  std::string key = at->layer < 0 ? "" : fmt::format("blk.{}.", at->layer);
  key += name_of(at->tensor->role);
  if (at->part >= 0) key += fmt::format(".{}", at->part);
  return key + (at->weight ? ".weight" : ".bias");
}

Arrangement::Turn Arrangement::turn(const std::string& name) const {
  const auto at = place(name);
  if (!at) return {};
  const bool gguf = checkpoint_->format() == Format::gguf;
  if (!gguf)
    return {.transposed = at->tensor->transposed && at->weight && !checkpoint_->grid_of_weight(name), .rows = {}};
  const Shape stored = checkpoint_->shape_of(name).value_or(Shape{});
  return {.transposed = false,
          .rows = gguf_row_permutation(*config_, *at->tensor, at->weight ? stored.rows : stored.cols, true)};
}

Shape Arrangement::shape(const std::string& name) const {
  const Shape stored = checkpoint_->shape_of(name).value_or(Shape{});
  return turn(name).transposed ? Shape{stored.cols, stored.rows} : stored;
}

Matrix Arrangement::values(const std::string& name) const {
  const Turn turned = turn(name);
  Matrix m = values_of(checkpoint_->load(name), fmt::format("{}: {}", checkpoint_->path().string(), name));
  checkpoint_->forget(name);
  if (turned.transposed) m = transposed(m);
  return take_rows(std::move(m), turned.rows);
}

}  // namespace pare
