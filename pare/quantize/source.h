// Weights of the checkpoint as the output wants them: rows in its order, [out, in], checked to be finite.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "pare/quantize/plan.h"

namespace pare {

// Throws Error naming the tensor and the first place that holds NaN or infinity; `w` begins at the tensor's
// `first_row`.
void check_finite(MatrixView w, const std::string& tensor, int64_t first_row = 0);

// Any weight as f32, higher ranks folded into rows; columns of a quantized one in their original places, mapped pages
// given back on the way. Throws Error naming `where` on numbers that are not real.
Matrix values_of(const Weight& weight, const std::string& where);
// The planned tensor's source as f32; mapped pages are given back on the way.
Matrix load_source(const Plan& plan, const PlannedTensor& t);
// The stored bytes of a tensor that is kept exactly as it is, still mapped; nullopt where something changes. Throws
// Error as check_finite.
std::optional<std::span<const std::byte>> stored_bytes(const Plan& plan, const PlannedTensor& t);
// Values as plain numbers of the planned type. Throws Error on what f16 cannot hold.
std::vector<std::byte> plain_bytes(const Matrix& m, const PlannedTensor& t);

// Row r of the result is row order[r] of m (empty order: m itself), and back.
Matrix take_rows(Matrix m, std::span<const int64_t> order);
Matrix put_rows_back(Matrix m, std::span<const int64_t> order);

}  // namespace pare
