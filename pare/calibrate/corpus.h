// Calibration text: what ships with Pare, or the user's own file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pare {

struct Corpus {
  std::string name;                    // "built-in" or the file's path
  std::vector<std::string> documents;  // UTF-8, none empty
  std::string sha256;                  // of the documents' bytes, each followed by a zero byte
};

// The text of builtin_text/, compiled into the library: nine domains, passages as documents.
Corpus builtin_corpus();

// .txt (one document), .jsonl (objects with "text" or "content", or strings), .json (an array of those), each also as
// .gz or .zst. Throws Error when the file holds no text or is not UTF-8.
Corpus read_corpus(const std::filesystem::path& path);

}  // namespace pare
