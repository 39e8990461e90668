#pragma once
// liburing.h defines _XOPEN_SOURCE, after which fd_set would clash with the Glibc module.
#include <sys/types.h>
#include <liburing.h>
