#include "pare/grid/lattice.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

namespace pare {
namespace {

// The codebooks, in compact form: a point is a number in base `digits`, first column lowest. Points ascend; written is
// by how much each exceeds the one before, less one (the first counts from -1), in digits of base 32, lowest first.
// Letters 0…31 end a number, letters 32…63 go on. Source: formats/iq_grids.txt.
constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-";
constexpr std::string_view kIQ2_XXS =
    "01111115131115531515B7153DTBB1HZ1P1591513B915B513BDJ19N1HTH5315B3151LNNt19b21597HB53D5BH79l19n15B3BJf1VX1DZ215"
    "HRP3Z2j1h115LF71n17l11l215HDd1RJ-2NBl1z3p1155315573915HHR73N7N79T5BZ1FL9x1n215H3n1f139t1VH5351Z15NPj1b2l21Nf2b"
    "1f195Vx1x1j25HNTd1t1TZ13r21j1b4r615JRRBB-1d2153DHZ1VX1LJHb1n2t2f25B5j1Ld1v1n1J9t2p5h1n4X1LTf2-2d8l1";
constexpr std::string_view kIQ2_XS =
    "01111111111113111111131511131319111111111151113155315H1113159153D7J11111113151113113915H11131591597R15D31RN111"
    "111535155BH7115HR5JH5h13911111113151113157115H111315915HB1D113HHZ11113159131B5R15Hr1BLl1151FBJL3j1Z2f111111115"
    "915HH915H5FVJX1N315F1r1R9VBFx13519LJDv1BNBb131J111111131511111153515H111315915H3F7151D1r11113131915HBF15B5h197"
    "L5j115H377X19J5FVj21113155315HR153D1p1Tn111597H9H75l15d1VL7BF7X1R91j3N15HB7BJ1b3DTFDh2H3h1t2p1n1-1X17X11113157"
    "115H1L11113H95b1HZ11F531511DHFJTj1Jb1R5FL91L7-2X1579315HDFNJRf2JJ3P55-1b11h1v2d1b1x1VZ113197j1j15X1313JRHZ1d1l"
    "4JJ913l155r11j11b1F";
constexpr std::string_view kIQ2_S =
    "0111111111111311111113111111131533111111113151113111131315115151113157111113D333771111111311111111111111151111"
    "313151111111113131111111315111315911113D31315915H11131111331111111131537D115111373131597H917319X1B111111131131"
    "11311111113113313151111111111113111111131511131F1313515351F15H11131111313111111131511131591111111315111315915H"
    "31315915HP11111313711131591N111315915FL95HDd11113111133115117573D115115711515915H7B3135N1F3111131315111315915H"
    "31315915D3R15HFb1351F15PH115v1LBRB1J1111111111131111111111151531315111311111151111111315111315915111553131591N"
    "11111111111131111111315111315911111113151113157115H111315915HL5131111315111315B5H111315915HDD15Hr1111311111113"
    "111111131511131F1111111315111315915H31315915F1R1111111315111315915H111315915HR15D3r111131591579R15Hr1Ff1J31131"
    "1131531315B5H111315915HFD5HDV731315915HR15H7FDFX2F15d1JBPp2h171113131351511137351F13111131511131F15F13311F15j1"
    "111111137111315915H111315915H7J15F1r1351F15b171NLp1L1BH713111155111315915H351F157b115Hn13111315915HDD15Hf137VF"
    "X115D3p11X13f3H33375115b15RLX15B31T31F315HX1D5Fb3p1Fn1j1JR1913Z1J";
constexpr std::string_view kIQ3_XXS =
    "0114130168O1314163216AB71146161395D3501AY1IJ4AB135IFo1MJ31KDF14161411A0N1661k114166X151D8CFA3Y1d13HIBi2DV16141"
    "328U112166Q30716501C0CJ63h13W1DNJ9Qa21AMR6161KC451D8A1Q14CKFEHy1EI55BQUHKd1KJAD1B3i2JE0F5GTUa1AW1DKi221Dn1MM75"
    "FMUDV7e1SA3Y17Mk2h1Dn1F1DSVTa1Z15b2W1a1m1d1Dn1110HFh19f1Q4LCDKW1FU1HZ2";
constexpr std::string_view kIQ3_S =
    "00021000111035412111416220001303223136C345031022232352111C275321612531C132A3125525E91B134531E4A21DGE611B134C3J"
    "0013011101621D128501213462561D51921035529296220255034G5A141C16313K62561Ec132C1Q1416B3G57011101112130161121C021"
    "21523223256N229146193923123814165DA582623O2648C0AC7149R3J3C1A4P61112611412195711641CF9319591BO6341308135D75436"
    "G53C61A499CIIV1C1AY135532266F9411654553J144394E25B414163Y11HA0OB19W1OGJN4AA5O535D322B5411468V58945CM40EC4B552B"
    "9BZ1BI1s1V1Ds111B1KFF6SLH5A457B4Eq1DED2OJKQe11q13281B1B5F6AE1R23526GON2DL354Nf1FVMc1";
constexpr std::string_view kIQ1 =
    "0111112413145117413144131305111045313131110651174131441314554311311221131A117555330E55510071171330010011111118"
    "21111001D3B1511120315513A1314413145374131441314513405702513B1115413144131455224111144131901340515313102B114251"
    "1111113135300000011377151F117441311131751175314010234200111001311531201001102313110011111111004000010110011100"
    "110010010011510070011331001112000210100522173B3751111311001115519D11312600131001003372011331866161111113315532"
    "9131441111455224131441111451356035111100744155411241314531554112413147115700131115751322B555131310231191201111"
    "11541455554054137913144131451941319131721359131511154414041319131453154131441314537B3111111F323301113100113151"
    "1110010411111311400A51175913338495B285111100401111311114052013110011331100110100002100130013100104111224011113"
    "1111200101311323305117523464131311155111552020201311333100001111025131003111FF1151133D951001313113131310015171"
    "51203151001100001300111001100000000110013151001133135131171311001318411203805100002211110010001000001000011511"
    "10012103100001100000101100110000000100000000001000001102000100002100110001002101010000000220000000000000110231"
    "0000123210004001131364111100001100641111352013110015510011000000001100122221000057263030151022000311116210011B"
    "711575300111112C751113150215222015023421531B31A037002C537E01021311111111001001170211000011135111201D0011010012"
    "100161012010210044544001311110001031211331001212E15591315554741535111102003100113320445102B30C1313113026621531"
    "3191314401115413144131451115513111000411524115413144131A135413144131C3B1623113D3B53135110213100104001111111117"
    "D3155130032013245635131441311251352113144131404117511111131199154131441314511C13144131453005531511704511155111"
    "13111111134010013171511311155135711111171571A21133173711000010017150013513110010012220110011000000001100122130"
    "0001001111115321415102010151403020071159155331102308531571111111001131111110013102115113137887111313B5100C1314"
    "413145111A131441314221110E122111194121C310633145315413144131G55152011120005R111117131510015311001311F532127122"
    "10021B330121131319131A111A13144131473225733131A4C1319131A11C13144131";

LatticeBook make_book(std::string_view text, int dims, std::initializer_list<float> magnitudes) {
  LatticeBook book;
  book.dims = dims;
  book.digits = static_cast<int>(magnitudes.size());
  std::copy(magnitudes.begin(), magnitudes.end(), book.magnitude);
  book.halves = 1;
  for (int j = 0; j < dims / 2; ++j) book.halves *= book.digits;
  book.point.assign(static_cast<size_t>(book.halves * book.halves), -1);
  int number = -1, step = 0, shift = 0;
  for (const char letter : text) {
    const auto digit = static_cast<int>(kLetters.find(letter));
    step |= (digit & 31) << shift;
    shift += 5;
    if (digit >= 32) continue;
    number += step + 1;
    step = shift = 0;
    book.point[static_cast<size_t>(number)] = static_cast<int16_t>(book.points++);
    book.lower.push_back(static_cast<uint8_t>(number % book.halves));
    book.upper.push_back(static_cast<uint8_t>(number / book.halves));
  }
  for (int h = 0, at = 0; h <= book.halves; ++h) {
    while (at < book.points && book.upper[static_cast<size_t>(at)] < h) ++at;
    book.begins.push_back(at);
  }
  for (int p = 0; p < book.points; ++p)
    for (int j = 0; j < dims; ++j) book.value.push_back(book.magnitude[book.digit(p, j)]);
  return book;
}

const LatticeBook& book_of(LatticeSpec::Type type) {
  static const LatticeBook iq1 = make_book(kIQ1, 8, {-1, 0, 1});
  static const LatticeBook iq2_xxs = make_book(kIQ2_XXS, 8, {8, 25, 43});
  static const LatticeBook iq2_xs = make_book(kIQ2_XS, 8, {8, 25, 43});
  static const LatticeBook iq2_s = make_book(kIQ2_S, 8, {8, 25, 43});
  static const LatticeBook iq3_xxs = make_book(kIQ3_XXS, 4, {4, 12, 20, 28, 36, 44, 52, 62});
  static const LatticeBook iq3_s = make_book(kIQ3_S, 4, {1, 3, 5, 7, 9, 11, 13, 15});
  switch (type) {
    case LatticeSpec::Type::iq1_s:
    case LatticeSpec::Type::iq1_m:
      return iq1;
    case LatticeSpec::Type::iq2_xxs:
      return iq2_xxs;
    case LatticeSpec::Type::iq2_xs:
      return iq2_xs;
    case LatticeSpec::Type::iq2_s:
      return iq2_s;
    case LatticeSpec::Type::iq3_xxs:
      return iq3_xxs;
    case LatticeSpec::Type::iq3_s:
      break;
  }
  return iq3_s;
}

using L = LatticeSpec::Type;
using Signs = LatticeTraits::Signs;
using Levels = CodebookSpec::Levels;
constexpr LatticeTraits kLattices[] = {
    {L::iq1_s, "iq1_s", 1.5625, 32, 7, 1, 8, Signs::shift, true, Levels::iq1},
    {L::iq1_m, "iq1_m", 1.75, 16, 7, 1, 8, Signs::shift, false, Levels::iq1},
    {L::iq2_xxs, "iq2_xxs", 2.0625, 32, 15, 0.125f, 8, Signs::even, false, Levels::iq2},
    {L::iq2_xs, "iq2_xs", 2.3125, 16, 15, 0.125f, 8, Signs::even, false, Levels::iq2},
    {L::iq2_s, "iq2_s", 2.5625, 16, 15, 0.125f, 8, Signs::free, false, Levels::iq2},
    {L::iq3_xxs, "iq3_xxs", 3.0625, 32, 15, 0.25f, 8, Signs::even, false, Levels::iq3_xxs},
    {L::iq3_s, "iq3_s", 3.4375, 32, 15, 1, 4, Signs::free, false, Levels::iq3_s},
};

int digit_of(const LatticeTraits& t, int digits, uint8_t code) {
  if (t.signs == Signs::shift) return code / 2;
  return code >= digits ? code - digits : digits - 1 - code;
}
bool is_minus(const LatticeTraits& t, int digits, uint8_t code) {
  return t.signs == Signs::shift ? code % 2 == 0 : code < digits;
}

// A way to fill a step: points, signs, and its squared distance.
struct Way {
  float error = 0;
  std::array<int, 2> points = {};
  uint32_t minus = 0;
};

// The `most` nearest points of one book to dims numbers, by magnitude.
std::vector<Way> nearest_in_book(const LatticeBook& book, const float* x, int most) {
  std::vector<Way> ways;
  for (int p = 0; p < book.points; ++p) {
    Way way{0, {p, 0}, 0};
    for (int j = 0; j < book.dims; ++j) {
      const float miss = x[j] - book.value[static_cast<size_t>(p * book.dims + j)];
      way.error += miss * miss;
    }
    ways.push_back(way);
  }
  const auto kept = std::min<std::ptrdiff_t>(most, std::ssize(ways));
  std::partial_sort(ways.begin(), ways.begin() + kept, ways.end(),
                    [](const Way& a, const Way& b) { return a.error < b.error; });
  ways.resize(static_cast<size_t>(kept));
  return ways;
}

// Ways under fixed signs: a step is one point or two.
void add_ways(const LatticeTraits& t, std::span<const float> x, uint32_t minus, int most, std::vector<Way>& out) {
  const LatticeBook& book = t.book();
  const float shift = t.signs == Signs::shift ? (minus ? -0.125f : 0.125f) : 0;
  std::array<float, 8> y = {};
  for (size_t j = 0; j < x.size(); ++j) y[j] = t.signs == Signs::shift ? x[j] - shift : (minus >> j & 1 ? -x[j] : x[j]);
  const std::vector<Way> first = nearest_in_book(book, y.data(), most);
  if (t.step == book.dims) {
    for (Way way : first) {
      way.minus = minus;
      out.push_back(way);
    }
    return;
  }
  for (const Way& a : first)
    for (const Way& b : nearest_in_book(book, y.data() + book.dims, most))
      out.push_back({a.error + b.error, {a.points[0], b.points[0]}, minus});
}

}  // namespace

int LatticeBook::digit(int at, int column) const {
  int half = (column < dims / 2 ? lower : upper)[static_cast<size_t>(at)];
  for (int j = 0; j < column % (dims / 2); ++j) half /= digits;
  return half % digits;
}

const LatticeBook& LatticeTraits::book() const { return book_of(type); }
std::span<const LatticeTraits> all_lattices() { return kLattices; }
const LatticeTraits& traits(const LatticeSpec& spec) { return kLattices[static_cast<size_t>(spec.type)]; }

int point_of(const LatticeTraits& t, const uint8_t* codes) {
  const LatticeBook& book = t.book();
  int number = 0;
  for (int j = book.dims - 1; j >= 0; --j) number = number * book.digits + digit_of(t, book.digits, codes[j]);
  return book.point[static_cast<size_t>(number)];
}

uint32_t minus_of(const LatticeTraits& t, const uint8_t* codes, int columns) {
  const int digits = t.book().digits;
  uint32_t minus = 0;
  for (int j = 0; j < columns; ++j) minus |= (is_minus(t, digits, codes[j]) ? 1u : 0u) << j;
  return minus;
}

void codes_of_point(const LatticeTraits& t, int point, uint32_t minus, uint8_t* codes) {
  const LatticeBook& book = t.book();
  for (int j = 0; j < book.dims; ++j) {
    const int digit = book.digit(point, j);
    const bool negative = t.signs == Signs::shift ? minus != 0 : (minus >> j & 1) != 0;
    codes[j] = static_cast<uint8_t>(t.signs == Signs::shift ? 2 * digit + (negative ? 0 : 1)
                                    : negative              ? book.digits - 1 - digit
                                                            : book.digits + digit);
  }
}

bool holds(const LatticeTraits& t, const uint8_t* codes) {
  for (int j = 0; j < t.step; j += t.book().dims)
    if (point_of(t, codes + j) < 0) return false;
  const int minus = std::popcount(minus_of(t, codes, t.step));
  if (t.signs == Signs::even) return minus % 2 == 0;
  return t.signs == Signs::free || minus == 0 || minus == t.step;
}

int nearest_points(const LatticeTraits& t, std::span<const float> x, int shift, int most, uint8_t* codes) {
  assert(std::ssize(x) == t.step);
  std::vector<Way> ways;
  if (t.signs == Signs::shift) {
    if (shift <= 0) add_ways(t, x, 1, most, ways);
    if (shift >= 0) add_ways(t, x, 0, most, ways);
  } else {
    uint32_t minus = 0;
    for (size_t j = 0; j < x.size(); ++j) minus |= (x[j] < 0 ? 1u : 0u) << j;
    if (t.signs == Signs::even && std::popcount(minus) % 2) {
      for (int j = 0; j < t.step; ++j) add_ways(t, x, minus ^ 1u << j, most, ways);
    } else {
      add_ways(t, x, minus, most, ways);
    }
  }
  std::stable_sort(ways.begin(), ways.end(), [](const Way& a, const Way& b) { return a.error < b.error; });
  const int count = std::min(most, static_cast<int>(ways.size()));
  const int dims = t.book().dims;
  for (int i = 0; i < count; ++i)
    for (int part = 0; part * dims < t.step; ++part) {
      const Way& way = ways[static_cast<size_t>(i)];
      codes_of_point(t, way.points[static_cast<size_t>(part)],
                     t.signs == Signs::shift ? way.minus : way.minus >> part * dims, codes + i * t.step + part * dims);
    }
  return count;
}

}  // namespace pare
