// The rows of the table of containers, one pair of files each.
#pragma once

#include "pare/container/container.h"

namespace pare {

extern const Container kGptqContainer, kGptqV2Container, kSafetensorsContainer, kGgufContainer;

}  // namespace pare
