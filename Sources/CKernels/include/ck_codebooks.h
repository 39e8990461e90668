// Codebooks of ggml's IQ types: what an index stands for.
#pragma once
#include <stdint.h>

// Eight codes of two bits an entry, the first lowest. IQ2: 0, 1, 2 are the magnitudes 8, 25, 43. IQ1_S and
// IQ1_M: 0, 1, 2 are -1, 0, 1.
extern const uint16_t ck_codebook_iq2_xxs[256];
extern const uint16_t ck_codebook_iq2_xs[512];
extern const uint16_t ck_codebook_iq2_s[1024];
extern const uint16_t ck_codebook_iq1_s[2048];
// Four codes of four bits an entry, the first lowest. IQ3_XXS: 0...7 are the magnitudes 4, 12, ... 52, 62.
// IQ3_S: 1, 3, ... 15.
extern const uint16_t ck_codebook_iq3_xxs[256];
extern const uint16_t ck_codebook_iq3_s[512];

// The same as words, for look-ups lane by lane. IQ2 and IQ1: the codes of four columns in the low nibbles of the
// bytes, those of the next four in the high ones. IQ3: magnitudes in bytes.
extern const uint32_t ck_words_iq2_xxs[256];
extern const uint32_t ck_words_iq2_xs[512];
extern const uint32_t ck_words_iq2_s[1024];
extern const uint32_t ck_words_iq1_s[2048];
extern const uint32_t ck_words_iq3_xxs[256];
extern const uint32_t ck_words_iq3_s[512];

#if defined(__x86_64__)
// The same in planes, for look-ups by permutation: the low bytes of all entries, then the high ones.
extern const uint8_t ck_planes_iq2_xxs[512];
extern const uint8_t ck_planes_iq2_xs[1024];
extern const uint8_t ck_planes_iq2_s[2048];
extern const uint8_t ck_planes_iq1_s[4096];
extern const uint8_t ck_planes_iq3_xxs[512];
extern const uint8_t ck_planes_iq3_s[1024];
// The first four digits of TQ1_0's bytes, two bits each; then the fifth ones.
extern const uint8_t ck_planes_tq1[512];
// Seven signs, and an eighth that makes the number of ones even.
extern const uint8_t ck_eight_signs[128];
#endif

// The codebook of a type of ck_type, or null where it has none.
const uint16_t *_Nullable ck_codebook_of(int type);

// What nibbles of IQ4_NL and IQ4_XS stand for; those of MXFP4 and NVFP4 (E2M1, doubled).
#define CK_IQ4_VALUES(X)                                                             \
  X(-127), X(-104), X(-83), X(-65), X(-49), X(-35), X(-22), X(-10), X(1), X(13),     \
  X(25), X(38), X(53), X(69), X(89), X(113)
#define CK_E2M1_VALUES(X)                                                            \
  X(0), X(1), X(2), X(3), X(4), X(6), X(8), X(12), X(0), X(-1), X(-2), X(-3), X(-4), \
  X(-6), X(-8), X(-12)
