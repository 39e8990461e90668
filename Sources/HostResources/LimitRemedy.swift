import Glibc

/// Which limit made the system refuse, and how to raise it, as text to append to an error.
package enum LimitRemedy {
  /// For a refused thread: EAGAIN is a limit, or no memory for a stack.
  package static func threads(errno: Int32) -> String {
    guard errno == EAGAIN else { return "" }
    let limits = HostLimits()
    var text = ""
    if let group = limits.threads, let room = limits.threadRoom {
      text +=
        "; \(group.path) allows \(group.value) threads and \(room) more (docker: --pids-limit)"
    }
    if let user = limits.userThreads {
      text += "; this user may have \(user.value) threads in all (ulimit -u)"
    }
    return text + "; there may be no memory for a stack"
  }

  /// For a refused descriptor: EMFILE is the process's limit, ENFILE the machine's.
  package static func descriptors(errno: Int32) -> String {
    switch errno {
    case EMFILE:
      // Not from a file: there is no descriptor left to read one with.
      let limit = sysconf(Int32(_SC_OPEN_MAX))
      return "; this process may have \(limit) files open: `ulimit -n NUMBER` allows more"
    case ENFILE: return "; the machine has as many files open as /proc/sys/fs/file-max allows"
    default: return ""
    }
  }

  /// For memory that could not be locked, which kernels before 5.12 count for io_uring.
  package static func lockedMemory(errno: Int32) -> String {
    guard errno == ENOMEM, let limit = HostLimits().lockedByteCount else { return "" }
    return "; this process may lock \(limit.value) bytes of memory: `ulimit -l` allows more"
  }
}
