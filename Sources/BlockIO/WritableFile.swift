import Glibc
import HostResources

/// A file of fixed length that a ``FileWriter`` writes to, past the page cache where the file system agrees.
///
/// It is closed with the last reference to it.
public final class WritableFile: Sendable {
  /// What the file is called in messages.
  public let path: String
  /// The path by which it can be opened while it is open here.
  public let readingPath: String
  let descriptor: UnixDescriptor
  let hooks: DeviceHooks

  /// Where a file is.
  public enum Place: Sendable {
    /// Of that name; created if there is none, and emptied.
    case named(String)
    /// In that folder, without a name: no other process finds it, and it goes when it is closed.
    case temporary(folder: String)
  }

  /// Makes the file and gives it `byteCount` bytes, which take no room before they are written.
  ///
  /// - Throws: ``BlockIOError`` if the file cannot be made.
  public convenience init(_ place: Place, byteCount: Int) throws(BlockIOError) {
    try self.init(place, byteCount: byteCount, hooks: DeviceHooks())
  }

  package init(_ place: Place, byteCount: Int, hooks: DeviceHooks) throws(BlockIOError) {
    switch place {
    case .named(let name):
      path = name
      descriptor = try Self.open(name, hooks)
      readingPath = name
    case .temporary(let folder):
      descriptor = try UnixDescriptor(
        temporaryIn: folder, bypassingPageCache: true, refusal: hooks.directOpenErrno)
      path = folder + "/(temporary file)"
      readingPath = descriptor.path
    }
    self.hooks = hooks
    let status = SystemCalls.truncate(descriptor.rawValue, byteCount: byteCount)
    guard status == 0 else {
      throw BlockIOError(
        .create, path: path, byteCount: byteCount, reason: .system(errno: -status))
    }
  }

  private static func open(
    _ path: String, _ hooks: DeviceHooks
  ) throws(BlockIOError) -> UnixDescriptor {
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
    var descriptor = -hooks.directOpenErrno
    if descriptor == 0 { descriptor = SystemCalls.open(path, flags | __O_DIRECT, mode: 0o600) }
    if descriptor < 0, (-descriptor).isLackOfSupport {
      descriptor = SystemCalls.open(path, flags, mode: 0o600)
    }
    guard descriptor >= 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: -descriptor))
    }
    return UnixDescriptor(owning: descriptor)
  }

  /// Writes all of `bytes`; returns why that failed if it did.
  ///
  /// - Parameter isStopping: asked before another attempt where the system is short of something; true prevents it.
  func write(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, isStopping: () -> Bool
  ) -> BlockIOError? {
    var (written, retriesWithoutProgress) = (0, 0)
    while written < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
      let result = attempt(rest, at: offset + written)
      let error = result < 0 ? Int32(-result) : 0
      if result > 0 {
        // What is left must be aligned as direct writes are.
        let reached = written + result
        let usable = reached == bytes.count ? reached : reached & ~(FileSet.directAlignment - 1)
        retriesWithoutProgress = usable > written ? 0 : retriesWithoutProgress + 1
        written = usable
        if retriesWithoutProgress <= Retries.maximumCount { continue }
      } else {
        retriesWithoutProgress += 1
      }
      if error.isLackOfSupport, descriptor.bypassesPageCache,
        descriptor.setBypassingPageCache(false) == 0
      {
        continue
      }
      if error.isInterruption || error.isShortage, retriesWithoutProgress <= Retries.maximumCount,
        !isStopping()
      {
        Retries.sleep(
          nanoseconds: Retries.delayNanoseconds(after: retriesWithoutProgress, errno: error))
        continue
      }
      return BlockIOError(
        .write, path: path, offset: offset + written, byteCount: rest.count,
        reason: .system(errno: error == 0 ? EIO : error))
    }
    return nil
  }

  /// Bytes written, or the negated error number.
  private func attempt(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int {
    if let refusal = hooks.writeErrno?(offset), refusal != 0 { return -Int(refusal) }
    return SystemCalls.write(descriptor.rawValue, bytes, at: offset)
  }
}
