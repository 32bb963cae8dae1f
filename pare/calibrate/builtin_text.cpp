// The text files of builtin_text/ placed into the library's read-only data by the assembler.
#include "pare/calibrate/builtin_text.h"

#define PARE_TEXT(name)                                                                                      \
  asm(".pushsection .rodata\n.global pare_text_" #name "\n.global pare_text_" #name "_end\npare_text_" #name \
      ":\n.incbin \"" PARE_SOURCE_DIR "/builtin_text/" #name ".txt\"\npare_text_" #name                      \
      "_end:\n.byte 0\n.popsection\n");                                                                      \
  extern "C" const char pare_text_##name[];                                                                  \
  extern "C" const char pare_text_##name##_end[];

PARE_TEXT(stories)
PARE_TEXT(essays)
PARE_TEXT(encyclopedia)
PARE_TEXT(howto)
PARE_TEXT(dialogue)
PARE_TEXT(reasoning)
PARE_TEXT(code)
PARE_TEXT(languages)
PARE_TEXT(chinese)

#define PARE_VIEW(name) \
  { pare_text_##name, static_cast<size_t>(pare_text_##name##_end - pare_text_##name) }

namespace pare {

std::vector<std::string_view> builtin_texts() {
  return {PARE_VIEW(stories),   PARE_VIEW(essays), PARE_VIEW(encyclopedia), PARE_VIEW(howto),  PARE_VIEW(dialogue),
          PARE_VIEW(reasoning), PARE_VIEW(code),   PARE_VIEW(languages),    PARE_VIEW(chinese)};
}

}  // namespace pare
