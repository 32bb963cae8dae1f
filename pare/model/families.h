// Inside model/ only: the table of architectures, in files by kinship.
#pragma once

#include <vector>

#include "pare/model/arch.h"
#include "pare/model/config_keys.h"

namespace pare {

std::vector<Arch> llama_family();  // pre-norm, rotary, separate or fused projections, mostly gated
std::vector<Arch> moe_family();    // with experts, or latent attention
std::vector<Arch> gpt_family();    // what came before

void read_granite(const ConfigKeys& keys, Config& config);  // its factors

void read_rope_layers(const ConfigKeys& keys, Config& config);  // which layers rotate: all but every fourth, or a list

}  // namespace pare
