// The configuration of a GGUF file, from its keys and from what its tensors are called.
#pragma once

#include "pare/model/config.h"

namespace pare {

Config config_from_gguf(const Checkpoint& checkpoint);  // not yet checked for sense

}  // namespace pare
