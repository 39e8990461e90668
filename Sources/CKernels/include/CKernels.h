// Umbrella of the SIMD kernels. Every kernel exists per instruction set (ck_…_scalar, _avx2, …;
// ck_sets.h) and computes the same bits on each: see docs/decisions/0001-canonical-arithmetic.md.
#pragma once
#include "ck_attention.h"
#include "ck_bandwidth.h"
#include "ck_codebooks.h"
#include "ck_cpu.h"
#include "ck_futex.h"
#include "ck_interleave.h"
#include "ck_kernels.h"
#include "ck_matmul.h"
#include "ck_neuron.h"
#include "ck_scan.h"
#include "ck_sets.h"
#include "ck_vector.h"
