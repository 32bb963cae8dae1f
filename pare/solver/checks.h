// Inside solver/ only: what every solver asks of its weights.
#pragma once

#include "pare/tensor/matrix.h"

namespace pare {

// Throws Error when a weight is NaN or infinite.
void require_finite_weights(MatrixView w);

}  // namespace pare
