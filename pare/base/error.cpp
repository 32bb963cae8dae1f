#include "pare/base/error.h"

namespace pare {

Error::Error(ErrorInfo info) : info_(std::move(info)) {
  if (!info_.where.empty()) text_ = info_.where + ": ";
  text_ += info_.what;
  if (!info_.expected.empty()) text_ += "; expected " + info_.expected;
  if (!info_.got.empty()) text_ += (info_.expected.empty() ? "; got " : ", got ") + info_.got;
  if (!info_.remedy.empty()) text_ += "; " + info_.remedy;
}

}  // namespace pare
