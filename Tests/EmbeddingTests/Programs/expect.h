/* What the C programs have in common: expectations that end the program. */
#include <flashinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static flashinfer_error error = FLASHINFER_ERROR_INIT;

#define EXPECT(condition)                                                            \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, error.message);    \
      exit(1);                                                                       \
    }                                                                                \
  } while (0)
#define EXPECT_ERROR(call, expected)                                                 \
  do {                                                                               \
    error.message[0] = 0;                                                            \
    flashinfer_status outcome = (call);                                              \
    EXPECT(outcome == (expected) && error.status == outcome && error.message[0]);    \
  } while (0)
