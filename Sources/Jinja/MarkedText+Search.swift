/// Taking texts apart and putting them together, as Python's `str` does.
extension MarkedText {
  enum Side { case left, right, both }

  /// Where some text that is in it ends for the last time.
  package func end(ofLast text: [UInt8]) -> Int? {
    bytes.lastIndex(of: text, in: 0..<count).map { $0 + text.count }
  }

  /// Strips white space, or any of the characters of `set`.
  func stripped(_ side: Side, of set: MarkedText? = nil) -> MarkedText {
    let scalars = set.map { set in
      Set(set.characters.map(\.bytes))
    }
    func isStripped(_ range: Range<Int>) -> Bool {
      if let scalars { return scalars.contains(Array(bytes[range])) }
      return bytes.scalar(at: range.lowerBound).scalar?.isPythonSpace ?? false
    }
    var (start, end) = (0, count)
    if side != .right {
      while start < end {
        let next = start + bytes.scalar(at: start).length
        guard isStripped(start..<next) else { break }
        start = next
      }
    }
    if side != .left {
      while end > start {
        let previous = bytes.characterStart(before: end)
        guard isStripped(previous..<end) else { break }
        end = previous
      }
    }
    return start == 0 && end == count ? self : self[start..<end]
  }

  /// Splits at a separator, at most `most` times, from the left.
  func split(
    at separator: MarkedText, most: Int, _ meter: Meter
  ) throws(JinjaError) -> [MarkedText] {
    var parts: [MarkedText] = []
    var start = 0
    try meter.scan(count)
    try meter.copy(count)
    while most < 0 || parts.count < most,
      let found = bytes.firstIndex(of: separator.bytes, in: start..<count)
    {
      try meter.hold(1)
      parts.append(self[start..<found])
      start = found + separator.count
    }
    try meter.hold(1)
    parts.append(self[start..<count])
    return parts
  }

  /// Splits at a separator, at most `most` times, from the right.
  func splitFromRight(
    at separator: MarkedText, most: Int, _ meter: Meter
  ) throws(JinjaError) -> [MarkedText] {
    var parts: [MarkedText] = []
    var end = count
    try meter.scan(4 * count)
    try meter.copy(count)
    while most < 0 || parts.count < most,
      let found = bytes.lastIndex(of: separator.bytes, in: 0..<end)
    {
      try meter.hold(1)
      parts.append(self[found + separator.count..<end])
      end = found
    }
    try meter.hold(1)
    parts.append(self[0..<end])
    return parts.reversed()
  }

  /// Splits at runs of white space, at most `most` times, from the left.
  func splitAtSpace(most: Int, _ meter: Meter) throws(JinjaError) -> [MarkedText] {
    var parts: [MarkedText] = []
    try meter.scan(4 * count)
    try meter.copy(count)
    var start = bytes.whiteSpaceEnd(from: 0)
    while start < count {
      try meter.hold(1)
      if most >= 0, parts.count == most {
        parts.append(self[start..<count])
        break
      }
      var end = start
      while end < count {
        let (scalar, length) = bytes.scalar(at: end)
        if scalar?.isPythonSpace ?? false { break }
        end += length
      }
      parts.append(self[start..<end])
      start = bytes.whiteSpaceEnd(from: end)
    }
    return parts
  }

  /// Splits at runs of white space, at most `most` times, from the right.
  func splitAtSpaceFromRight(most: Int, _ meter: Meter) throws(JinjaError) -> [MarkedText] {
    let parts = try splitAtSpace(most: -1, meter)
    guard most >= 0, parts.count > most else { return parts }
    var end = stripped(.right).count
    for part in parts.suffix(most).reversed() {
      end = self[0..<end - part.count].stripped(.right).count
    }
    return [self[0..<end]] + parts.suffix(most)
  }

  func lines(keepingEnds: Bool, _ meter: Meter) throws(JinjaError) -> [MarkedText] {
    var lines: [MarkedText] = []
    try meter.scan(4 * count)
    try meter.copy(count)
    var (start, offset) = (0, 0)
    while offset < count {
      let (scalar, length) = bytes.scalar(at: offset)
      let end = offset
      offset += length
      guard scalar?.isPythonLineEnd ?? false else { continue }
      if scalar == "\r", offset < count, bytes[offset] == 0x0A { offset += 1 }
      try meter.hold(1)
      lines.append(self[start..<(keepingEnds ? offset : end)])
      start = offset
    }
    if start < count {
      try meter.hold(1)
      lines.append(self[start..<count])
    }
    return lines
  }

  /// Replaces at most `most` places from the left; all where it is negative.
  func replacing(
    _ old: MarkedText, with new: MarkedText, most: Int, _ meter: Meter
  ) throws(JinjaError) -> MarkedText {
    var result = MarkedText()
    result.isSafe = isSafe
    var (start, number) = (0, 0)
    try meter.scan(count)
    if old.isEmpty {
      try meter.hold(count)
      for character in characters where most < 0 || number < most {
        try meter.copy(new.count + character.count)
        result.append(new)
        result.append(character)
        start += character.count
        number += 1
      }
      if most < 0 || number < most { result.append(new) }
    } else {
      while most < 0 || number < most,
        let found = bytes.firstIndex(of: old.bytes, in: start..<count)
      {
        try meter.step()
        try meter.copy(new.count + found - start)
        result.append(self, start..<found)
        result.append(new)
        start = found + old.count
        number += 1
      }
    }
    try meter.copy(count - start)
    result.append(self, start..<count)
    return result
  }

  func repeated(_ times: Int, _ meter: Meter) throws(JinjaError) -> MarkedText {
    var result = MarkedText()
    result.isSafe = isSafe
    guard times > 0, !isEmpty else { return result }
    let (total, overflow) = count.multipliedReportingOverflow(by: times)
    try meter.copy(overflow ? Int.max : total)
    for _ in 0..<times { result.append(self) }
    return result
  }
}

/// Texts after each other, with a separator between them.
struct Joined {
  private let separator: MarkedText
  private var isFirst = true
  private(set) var text = MarkedText()

  init(_ separator: MarkedText) {
    self.separator = separator
    text.isSafe = separator.isSafe
  }

  mutating func append(_ part: MarkedText, _ meter: Meter) throws(JinjaError) {
    try meter.copy(part.count + separator.count)
    if !isFirst { text.append(separator) }
    isFirst = false
    text.append(part)
  }
}
