// Encoding speed on one thread. The documents: shared/testdata/text/* and builtin_text/*, in the order of their names,
// cut at the first line end after 4096 bytes (10 MB in all). bench/tokenizer_peer.py times the reference on the same
// ones and prints the ratios.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "pare/base/mapped_file.h"
#include "pare/tokenizer/tokenizer.h"

namespace {

namespace fs = std::filesystem;

fs::path source() { return PARE_SOURCE_DIR; }
fs::path shared() {
  const char* root = std::getenv("PARE_SHARED");
  return root ? fs::path(root) : source() / ".." / "shared";
}

std::vector<std::string> documents(size_t at_least) {
  std::vector<std::string> all;
  for (const fs::path& folder : {shared() / "testdata/text", source() / "builtin_text"}) {
    if (!fs::exists(folder)) continue;
    std::vector<fs::path> files(fs::directory_iterator(folder), {});
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      const std::string text = pare::read_text_file(file);
      for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', std::min(at + at_least, text.size())), text.size() - 1) + 1;
        all.push_back(text.substr(at, end - at));
        at = end;
      }
    }
  }
  return all;
}

void encode(benchmark::State& state, const fs::path& directory, size_t document_bytes) {
  if (!fs::exists(directory)) return state.SkipWithError("tokenizer not found");
  const auto tokenizer = pare::Tokenizer::from_directory(directory);
  const auto texts = documents(document_bytes);
  size_t bytes = 0, ids = 0;
  for (const std::string& text : texts) bytes += text.size();
  for (auto _ : state) {
    ids = 0;
    for (const std::string& text : texts) ids += tokenizer->encode(text, {.add_special = false}).size();
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
  state.counters["ids"] = static_cast<double>(ids);
}

void decode(benchmark::State& state, const fs::path& directory) {
  if (!fs::exists(directory)) return state.SkipWithError("tokenizer not found");
  const auto tokenizer = pare::Tokenizer::from_directory(directory);
  std::vector<std::vector<int32_t>> all;
  size_t bytes = 0;
  for (const std::string& text : documents(4096)) {
    all.push_back(tokenizer->encode(text));
    bytes += text.size();
  }
  for (auto _ : state)
    for (const auto& ids : all) benchmark::DoNotOptimize(tokenizer->decode(ids));
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
}

// One word without a place to cut: the time per byte must not grow with its length.
void encode_word(benchmark::State& state, const fs::path& directory) {
  if (!fs::exists(directory)) return state.SkipWithError("tokenizer not found");
  const auto tokenizer = pare::Tokenizer::from_directory(directory);
  std::string word;
  uint32_t random = 1;
  while (word.size() < static_cast<size_t>(state.range(0))) {
    random = random * 1664525 + 1013904223;
    word += static_cast<char>('a' + (random >> 24) % 26);
  }
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->encode(word));
  state.SetBytesProcessed(state.range(0) * state.iterations());
}

void load(benchmark::State& state, const fs::path& directory) {
  if (!fs::exists(directory)) return state.SkipWithError("tokenizer not found");
  for (auto _ : state) benchmark::DoNotOptimize(pare::Tokenizer::from_directory(directory));
}

const int registered = [] {
  const auto add = [](const std::string& name, const fs::path& directory) {
    const auto unit = benchmark::kMillisecond;
    benchmark::RegisterBenchmark(("encode/" + name).c_str(), encode, directory, 4096)->Unit(unit);
    benchmark::RegisterBenchmark(("encode_files/" + name).c_str(), encode, directory, size_t{1} << 30)->Unit(unit);
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), decode, directory)->Unit(unit);
    benchmark::RegisterBenchmark(("word/" + name).c_str(), encode_word, directory)
        ->RangeMultiplier(4)
        ->Range(1 << 16, 1 << 22)
        ->Unit(unit);
    benchmark::RegisterBenchmark(("load/" + name).c_str(), load, directory)->Unit(unit);
  };
  const fs::path tokenizers = shared() / "testdata/tokenizers";
  add("gpt2", tokenizers / "gpt2");
  add("llama-3", tokenizers / "llama-3");
  add("llama-2", tokenizers / "llama-2");
  add("qwen2", tokenizers / "qwen2-0.5b");
  add("demo", source() / "demo_model");
  return 0;
}();

}  // namespace

BENCHMARK_MAIN();
