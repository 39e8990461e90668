import Glibc

/// When a file was made, where its file system keeps that.
enum BirthTime {
  /// When the file at `path` was made, since 1970; nil where that is not known.
  static func of(_ path: String) -> (seconds: Int, nanoseconds: Int)? {
    guard let statx else { return nil }
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 8)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    let wanted: UInt32 = 0x800  // STATX_BTIME
    let status = path.withSystemPath { statx(AT_FDCWD, $0, 0, wanted, bytes.baseAddress!) }
    guard status == 0, bytes.load(as: UInt32.self) & wanted != 0 else { return nil }
    // `stx_btime`: seconds, then nanoseconds.
    return (
      Int(bytes.load(fromByteOffset: 80, as: Int64.self)),
      Int(bytes.load(fromByteOffset: 88, as: UInt32.self))
    )
  }

  /// The C library's `statx`, which its headers hide from Swift.
  private static let statx:
    (
      @convention(c) (
        Int32, UnsafePointer<CChar>, Int32, UInt32, UnsafeMutableRawPointer
      ) -> Int32
    )? = dlsym(nil, "statx").map {
      unsafeBitCast(
        $0,
        to: (@convention(c) (
          Int32, UnsafePointer<CChar>, Int32, UInt32, UnsafeMutableRawPointer
        ) -> Int32).self)
    }
}
