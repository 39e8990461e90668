/// What a rendering may use.
package struct Limits: Sendable {
  /// Steps of the interpreter.
  package var steps: Int
  /// Bytes of all texts that exist at once, of those that are not small.
  package var text: Int
  /// Bytes of all lists, dictionaries and small texts that are made, whether they are kept or not.
  package var values: Int
  /// Bytes of rendered text.
  package var output: Int
  /// Processor time.
  package var nanoseconds: Int
  /// Calls of macros inside each other, and levels of nested values.
  static let depth = 100
  /// Expressions and statements being evaluated inside each other.
  static let nesting = 1000
  /// Elements of a range.
  static let range = 100_000
  /// Bytes that a new value takes in a list, its own memory included where it is small.
  static let valueByteCount = 128
  /// Bytes that a list takes before its first element.
  static let listByteCount = 32
  /// Bytes of the longest small text.
  static let smallText = 512

  /// The bounds for a small conversation of our own, which says what a template needs.
  package static func probe(templateByteCount: Int) -> Limits {
    var limits = Limits(templateByteCount: templateByteCount, inputByteCount: 1000)
    limits.steps = 1_000_000
    limits.nanoseconds = 500_000_000
    return limits
  }

  /// The bounds for a template and an input of so many bytes in all.
  package init(templateByteCount: Int, inputByteCount: Int) {
    let byteCount = templateByteCount + inputByteCount
    steps = 10_000_000 + 64 * byteCount
    text = 32 << 20 + 32 * byteCount
    values = 128 << 20 + 256 * byteCount
    output = 16 << 20 + 4 * inputByteCount
    nanoseconds = 2_000_000_000 + 2_000 * byteCount
  }
}

/// Counts what a rendering has used, and stops it at its limits.
final class Meter {
  /// Bytes of a text, given back when it is gone.
  final class Lease: @unchecked Sendable {
    // Safety: a text has one only while it is rendered, by one thread.
    private let meter: Meter
    private let byteCount: Int

    fileprivate init(_ meter: Meter, _ byteCount: Int) {
      self.meter = meter
      self.byteCount = byteCount
      meter.text += byteCount
    }

    deinit { meter.text -= byteCount }
  }

  private let limits: Limits
  private let time: TimeLimit
  private(set) var steps = 0
  /// Bytes of lists, dictionaries and small texts so far.
  private(set) var values = 0
  /// Bytes of texts that exist.
  private var text = 0
  /// Bytes of texts that are being written: all that was copied since the expression or block began.
  private var pending = 0

  init(_ limits: Limits) {
    self.limits = limits
    time = TimeLimit(nanoseconds: limits.nanoseconds)
  }

  /// Counts steps of the interpreter.
  func step(_ count: Int = 1) throws(JinjaError) {
    let (sum, overflow) = steps.addingReportingOverflow(count)
    if overflow || sum > limits.steps {
      throw JinjaError(.limit, "rendering takes more than \(limits.steps) steps")
    }
    // Time is looked at every 64 steps, and before what takes as many.
    if sum >> 6 != steps >> 6, time.isOver {
      throw JinjaError(
        .limit,
        "rendering takes more than \(limits.nanoseconds / 1_000_000) ms of processor time")
    }
    steps = sum
  }

  /// Counts bytes of text before they are written.
  func copy(_ count: Int) throws(JinjaError) {
    if count > limits.text - text - pending {
      throw JinjaError(.limit, "rendering makes more than \(limits.text) bytes of text")
    }
    pending += count
    if count <= Limits.smallText { try make(count) }
    try step(count / 4096)
  }

  /// Runs what makes one value; what it copies on the way is gone after it.
  @inline(__always)
  func making<Result>(_ run: () throws(JinjaError) -> Result) throws(JinjaError) -> Result {
    let before = pending
    defer { pending = before }
    return try run()
  }

  /// Counts new values before they are put into a list, or are otherwise kept.
  func hold(_ count: Int) throws(JinjaError) {
    let (bytes, overflow) = count.multipliedReportingOverflow(by: Limits.valueByteCount)
    try make(overflow ? Int.max : bytes)
    try step(count)
  }

  /// Counts a new list of values that are there already, before they are copied into it.
  func list(_ count: Int) throws(JinjaError) {
    let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Value>.stride)
    try make(overflow ? Int.max : bytes)
    try make(Limits.listByteCount)
    try step(1 + count / 8)
  }

  /// Counts a value before it is appended to a list, where it may be new or there already.
  func append(_ value: Value) throws(JinjaError) {
    switch value {
    case .null, .bool, .integer, .float, .list, .tuple, .dictionary, .range:
      // Those with memory of their own were counted when they were made.
      try make(MemoryLayout<Value>.stride)
      try step()
    default: try hold(1)
    }
  }

  private func make(_ byteCount: Int) throws(JinjaError) {
    let (sum, overflow) = values.addingReportingOverflow(byteCount)
    if overflow || sum > limits.values {
      throw JinjaError(.limit, "rendering makes more than \(limits.values) bytes of values")
    }
    values = sum
  }

  /// Counts a text for as long as it exists.
  func lease(_ byteCount: Int) throws(JinjaError) -> Lease {
    if byteCount > limits.text - text {
      throw JinjaError(.limit, "rendering makes more than \(limits.text) bytes of text")
    }
    return Lease(self, byteCount)
  }

  /// Counts writing so many bytes of text anew, character by character.
  func change(_ byteCount: Int) throws(JinjaError) {
    try copy(byteCount)
    try step(byteCount / 8)
  }

  /// Counts looking through so many bytes of text.
  func scan(_ byteCount: Int) throws(JinjaError) { try step(byteCount / 64) }

  /// Checks the size of the rendered text.
  func output(_ byteCount: Int) throws(JinjaError) {
    if byteCount > limits.output {
      throw JinjaError(.limit, "the rendered text has more than \(limits.output) bytes")
    }
  }
}
