#include "pare/base/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "pare/base/mapped_file.h"

namespace pare {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) { EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr); }
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) { EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->context, digest, &size);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_of_file(const std::filesystem::path& path) {
  constexpr size_t kChunk = size_t{16} << 20;  // pages are given back as we go: hashing must not fill memory
  const auto file = MappedFile::open(path);
  Sha256 hash;
  for (auto rest = file->bytes(); !rest.empty();) {
    const auto part = rest.first(std::min(kChunk, rest.size()));
    hash.update(part);
    forget_pages(part);
    rest = rest.subspan(part.size());
  }
  return hash.hex();
}

}  // namespace pare
