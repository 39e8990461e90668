import Testing

/// Pointers in public declarations above Kernels: what is there may go, and no more may come.
///
/// `FlashInferC` is left out: its interface is C's.
@Suite struct PointerTests {
  /// Public declarations with a pointer, by target. To be lowered as they go; 0 where a target is missing.
  private static let most = [
    "WeightLoader": 10, "KVCache": 14, "InStorageAttention": 2, "Runtime": 9,
    "CommandLineSupport": 1,
  ]
  private static let targets = [
    "WeightLoader", "KVCache", "InStorageAttention", "ModelConversion", "Runtime", "Calibration",
    "CommandLineSupport",
  ]

  @Test func `No more public declarations above Kernels take or give pointers`() {
    var count: [String: Int] = [:]
    for source in SourceTree.sources where source.isSwift && Self.targets.contains(source.target) {
      count[source.target, default: 0] +=
        Self.signatures(in: source.lines).filter { signature in
          signature.contains("Pointer<") || signature.contains("RawPointer")
            || signature.contains("RawBufferPointer")
        }.count
    }
    for target in Self.targets {
      let (found, most) = (count[target] ?? 0, Self.most[target] ?? 0)
      #expect(found <= most, "\(target) has \(found) public declarations with pointers")
      #expect(found >= most, "\(target) has only \(found): lower the number here")
    }
  }

  /// Public declarations up to their body, each as one string.
  private static func signatures(in lines: [String]) -> [String] {
    lines.indices.compactMap { first in
      let words = lines[first].split(separator: " ").drop { $0.hasPrefix("@") }
      guard words.first == "public", !words.contains("import") else { return nil }
      var signature = ""
      for line in lines[first..<min(first + 16, lines.count)] {
        signature += line + " "
        let opened = signature.count { $0 == "(" }
        if line.hasSuffix("{") || line.hasSuffix("}") { break }
        if opened == signature.count(where: { $0 == ")" }), !line.hasSuffix(","), opened == 0 {
          break
        }
      }
      return signature.split(separator: "{").first.map(String.init)
    }
  }
}
