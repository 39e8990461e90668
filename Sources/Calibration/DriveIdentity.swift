import BlockIO
import Glibc
import TensorBasics

/// Which drive a file lies on, as far as the system tells.
public struct DriveIdentity: Sendable, Hashable {
  /// Device number of the file system, or of the device itself where the file is one.
  public var major: Int
  public var minor: Int
  /// The file system's type, empty if the system names none.
  public var fileSystem: String
  /// The drive's model, empty if the system names none.
  public var model: String
  /// Size in sectors of 512 bytes, 0 if the system names none.
  public var sectorCount: Int

  public init(major: Int, minor: Int, fileSystem: String, model: String, sectorCount: Int) {
    self.major = major
    self.minor = minor
    self.fileSystem = fileSystem
    self.model = model
    self.sectorCount = sectorCount
  }

  /// The drive of the file at `path`; nil if the file cannot be inspected.
  public init?(ofFileAt path: String) {
    var status = stat()
    guard path.withSystemPath({ stat($0, &status) }) == 0 else { return nil }
    let isDevice = status.st_mode & S_IFMT == S_IFBLK
    let number = UInt64(isDevice ? status.st_rdev : status.st_dev)
    // The encoding of glibc's gnu_dev_major and gnu_dev_minor, which are macros.
    major = Int((number >> 8) & 0xFFF | (number >> 32) & 0xFFFF_F000)
    minor = Int(number & 0xFF | (number >> 12) & 0xFFFF_FF00)
    fileSystem = Self.fileSystem(major: major, minor: minor)
    let folder = "/sys/dev/block/\(major):\(minor)"
    sectorCount = Int(SystemFile.line("\(folder)/size")) ?? 0
    // A partition's drive is the folder above it.
    let names = ["\(folder)/device/model", "\(folder)/../device/model"]
    model = names.lazy.map(SystemFile.line).first { !$0.isEmpty } ?? ""
  }
}

extension DriveIdentity {
  /// The type of the file system mounted from a device; see proc_pid_mountinfo(5).
  private static func fileSystem(major: Int, minor: Int) -> String {
    let device = "\(major):\(minor)"
    for line in SystemFile.lines("/proc/self/mountinfo") {
      let words = line.split(separator: " ")
      guard words.count > 2, words[2] == device, let dash = words.firstIndex(of: "-"),
        dash + 1 < words.count
      else { continue }
      return String(words[dash + 1])
    }
    return ""
  }
}

/// Short text files of /proc and /sys.
enum SystemFile {
  /// The first line without characters that JSON would escape; empty if there is none.
  static func line(_ path: String) -> String { lines(path).first ?? "" }

  /// All lines of the first 16 KiB, cleaned like ``line(_:)``.
  static func lines(_ path: String) -> [String] {
    guard let file = fopen(path, "re") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 16 << 10)
    let count = fread(&bytes, 1, bytes.count, file)
    return bytes[..<count].split(separator: 0x0A, omittingEmptySubsequences: false).map { line in
      let plain = line.map { (0x20..<0x7F).contains($0) && $0 != 0x22 && $0 != 0x5C ? $0 : 0x20 }
      let words = plain.split(separator: 0x20).map { String(decoding: $0, as: UTF8.self) }
      return words.joined(separator: " ")
    }
  }
}
