#include "pare/container/container.h"

#include <algorithm>

#include "pare/base/error.h"
#include "pare/container/containers.h"
#include "pare/container/hf_format.h"

namespace pare {

std::span<const Container> all_containers() {
  static const std::vector<Container> kAll = [] {
    std::vector<Container> all = hf_containers();
    all.push_back(kGgufContainer);
    return all;
  }();
  return kAll;
}

const Container& find_container(std::string_view name) {
  const auto all = all_containers();
  const auto at = std::find_if(all.begin(), all.end(), [&](const Container& c) { return c.name == name; });
  if (at != all.end()) return *at;
  std::string known;
  for (const Container& c : all) known += (known.empty() ? "" : ", ") + std::string(c.name);
  throw Error({.what = "unknown container",
               .expected = "one of " + known,
               .got = std::string(name),
               .remedy = "choose one of these",
               .code = ExitCode::usage});
}

}  // namespace pare
