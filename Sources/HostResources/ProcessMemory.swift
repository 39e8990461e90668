/// What the system says of this process: its memory and its reads.
public enum ProcessMemory {
  /// The largest resident set so far (VmHWM), or 0 if /proc is missing.
  public static var peakResidentByteCount: Int { statusField("VmHWM") }

  /// The resident set now (VmRSS).
  public static var residentByteCount: Int { statusField("VmRSS") }

  /// Bytes that the kernel fetched from storage for this process (read_bytes), or 0 if it does not
  /// say.
  public static var storageReadByteCount: Int {
    SystemFiles().field("read_bytes", in: "/proc/self/io").flatMap { Int($0) } ?? 0
  }

  private static func statusField(_ name: String) -> Int {
    SystemFiles().kibibytes(name, in: "/proc/self/status") ?? 0
  }
}
