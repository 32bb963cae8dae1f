#include "pare/quantize/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/threads.h"
#include "pare/tensor/linalg.h"

namespace pare {
namespace {

// Converts in pieces so that the mapped source need not be resident as a whole.
Matrix to_matrix_in_pieces(const FloatTensor& tensor, Shape shape) {
  constexpr int64_t kPiece = int64_t{4} << 20;  // elements
  Matrix out(shape.rows, shape.cols);
  const auto width = static_cast<size_t>(info(tensor.dtype).bits / 8);
  const int64_t pieces = (out.size() + kPiece - 1) / kPiece;
  parallel_for(pieces, [&](int64_t p) {
    const int64_t first = p * kPiece, count = std::min(kPiece, out.size() - first);
    const auto bytes = tensor.bytes.subspan(static_cast<size_t>(first) * width, static_cast<size_t>(count) * width);
    to_f32(tensor.dtype, bytes, out.values().subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
    forget_pages(bytes);
  });
  return out;
}

Shape stored_shape(const FloatTensor& tensor) {
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  return {cols == 0 ? 0 : tensor.size() / cols, cols};
}

// The floats of a Conv1D in an HF directory are [inputs, outputs].
bool lies_inputs_first(const Plan& plan, const PlannedTensor& t, const Weight& weight) {
  return t.role && t.shape.size() == 2 && plan.checkpoint->format() == Format::huggingface &&
         std::holds_alternative<FloatTensor>(weight) && find_tensor(*plan.arch, *t.role)->transposed;
}

bool convertible(DType type) { return info(type).floating; }

}  // namespace

void check_finite(MatrixView w, const std::string& tensor, int64_t first_row) {
  if (const auto bad = find_not_finite(w))
    throw Error({.what = "the weights hold a value that is not finite",
                 .where = fmt::format("{} at row {}, column {}", tensor, first_row + bad->row, bad->col),
                 .expected = "finite numbers",
                 .got = fmt::format("{}", w(bad->row, bad->col)),
                 .remedy = "the checkpoint is damaged; fetch it again or ask its author"});
}

Matrix take_rows(Matrix m, std::span<const int64_t> order) {
  if (order.empty()) return m;
  if (m.rows() == 1) {  // a bias: one value per row of the matrix it belongs to
    Matrix out(1, m.cols());
    for (int64_t c = 0; c < m.cols(); ++c) out(0, c) = m(0, order[static_cast<size_t>(c)]);
    return out;
  }
  Matrix out(m.rows(), m.cols());
  for (int64_t r = 0; r < m.rows(); ++r) std::copy_n(m.row(order[static_cast<size_t>(r)]), m.cols(), out.row(r));
  return out;
}

Matrix put_rows_back(Matrix m, std::span<const int64_t> order) {
  if (order.empty()) return m;
  Matrix out(m.rows(), m.cols());
  for (int64_t r = 0; r < m.rows(); ++r) std::copy_n(m.row(r), m.cols(), out.row(order[static_cast<size_t>(r)]));
  return out;
}

Matrix values_of(const Weight& weight, const std::string& where) {
  if (const auto* q = std::get_if<Quantized>(&weight)) return dequantize(*q);
  const FloatTensor& tensor = std::get<FloatTensor>(weight);
  if (info(tensor.dtype).bits % 8 != 0 || tensor.dtype == DType::c64)
    throw Error(
        {.what = "numbers of this type are not read", .where = where, .got = std::string(info(tensor.dtype).name)});
  return to_matrix_in_pieces(tensor, stored_shape(tensor));
}

Matrix load_source(const Plan& plan, const PlannedTensor& t) {
  if (t.source.empty()) {
    Matrix m(1, t.size());
    std::copy(t.made.begin(), t.made.end(), m.data());
    return m;
  }
  const Weight weight = plan.checkpoint->load(t.source);
  if (const auto* tensor = std::get_if<FloatTensor>(&weight); tensor && !convertible(tensor->dtype))
    throw Error({.what = "the tensor does not hold real numbers",
                 .where = t.source,
                 .expected = "a float type",
                 .got = std::string(info(tensor->dtype).name)});
  Matrix m = values_of(weight, t.source);
  check_finite(m, t.source);
  bool turn = t.transposed;
  if (const auto edit = plan.edits.find(t.source); edit != plan.edits.end()) {
    if (lies_inputs_first(plan, t, weight)) {
      m = transposed(m);
      turn = !turn;
    }
    edit->second(m);
    check_finite(m, t.source);
  }
  if (turn) m = transposed(m);
  if (t.added != 0)
    for (float& x : m.values()) x += t.added;
  return take_rows(std::move(m), t.row_order);
}

std::optional<std::span<const std::byte>> stored_bytes(const Plan& plan, const PlannedTensor& t) {
  if (t.source.empty() || t.transposed || t.added != 0 || !t.row_order.empty() || plan.edits.contains(t.source))
    return std::nullopt;
  if (plan.checkpoint->grid_of_weight(t.source)) return std::nullopt;
  const Weight weight = plan.checkpoint->load(t.source);
  if (!std::holds_alternative<FloatTensor>(weight)) return std::nullopt;
  const auto& tensor = std::get<FloatTensor>(weight);
  if (tensor.dtype != std::get<DType>(t.target)) return std::nullopt;
  if (!convertible(tensor.dtype)) return tensor.bytes;
  const Shape shape = stored_shape(tensor);
  const auto row_bytes = static_cast<size_t>(shape.cols * info(tensor.dtype).bits / 8);
  const int64_t piece = std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(1, shape.cols));
  for (int64_t first = 0; first < shape.rows; first += piece) {
    const int64_t rows = std::min(piece, shape.rows - first);
    Matrix m(rows, shape.cols);
    to_f32(tensor.dtype,
           tensor.bytes.subspan(static_cast<size_t>(first) * row_bytes, static_cast<size_t>(rows) * row_bytes),
           m.values());
    check_finite(m, t.source, first);
  }
  return tensor.bytes;
}

std::vector<std::byte> plain_bytes(const Matrix& m, const PlannedTensor& t) {
  const DType type = std::get<DType>(t.target);
  std::vector<std::byte> out(static_cast<size_t>(t.size() * info(type).bits / 8));
  from_f32(type, m.values(), out);
  if (type == DType::f16) {
    for (const float x : m.values())
      if (std::fabs(x) >= 65520.0f)
        throw Error({.what = "a weight is too large for f16",
                     .where = t.name,
                     .expected = "at most 65504",
                     .got = fmt::format("{}", x),
                     .remedy = "keep this tensor in bf16: --tensor 'NAME=bf16', or --dtype bf16"});
  }
  return out;
}

}  // namespace pare
