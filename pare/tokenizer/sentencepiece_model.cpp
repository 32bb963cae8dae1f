#include "pare/tokenizer/sentencepiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "pare/base/byte_reader.h"
#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/utf8.h"

namespace pare::tok {
namespace {

// One message of the protobuf wire format, field by field:
//   field = varint key (number << 3 | wire type), then 0: varint | 1: 8 bytes | 2: varint length, bytes | 5: 4 bytes
class Message {
 public:
  Message(std::span<const std::byte> bytes, const std::string& where) : reader_(bytes, where), where_(where) {}

  struct Field {
    uint64_t number = 0;
    int wire = 0;
    uint64_t value = 0;                // varints and fixed numbers
    std::span<const std::byte> bytes;  // wire type 2
    std::string text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
    bool flag() const { return value != 0; }
    int64_t integer() const { return static_cast<int32_t>(static_cast<uint32_t>(value)); }
    float real() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }
  };
  bool next(Field& field) {
    if (reader_.left() == 0) return false;
    const uint64_t key = varint();
    field = {.number = key >> 3, .wire = static_cast<int>(key & 7), .value = 0, .bytes = {}};
    switch (field.wire) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = reader_.read<uint64_t>("a field");
        break;
      case 2:
        field.bytes = reader_.take(varint(), "a field");
        break;
      case 5:
        field.value = reader_.read<uint32_t>("a field");
        break;
      default:
        broken("an unknown wire type");
    }
    return true;
  }
  [[noreturn]] void broken(const std::string& got) const {
    throw Error({.what = "not a SentencePiece model",
                 .where = fmt::format("{} at byte {}", where_, reader_.offset()),
                 .got = got,
                 .remedy = "if it is a tiktoken file, as Llama 3 ships, fetch the model's tokenizer.json instead"});
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = reader_.read<uint8_t>("a number");
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    broken("a number longer than 64 bits");
  }
  ByteReader reader_;
  const std::string& where_;
};

SentencePieceModel::Piece parse_piece(std::span<const std::byte> bytes, const std::string& where) {
  SentencePieceModel::Piece piece;
  Message message(bytes, where);
  uint64_t type = 1;
  for (Message::Field f; message.next(f);) {
    if (f.number == 1 && f.wire == 2) piece.text = f.text();
    if (f.number == 2 && f.wire == 5) piece.score = f.real();
    if (f.number == 3 && f.wire == 0) type = f.value;
  }
  if (type < 1 || type > 6) message.broken(fmt::format("a piece of type {}", type));
  if (!is_utf8(piece.text) || std::isnan(piece.score)) message.broken("a piece with a broken text or score");
  constexpr Kind kKinds[] = {Kind::normal, Kind::unknown, Kind::control, Kind::user_defined, Kind::unused, Kind::byte};
  piece.kind = kKinds[type - 1];
  return piece;
}

void parse_trainer(std::span<const std::byte> bytes, const std::string& where, SentencePieceModel& model) {
  Message message(bytes, where);
  for (Message::Field f; message.next(f);) {
    if (f.wire != 0) continue;
    if (f.number == 3 && f.value >= 1 && f.value <= 4) model.type = static_cast<SentencePieceModel::Type>(f.value);
    if (f.number == 35) model.byte_fallback = f.flag();
    if (f.number == 40) model.unk_id = f.integer();
    if (f.number == 41) model.bos_id = f.integer();
    if (f.number == 42) model.eos_id = f.integer();
    if (f.number == 43) model.pad_id = f.integer();
  }
}

void parse_normalizer(std::span<const std::byte> bytes, const std::string& where, SentencePieceModel& model) {
  Message message(bytes, where);
  for (Message::Field f; message.next(f);) {
    if (f.number == 1 && f.wire == 2) model.normalizer = f.text();
    if (f.number == 2 && f.wire == 2) model.has_normalization = !f.bytes.empty();
    if (f.number == 3 && f.wire == 0) model.dummy_prefix = f.flag();
    if (f.number == 4 && f.wire == 0) model.remove_extra_spaces = f.flag();
    if (f.number == 5 && f.wire == 0) model.escape_spaces = f.flag();
  }
}

}  // namespace

SentencePieceModel SentencePieceModel::parse(std::span<const std::byte> bytes, const std::string& where) {
  SentencePieceModel model;
  Message message(bytes, where);
  for (Message::Field f; message.next(f);) {
    if (f.wire != 2) continue;
    if (f.number == 1) model.pieces.push_back(parse_piece(f.bytes, where));
    if (f.number == 2) parse_trainer(f.bytes, where, model);
    if (f.number == 3) parse_normalizer(f.bytes, where, model);
  }
  if (model.pieces.empty()) message.broken("no pieces");
  return model;
}

SentencePieceModel SentencePieceModel::read(const std::filesystem::path& path) {
  return parse(MappedFile::open(path)->bytes(), path.string());
}

}  // namespace pare::tok
