// config.json of a model that comes without one: the way back from GGUF keys.
#pragma once

#include "pare/model/arch.h"

namespace pare {

// `dtype` as config.json spells it: "float16". Throws Error for an architecture or a rope scaling that is not spelt
// here, saying which.
Json hf_config(const Config& config, const Arch& arch, const std::string& dtype);

}  // namespace pare
