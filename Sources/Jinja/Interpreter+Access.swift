extension Interpreter {
  /// `value.name`: an attribute first, then an item.
  func attribute(_ name: String, of value: Value) throws(JinjaError) -> Value {
    try value.requireDefined()
    if let attribute = try pythonAttribute(name, of: value) { return attribute }
    if case .dictionary(let mapping) = value, let item = mapping[name] { return item }
    return missing(name, of: value)
  }

  /// `value[index]`: an item first, then an attribute.
  func item(_ index: Value, of value: Value) throws(JinjaError) -> Value {
    try value.requireDefined()
    if let item = try pythonItem(index, of: value) { return item }
    guard case .text(let text) = index else {
      return missing(try index.repr(meter).string, of: value)
    }
    return try pythonAttribute(text.string, of: value) ?? missing(text.string, of: value)
  }

  private func missing(_ name: String, of value: Value) -> Value {
    .undefined("a value of type '\(value.typeName)' has no '\(name)'")
  }

  private func pythonItem(_ index: Value, of value: Value) throws(JinjaError) -> Value? {
    switch value {
    case .dictionary(let mapping):
      guard let key = try? HashKey(index, meter) else { return nil }
      return mapping[key]
    case .list(let sequence), .tuple(let sequence):
      return place(index, sequence.elements.count).map { sequence.elements[$0] }
    case .range(let range): return place(index, range.count).map { .integer(range[$0]) }
    case .text(let text):
      guard index.index != nil else { return nil }
      try meter.step(1 + text.count / 16)
      let offsets = text.characterOffsets
      return place(index, offsets.count - 1).map { .text(text[offsets[$0]..<offsets[$0 + 1]]) }
    default: return nil
    }
  }

  /// Where an index, which counts from the end where it is negative, points to.
  private func place(_ index: Value, _ count: Int) -> Int? {
    guard let index = index.index else { return nil }
    let place = index < 0 ? index &+ count : index
    return (0..<count).contains(place) ? place : nil
  }

  /// What Python's `getattr` finds, as far as the sandbox lets it be used.
  private func pythonAttribute(_ name: String, of value: Value) throws(JinjaError) -> Value? {
    if name.hasPrefix("_") { return nil }
    switch value {
    case .namespace(let namespace): return namespace[name]
    case .loop(let loop): return try loop.attribute(name, meter)
    case .cycler(let cycler):
      if name == "current" { return cycler.current }
      return ["next", "reset"].contains(name) ? .method(receiver: value, name: name) : nil
    case .macro(let macro):
      let definition = macro.definition
      switch name {
      case "name": return .text(definition.name)
      case "arguments": return try .tuple(of: definition.parameters.map { .text($0.name) })
      case "catch_kwargs": return .bool(definition.reads.contains("kwargs"))
      case "catch_varargs": return .bool(definition.reads.contains("varargs"))
      case "caller": return .bool(definition.reads.contains("caller"))
      default: return nil
      }
    case .function(.dict): return name == "fromkeys" ? .method(receiver: value, name: name) : nil
    default: break
    }
    if Methods.forbidden(of: value).contains(name) {
      return .undefined("the sandbox forbids '\(name)' of a value of type '\(value.typeName)'")
    }
    return Methods.names(of: value).contains(name) ? .method(receiver: value, name: name) : nil
  }

  // MARK: Slices

  func slice(
    _ value: Value, _ start: Value?, _ stop: Value?, _ step: Value?
  ) throws(JinjaError) -> Value {
    try value.requireDefined()
    func bound(_ value: Value?) throws(JinjaError) -> Int? {
      guard let value else { return nil }
      if case .wide(let number) = value { return number.integer.isNegative ? .min : .max }
      guard let index = value.index else {
        throw JinjaError(.type, "a slice needs integers, not '\(value.typeName)'")
      }
      return index
    }
    let (start, stop) = (try bound(start), try bound(stop))
    let step = try bound(step) ?? 1
    if step == 0 { throw JinjaError(.value, "the step of a slice cannot be zero") }
    switch value {
    case .list(let sequence):
      return try .list(of: sliced(sequence.elements, start, stop, step))
    case .tuple(let sequence):
      return try .tuple(of: sliced(sequence.elements, start, stop, step))
    case .text(let text): return .text(try sliced(text, start, stop, step))
    case .range(let range):
      let (first, last) = Self.bounds(range.count, start, stop, step)
      return .range(
        try StepRange(range[first], range[last], range.step.multipliedReportingOverflow(by: step).0)
      )
    default: throw JinjaError(.type, "a value of type '\(value.typeName)' has no slices")
    }
  }

  private func sliced(
    _ elements: [Value], _ start: Int?, _ stop: Int?, _ step: Int
  ) throws(JinjaError) -> [Value] {
    let (first, last) = Self.bounds(elements.count, start, stop, step)
    let indices = Self.indices(first, last, step)
    try meter.list(indices.count)
    return indices.map { elements[$0] }
  }

  private func sliced(
    _ text: MarkedText, _ start: Int?, _ stop: Int?, _ step: Int
  ) throws(JinjaError) -> MarkedText {
    try meter.step(1 + text.count / 16)
    let offsets = text.characterOffsets
    let (first, last) = Self.bounds(offsets.count - 1, start, stop, step)
    if step == 1 {
      let range = offsets[first]..<max(offsets[first], offsets[last])
      try meter.copy(range.count)
      return text[range]
    }
    var result = MarkedText()
    for index in Self.indices(first, last, step) {
      try meter.copy(offsets[index + 1] - offsets[index])
      result.append(text, offsets[index]..<offsets[index + 1])
    }
    result.isSafe = text.isSafe
    return result
  }

  /// Python's `slice.indices`.
  private static func bounds(
    _ count: Int, _ start: Int?, _ stop: Int?, _ step: Int
  ) -> (first: Int, last: Int) {
    let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
    func clamp(_ index: Int) -> Int {
      min(max(index < 0 ? index + count : index, low), high)
    }
    let first = start.map(clamp) ?? (step > 0 ? low : high)
    let last = stop.map(clamp) ?? (step > 0 ? high : low)
    return (first, last)
  }

  private static func indices(_ first: Int, _ last: Int, _ step: Int) -> StrideTo<Int> {
    stride(from: first, to: last, by: step)
  }
}

extension StrideTo<Int> {
  fileprivate var count: Int { underestimatedCount }
}
