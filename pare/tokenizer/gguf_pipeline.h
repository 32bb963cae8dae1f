#pragma once

#include <string>

#include "pare/base/metadata.h"
#include "pare/tokenizer/pipeline.h"

namespace pare::tok {

PipelineParts pipeline_from_metadata(const Metadata& metadata, const std::string& where);

}  // namespace pare::tok
