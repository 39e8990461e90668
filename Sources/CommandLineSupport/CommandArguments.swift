/// The process's arguments as the system handed them over.
public enum CommandArguments {
  /// The bytes of the argument that reads `text`.
  ///
  /// Swift repairs arguments that are not UTF-8; whoever wants text verbatim needs what was there.
  public static func bytes(of text: String) -> [UInt8] {
    for index in 1..<max(1, Int(CommandLine.argc)) {
      guard let argument = CommandLine.unsafeArgv[index] else { continue }
      let bytes = Array(UnsafeBufferPointer(start: argument, count: length(of: argument))).map {
        UInt8(bitPattern: $0)
      }
      for candidate in [bytes, afterEqualsSign(bytes)]
      where !candidate.isEmpty
        && String(decoding: candidate, as: UTF8.self).utf8.elementsEqual(text.utf8)
      {
        return candidate
      }
    }
    return Array(text.utf8)
  }

  /// The value of an argument of the form `--name=value`.
  private static func afterEqualsSign(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.starts(with: [0x2D, 0x2D]), let sign = bytes.firstIndex(of: 0x3D) else { return [] }
    return Array(bytes[(sign + 1)...])
  }

  private static func length(of text: UnsafePointer<CChar>) -> Int {
    var count = 0
    while text[count] != 0 { count += 1 }
    return count
  }
}
