#include "pare/container/container.h"

#include <algorithm>
#include <array>

#include "pare/base/error.h"
#include "pare/container/containers.h"

namespace pare {

std::span<const Container> all_containers() {
  static const std::array kAll{kGptqContainer, kGptqV2Container, kSafetensorsContainer, kGgufContainer};
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
