import Glibc

/// How files are read.
public enum StorageBackend: String, CaseIterable, Sendable {
  /// io_uring where it is permitted, else `pread` threads.
  case auto
  case uring
  case pread
  case mmap
}

/// Opens `paths` for reading through one device.
///
/// With ``StorageBackend/auto``, a system that refuses io_uring gets `pread` threads and a line in
/// the device's notes; asked for by name, the refusal is an error.
///
/// - Parameters:
///   - paths: regular files or block devices; a request's `fileIndex` counts them from 0. May be none: files may come later.
///   - queueDepth: reads in flight at most, at least 1.
/// - Throws: ``BlockIOError`` for a file that cannot be opened (``BlockIOError/isMissingFile`` tells
///   a missing one) or is not readable at random, and for a back end that is not available.
public func openDevice(
  paths: [String], backend: StorageBackend = .auto, queueDepth: Int = 16
) throws(BlockIOError) -> any FileDevice {
  try openDevice(paths: paths, backend: backend, queueDepth: queueDepth, hooks: DeviceHooks())
}

package func openDevice(
  paths: [String], backend: StorageBackend, queueDepth: Int, hooks: DeviceHooks
) throws(BlockIOError) -> any FileDevice {
  switch backend {
  case .uring: return try RingDevice(paths: paths, queueDepth: queueDepth, hooks: hooks)
  case .pread: return try ThreadedDevice(paths: paths, queueDepth: queueDepth, hooks: hooks)
  case .mmap: return try MappedDevice(paths: paths, queueDepth: queueDepth, hooks: hooks)
  case .auto: break
  }
  do {
    return try RingDevice(paths: paths, queueDepth: queueDepth, hooks: hooks)
  } catch {
    guard error.operation == .setUpRing, let errno = error.errno else { throw error }
    let device = try ThreadedDevice(paths: paths, queueDepth: queueDepth, hooks: hooks)
    device.addNote(
      "io_uring is not available here (\(String(cString: strerror(errno)))): using pread threads")
    return device
  }
}

/// Opens the members of a stripe or the copies of a mirror as logical files.
///
/// The device has room for a few parts of each read; reads cut in more parts take turns.
///
/// - Parameters:
///   - paths: members or copies, in the mapping's order.
///   - queueDepth: logical reads in flight at most, at least 1.
/// - Throws: as ``openDevice(paths:backend:queueDepth:)``.
public func openDevice(
  paths: [String], mapping: ReadMapping, backend: StorageBackend = .auto, queueDepth: Int = 16
) throws(BlockIOError) -> any BlockDevice {
  try openDevice(
    paths: paths, mapping: mapping, backend: backend, queueDepth: queueDepth, hooks: DeviceHooks())
}

package func openDevice(
  paths: [String], mapping: ReadMapping, backend: StorageBackend, queueDepth: Int,
  hooks: DeviceHooks
) throws(BlockIOError) -> any BlockDevice {
  let depth = min(queueDepth, RingDevice.maximumDepth)
  let partDepth = min(depth * max(2, mapping.wayCount), RingDevice.maximumDepth)
  let inner = try openDevice(
    paths: paths, backend: backend, queueDepth: partDepth, hooks: hooks)
  return SplittingDevice(inner, mapping: mapping, queueDepth: depth)
}
