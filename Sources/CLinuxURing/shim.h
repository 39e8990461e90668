#pragma once
// liburing.h defines _XOPEN_SOURCE, after which fd_set would clash with the Glibc module.
#include <sys/types.h>
#include <liburing.h>

// Linux calls that the Glibc module leaves out.
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <sys/xattr.h>
ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long local_count,
                         const struct iovec *remote, unsigned long remote_count,
                         unsigned long flags);
