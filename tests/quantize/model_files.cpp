#include "tests/quantize/model_files.h"

#include <fstream>

#include "pare/base/float_formats.h"
#include "pare/base/json.h"
#include "pare/base/mapped_file.h"

namespace pare::test {

namespace fs = std::filesystem;

Settings quick_settings(std::string_view recipe) {
  Settings s;
  s.recipe = find_recipe(recipe);
  s.calibration.samples = 2;
  s.calibration.length = 64;
  return s;
}

void copy_model(const fs::path& to, const std::function<void(Json&)>& edit) {
  fs::create_directories(to);
  for (const auto& entry : fs::directory_iterator(demo_model()))
    fs::copy_file(entry.path(), to / entry.path().filename(), fs::copy_options::overwrite_existing);
  for (const auto& entry : fs::directory_iterator(to))
    fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
  if (!edit) return;
  Json config = read_json_file((to / "config.json").string());
  edit(config);
  std::ofstream(to / "config.json") << config.dump(2);
}

void poke_bf16(const fs::path& directory, const std::string& tensor, int64_t element, float value) {
  const fs::path path = directory / "model.safetensors";
  uint64_t header_bytes = 0;
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.read(reinterpret_cast<char*>(&header_bytes), 8);
  std::string header(header_bytes, ' ');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const auto begin = Json::parse(header).at(tensor).at("data_offsets").at(0).get<int64_t>();
  const uint16_t bits = f32_to_bf16(value);
  file.seekp(static_cast<std::streamoff>(8 + header_bytes) + begin + 2 * element);
  file.write(reinterpret_cast<const char*>(&bits), 2);
}

Plan plan_for(const fs::path& model, const Settings& settings) { return make_plan(Checkpoint::open(model), settings); }

ErrorInfo error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.info();
  }
  ADD_FAILURE() << "no Error was thrown";
  return {};
}

}  // namespace pare::test
