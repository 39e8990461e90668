// Umbrella of the SIMD kernels. Every kernel exists per instruction set (ck_…_scalar, _avx2,
// _avx512, _neon) and computes the same bits on each: see docs/decisions/0001-canonical-arithmetic.md.
#pragma once
#include "ck_bandwidth.h"
#include "ck_cpu.h"
#include "ck_interleave.h"
#include "ck_matmul.h"
#include "ck_neuron.h"
#include "ck_vector.h"
#include "ck_attention.h"
#include "ck_futex.h"
