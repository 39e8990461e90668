// usage: twins SET...            runs every case on these sets, which must be all the machine has beside
//                                scalar, compares with scalar, and prints a digest of each case
//        twins --count SET  runs the counted kernels and prints their names
// Exits with 1 where bits differ, 69 where the machine has other sets.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

static const char *const set_names[CK_SET_COUNT] = {
  [CK_SCALAR] = "scalar", [CK_AVX2] = "avx2",       [CK_AVX512] = "avx512",
  [CK_NEON] = "neon",     [CK_DOTPROD] = "dotprod", [CK_I8MM] = "i8mm",
};

static ck_set set_named(const char *name) {
  for (ck_set set = 0; set < CK_SET_COUNT; set++)
    if (strcmp(set_names[set], name) == 0) return set;
  fprintf(stderr, "error: no instruction set is called %s\n", name);
  exit(64);
}

// FNV-1a
static uint64_t digest(uint64_t sum, const case_output *output) {
  for (size_t i = 0; i < output->count; i++) sum = (sum ^ output->bytes[i]) * 0x100000001b3u;
  return sum;
}

static int failures;

static void compare(const twin_case *c) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (int seed = 0; seed < c->seeds; seed++) {
    case_output scalar = run_case(c, seed, CK_SCALAR);
    sum = digest(sum, &scalar);
    for (ck_set set = CK_SCALAR + 1; set < CK_SET_COUNT; set++) {
      if (!ck_has_set(set)) continue;
      case_output other = run_case(c, seed, set);
      size_t at = 0;
      while (at < scalar.count && at < other.count && scalar.bytes[at] == other.bytes[at]) at++;
      if (at != scalar.count || at != other.count) {
        failures++;
        fprintf(stderr, "%s, seed %d: %s differs from scalar at byte %zu of %zu\n", c->name, seed,
                set_names[set], at, scalar.count);
      }
      free(other.bytes);
    }
    free(scalar.bytes);
  }
  printf("%-24s %016llx\n", c->name, (unsigned long long)sum);
}

int main(int count, char **arguments) {
  if (count == 3 && strcmp(arguments[1], "--count") == 0) {
    const ck_set set = set_named(arguments[2]);
    if (!ck_has_set(set)) return 69;
    run_counted(set);
    return 0;
  }
  int wanted[CK_SET_COUNT] = {[CK_SCALAR] = 1};
  for (int i = 1; i < count; i++) wanted[set_named(arguments[i])] = 1;
  for (ck_set set = 0; set < CK_SET_COUNT; set++)
    if (wanted[set] != ck_has_set(set)) {
      fprintf(stderr, "error: this machine has %s%s\n", wanted[set] ? "no " : "", set_names[set]);
      return 69;
    }
  const twin_case *const lists[] = {product_cases, vector_cases, attention_cases, scan_cases};
  for (int i = 0; i < 4; i++)
    for (const twin_case *c = lists[i]; c->name; c++) compare(c);
  return failures > 0;
}
