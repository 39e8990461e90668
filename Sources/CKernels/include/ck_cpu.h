// What this machine has.
#pragma once

// Whether this machine has what kernels with that suffix need.
int ck_has_avx2(void);
int ck_has_avx512(void);
