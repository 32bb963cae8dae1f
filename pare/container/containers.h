// The rows of the table of containers that are no Hugging Face directories; those are in hf_format.h.
#pragma once

#include "pare/container/container.h"

namespace pare {

extern const Container kGgufContainer;

}  // namespace pare
