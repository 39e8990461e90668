import Testing

/// Pointers in public declarations above Kernels: what is there may go, and no more may come.
///
/// `FlashInferC` is left out: its interface is C's.
@Suite struct PointerTests {
  /// Public declarations with a pointer, by target. To be lowered as they go; 0 where a target is missing.
  private static let most = ["WeightLoader": 2, "Runtime": 6]
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
      for number in first..<min(first + 16, lines.count) {
        let line = lines[number]
        signature += line + " "
        if line.hasSuffix("{") || line.hasSuffix("}") { break }
        // A line that leaves nothing open ends it, but for what it returns or throws.
        let isOpen = signature.count { $0 == "(" } != signature.count { $0 == ")" }
        let next = lines.indices.contains(number + 1) ? lines[number + 1].drop { $0 == " " } : ""
        let goesOn = ["->", "throws", "where", "{"].contains { next.hasPrefix($0) }
        if !isOpen, !goesOn { break }
      }
      return signature.split(separator: "{").first.map(String.init)
    }
  }
}
