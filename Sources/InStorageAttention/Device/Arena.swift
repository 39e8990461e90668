/// Hands out parts of one piece of memory, or, without any, adds up what would be handed out.
package struct Arena {
  private let base: UnsafeMutableRawPointer
  package private(set) var byteCount = 0

  /// Parts of `base`, which is zero.
  package init(_ base: UnsafeMutableRawPointer) { self.base = base }

  /// Only measures: nothing may be touched through what it hands out.
  package static var measuring: Arena { Arena(UnsafeMutableRawPointer(bitPattern: 4096)!) }

  /// Room for `count` elements, all zero, aligned to cache lines.
  package mutating func take<Element: BitwiseCopyable>(
    _ count: Int, of type: Element.Type
  ) -> UnsafeMutablePointer<Element> {
    let address = base + byteCount
    byteCount += (count * MemoryLayout<Element>.stride + 63) & ~63
    return address.assumingMemoryBound(to: type)
  }
}
