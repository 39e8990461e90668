import Glibc

/// The machine that a figure was measured on, as a reader would name it.
public struct Machine: Sendable, Equatable {
  /// The processor, as the system names it.
  public let processorName: String
  /// Processors that the machine runs.
  public let processorCount: Int
  public let memoryByteCount: Int
  /// The kernel's name and release, such as `Linux 6.12.3`.
  public let kernel: String

  /// Reads what holds now.
  ///
  /// - Parameter root: the folder that holds `proc`; empty for the machine itself.
  public init(root: String = "") {
    processorName = Self.processorName(root: root)
    processorCount = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    memoryByteCount = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    var names = utsname()
    uname(&names)
    func text<Bytes>(_ bytes: Bytes) -> String {
      withUnsafeBytes(of: bytes) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    kernel = "\(text(names.sysname)) \(text(names.release))"
  }

  /// The processor's name alone; `unknown` where the system has none.
  public static func processorName(root: String = "") -> String {
    let name = SystemFiles(root: root).field("model name", in: "/proc/cpuinfo")
    return name.flatMap { $0.isEmpty ? nil : $0 } ?? "unknown"
  }
}
