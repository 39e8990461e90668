// What this machine has.
#pragma once
#include "ck_sets.h"

// Whether this machine has what kernels of that set need.
int ck_has_set(ck_set set);
