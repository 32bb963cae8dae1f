#include "pare/calibrate/corpus.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <string_view>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "pare/base/sha256.h"
#include "pare/base/utf8.h"
#include "pare/calibrate/builtin_text.h"

namespace pare {
namespace {

constexpr size_t kTextLimit = size_t{1} << 30;  // of unpacked text: compressed files are not trusted

[[noreturn]] void throw_damaged(const std::string& where, const char* format) {
  throw Error({.what = fmt::format("the {} stream is damaged or truncated", format),
               .where = where,
               .remedy = "pack the file again"});
}
void check_limit(size_t size, const std::string& where) {
  if (size > kTextLimit)
    throw Error({.what = "the calibration text is too large",
                 .where = where,
                 .expected = fmt::format("at most {} bytes of text", kTextLimit),
                 .remedy = "a few megabytes are plenty; cut it"});
}

std::string gunzip(std::string_view packed, const std::string& where) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) throw_damaged(where, "gzip");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::vector<char> chunk(size_t{1} << 18);
  for (int status = Z_OK; status != Z_STREAM_END;) {
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    status = inflate(&stream, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END) throw_damaged(where, "gzip");
    out.append(chunk.data(), chunk.size() - stream.avail_out);
    check_limit(out.size(), where);
    if (status == Z_STREAM_END && stream.avail_in > 0) status = inflateReset(&stream);  // members in a row
  }
  return out;
}

std::string unzstd(std::string_view packed, const std::string& where) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  std::string out;
  std::vector<char> chunk(ZSTD_DStreamOutSize());
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  size_t hint = 1;
  while (in.pos < in.size || hint != 0) {
    ZSTD_outBuffer to{chunk.data(), chunk.size(), 0};
    hint = ZSTD_decompressStream(context.get(), &to, &in);
    if (ZSTD_isError(hint) || (to.pos == 0 && in.pos == in.size && hint != 0)) throw_damaged(where, "zstd");
    out.append(chunk.data(), to.pos);
    check_limit(out.size(), where);
  }
  return out;
}

std::vector<std::string> passages(std::string_view text) {
  std::vector<std::string> out;
  std::string current;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line == "---") {
      if (!current.empty()) out.push_back(std::move(current));
      current.clear();
    } else {
      current.append(line).push_back('\n');
    }
  }
  if (!current.empty()) out.push_back(std::move(current));
  return out;
}

void add_json_text(const Json& item, const std::string& where, std::vector<std::string>& out) {
  if (item.is_string()) {
    out.push_back(item.get<std::string>());
    return;
  }
  for (const char* key : {"text", "content"})
    if (item.is_object() && item.contains(key) && item[key].is_string()) {
      out.push_back(item[key].get<std::string>());
      return;
    }
  throw Error({.what = "a calibration document has no text",
               .where = where,
               .expected = "a string, or an object with \"text\" or \"content\"",
               .got = item.dump().substr(0, 80)});
}

std::vector<std::string> documents_of(const std::string& name, std::string_view text, const std::string& where) {
  std::vector<std::string> out;
  if (name.ends_with(".jsonl")) {
    int64_t number = 0;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string place = fmt::format("{} line {}", where, number);
      add_json_text(parse_json(line, place), place, out);
    }
  } else if (name.ends_with(".json")) {
    const Json list = parse_json(text, where);
    if (!list.is_array()) throw Error({.what = "not a list of documents", .where = where, .expected = "a JSON array"});
    for (const Json& item : list) add_json_text(item, where, out);
  } else {
    out.emplace_back(text);
  }
  return out;
}

void finish(Corpus& corpus) {
  std::erase_if(corpus.documents,
                [](const std::string& d) { return d.find_first_not_of(" \t\r\n") == std::string::npos; });
  if (corpus.documents.empty())
    throw Error({.what = "the calibration text is empty",
                 .where = corpus.name,
                 .remedy = "give a file with text, or leave --calib-data away to use the built-in text"});
  Sha256 hash;
  for (const std::string& d : corpus.documents) hash.update(std::as_bytes(std::span(d.c_str(), d.size() + 1)));
  corpus.sha256 = hash.hex();
}

}  // namespace

Corpus builtin_corpus() {
  Corpus corpus{.name = "built-in", .documents = {}, .sha256 = {}};
  for (const std::string_view text : builtin_texts())
    for (std::string& passage : passages(text)) corpus.documents.push_back(std::move(passage));
  finish(corpus);
  return corpus;
}

Corpus read_corpus(const std::filesystem::path& path) {
  const std::string where = path.string();
  std::string name = path.filename().string(), text = read_text_file(path, kTextLimit);
  if (name.ends_with(".gz")) {
    text = gunzip(text, where);
    name.resize(name.size() - 3);
  } else if (name.ends_with(".zst")) {
    text = unzstd(text, where);
    name.resize(name.size() - 4);
  }
  if (const size_t bad = first_invalid_utf8(text); bad != text.size())
    throw Error({.what = "the calibration text is not UTF-8",
                 .where = fmt::format("{} at byte {}", where, bad),
                 .remedy = "convert it, for example with iconv -t UTF-8"});
  Corpus corpus{.name = where, .documents = documents_of(name, text, where), .sha256 = {}};
  finish(corpus);
  return corpus;
}

}  // namespace pare
