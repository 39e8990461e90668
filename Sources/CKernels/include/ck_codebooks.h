// Codebooks of ggml's IQ types: what an index stands for.
#pragma once
#include <stdint.h>

// Eight codes of two bits an entry, the first lowest. IQ2: 0, 1, 2 are the magnitudes 8, 25, 43. IQ1_S and
// IQ1_M: 0, 1, 2 are -1, 0, 1.
extern const uint16_t ck_codebook_iq2_xxs[257];
extern const uint16_t ck_codebook_iq2_xs[513];
extern const uint16_t ck_codebook_iq2_s[1025];
extern const uint16_t ck_codebook_iq1_s[2049];
// Four codes of four bits an entry, the first lowest. IQ3_XXS: 0...7 are the magnitudes 4, 12, ... 52, 62.
// IQ3_S: 1, 3, ... 15.
extern const uint16_t ck_codebook_iq3_xxs[257];
extern const uint16_t ck_codebook_iq3_s[513];

// The codebook of a type of ck_type, or null where it has none.
const uint16_t *_Nullable ck_codebook_of(int type);

// What nibbles of IQ4_NL and IQ4_XS stand for; those of MXFP4 and NVFP4 (E2M1, doubled).
#define CK_IQ4_VALUES \
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define CK_E2M1_VALUES 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
