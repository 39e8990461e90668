import TensorBasics
import Testing

/// Paths as strings, whatever their bytes.
struct SystemPathTests {
  @Test func `Every sequence of bytes is a path of its own, and comes back as it was`() {
    var generator = SeededGenerator(seed: 27)
    var seen: [[UInt8]: String] = [:]
    let pieces: [[UInt8]] = [
      [0x2F], [0x61], [0xFF], [0x80], [0xC3], [0xA9], [0xC3, 0xA9], [0xED, 0xA0, 0x80],
      [0xF0, 0x9F, 0x98], [0xF0, 0x9F, 0x98, 0x80], Array("\u{10FF80}".utf8),
      Array("\u{10FFFF}".utf8), [0xF4, 0x90, 0x80, 0x80], [0xC0, 0xAF],
    ]
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 0...6, using: &generator)).flatMap { _ in
        pieces.randomElement(using: &generator) ?? []
      }
      let path = String(systemPath: bytes)
      #expect(path.systemPath == bytes)
      seen[bytes] = path
    }
    let strings = Set(seen.values.map { Array($0.unicodeScalars) })
    #expect(strings.count == seen.count)
  }

  @Test func `A path that is UTF-8 is itself`() {
    for path in ["", "/", "/tmp/größe/日本語", "a\u{301}"] {
      #expect(String(systemPath: Array(path.utf8)).utf8.elementsEqual(path.utf8))
      #expect(path.displayingPaths.utf8.elementsEqual(path.utf8))
    }
  }

  @Test func `C gets the bytes, and people get to read them`() {
    let path = String(systemPath: [0x2F, 0xFF, 0x61, 0xE2, 0x82])
    let length = path.withSystemPath { pointer in
      String(systemPath: pointer) == path ? pointer[1] : 0
    }
    #expect(length == CChar(bitPattern: 0xFF))
    #expect("cannot open '\(path)'".displayingPaths == "cannot open '/\\xffa\\xe2\\x82'")
  }
}
