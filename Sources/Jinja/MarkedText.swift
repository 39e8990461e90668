/// UTF-8 bytes of which some ranges are marked as data: what a user, a tool or a document wrote.
///
/// Every operation of the interpreter keeps each byte's mark, so that the rendered text still says which
/// control tokens the template wrote and which only look like them (`docs/decisions/0036`).
package struct MarkedText: Sendable {
  package private(set) var bytes: [UInt8] = []
  /// Ranges of `bytes` that are data: sorted, not empty, no two touching.
  package private(set) var data: [Range<Int>] = []
  /// Whether it is jinja2's `Markup`: what is joined to it is escaped for HTML.
  var isSafe = false
  /// What counts its bytes while a template is rendered.
  private var lease: Meter.Lease?

  package init() {}

  package init(_ bytes: [UInt8], isData: Bool = false) {
    self.bytes = bytes
    if isData, !bytes.isEmpty { data = [0..<bytes.count] }
  }

  package init(_ string: String, isData: Bool = false) {
    self.init(Array(string.utf8), isData: isData)
  }

  var count: Int { bytes.count }
  var isEmpty: Bool { bytes.isEmpty }

  package var string: String { String(decoding: bytes, as: UTF8.self) }

  /// Whether any byte of `range` is data.
  package func hasData(in range: Range<Int>) -> Bool {
    let first = firstMark(endingAfter: range.lowerBound)
    return first < data.count && data[first].lowerBound < range.upperBound
  }

  package mutating func append(_ other: MarkedText) {
    for mark in other.data { appendMark(mark.lowerBound + count..<mark.upperBound + count) }
    bytes += other.bytes
    lease = nil
  }

  mutating func append(_ new: some Collection<UInt8>, isData: Bool = false) {
    if isData, !new.isEmpty { appendMark(count..<count + new.count) }
    bytes += new
    lease = nil
  }

  package mutating func append(_ string: String, isData: Bool = false) {
    append(string.utf8, isData: isData)
  }

  /// Appends a range of another text.
  mutating func append(_ other: MarkedText, _ range: Range<Int>) {
    let shift = count - range.lowerBound
    var index = other.firstMark(endingAfter: range.lowerBound)
    while index < other.data.count, other.data[index].lowerBound < range.upperBound {
      let mark = other.data[index].clamped(to: range)
      appendMark(mark.lowerBound + shift..<mark.upperBound + shift)
      index += 1
    }
    bytes += other.bytes[range]
    lease = nil
  }

  /// The same text, counted for as long as it exists, unless it is small.
  func counted(_ meter: Meter) throws(JinjaError) -> MarkedText {
    guard count > Limits.smallText, lease == nil else { return self }
    var text = self
    text.lease = try meter.lease(count)
    return text
  }

  /// A range of it, with its marks.
  package subscript(range: Range<Int>) -> MarkedText {
    var part = MarkedText()
    part.append(self, range)
    part.isSafe = isSafe
    return part
  }

  /// The same text as plain string.
  var plain: MarkedText {
    var text = self
    text.isSafe = false
    return text
  }

  /// The same text as `Markup`, without escaping.
  var safe: MarkedText {
    var text = self
    text.isSafe = true
    return text
  }

  private mutating func appendMark(_ mark: Range<Int>) {
    if let last = data.last, last.upperBound == mark.lowerBound {
      data[data.count - 1] = last.lowerBound..<mark.upperBound
    } else {
      data.append(mark)
    }
  }

  /// Index of the first mark that ends after an offset.
  private func firstMark(endingAfter offset: Int) -> Int {
    var (low, high) = (0, data.count)
    while low < high {
      let middle = (low + high) / 2
      if data[middle].upperBound > offset { high = middle } else { low = middle + 1 }
    }
    return low
  }
}

/// Characters are code points, as in Python; a byte that is not UTF-8 is one of its own.
extension MarkedText {
  /// Where each character begins, and the end.
  var characterOffsets: [Int] {
    var offsets: [Int] = []
    offsets.reserveCapacity(count + 1)
    var offset = 0
    while offset < count {
      offsets.append(offset)
      offset += bytes.scalar(at: offset).length
    }
    offsets.append(count)
    return offsets
  }

  var characterCount: Int {
    var (offset, number) = (0, 0)
    while offset < count {
      offset += bytes.scalar(at: offset).length
      number += 1
    }
    return number
  }

  /// The characters, each with its mark.
  var characters: [MarkedText] {
    let offsets = characterOffsets
    return (0..<offsets.count - 1).map { self[offsets[$0]..<offsets[$0 + 1]] }
  }

  /// Whether it has characters and all of them satisfy a condition.
  func allScalars(_ condition: (Unicode.Scalar) -> Bool) -> Bool {
    var offset = 0
    while offset < count {
      let (scalar, length) = bytes.scalar(at: offset)
      guard let scalar, condition(scalar) else { return false }
      offset += length
    }
    return !isEmpty
  }

  /// Whether any of its characters satisfies a condition.
  func containsScalar(_ condition: (Unicode.Scalar) -> Bool) -> Bool {
    var offset = 0
    while offset < count {
      let (scalar, length) = bytes.scalar(at: offset)
      if let scalar, condition(scalar) { return true }
      offset += length
    }
    return false
  }

  /// Maps each character to others, which keep its mark.
  func mapScalars(_ change: (_ scalar: Unicode.Scalar, _ offset: Int) -> String?) -> MarkedText {
    var result = MarkedText()
    var offset = 0
    while offset < count {
      let (scalar, length) = bytes.scalar(at: offset)
      if let scalar, let new = change(scalar, offset) {
        result.append(new.utf8, isData: hasData(in: offset..<offset + length))
      } else {
        result.append(self, offset..<offset + length)
      }
      offset += length
    }
    result.isSafe = isSafe
    return result
  }

  /// It as HTML: jinja2's `escape`.
  func escaped(_ meter: Meter) throws(JinjaError) -> MarkedText {
    if isSafe { return self }
    try meter.change(6 * count)
    return mapScalars { scalar, _ in
      switch scalar {
      case "&": "&amp;"
      case "<": "&lt;"
      case ">": "&gt;"
      case "\"": "&#34;"
      case "'": "&#39;"
      default: nil
      }
    }.safe
  }
}
