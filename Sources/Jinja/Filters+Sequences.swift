/// Filters of sequences.
extension Interpreter {
  func sequenceFilter(
    _ filter: Filter, _ value: Value, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let name = filter.rawValue
    switch filter {
    case .map, .select, .reject, .selectattr, .rejectattr:
      do throws(JinjaError) {
        return try filter == .map ? map(value, passed) : select(filter, value, passed)
      } catch {
        // They are generators: what is wrong with them shows when they are read.
        return .generator(
          try Generator(above: 0) { () throws(JinjaError) -> Value? in throw error })
      }
    case .dictsort: return try sortedPairs(value, passed)
    case .groupby: return try groups(value, passed)
    case .join: return try join(value, passed)
    case .max, .min: return try extreme(filter, value, passed)
    case .sort: return try sort(value, passed)
    case .sum: return try sum(value, passed)
    case .unique: return try unique(value, passed)
    case .batch: return try batches(value, passed)
    default: break
    }
    _ = try passed.bound(to: [], of: name)
    switch filter {
    case .first:
      return try generator(over: value).next() ?? .undefined("the sequence has no first element")
    case .last:
      switch value {
      case .generator, .loop:
        throw JinjaError(.type, "a value of type '\(value.typeName)' cannot be reversed")
      default:
        return try elements(of: value).last ?? .undefined("the sequence has no last element")
      }
    case .list: return try .list(of: elements(of: value))
    case .items:
      if value.isUndefined { return .generator(try Generator([], above: 0)) }
      guard case .dictionary(let mapping) = value else {
        throw JinjaError(.type, "'items' needs a dictionary, not '\(value.typeName)'")
      }
      return .generator(try Generator(mapping.elements(.items, meter), above: mapping.depth))
    default:
      if case .text(let text) = value {
        return try slice(.text(text), nil, nil, .integer(-1))
      }
      let elements = try elements(of: value)
      return .generator(
        try Generator(count: elements.count, above: value.depth) {
          elements[elements.count - 1 - $0]
        })
    }
  }

  /// What `attribute=` looks up one after another: names and indices with dots between them.
  private func path(_ attribute: Value?) throws(JinjaError) -> [Value] {
    guard let attribute, !attribute.isNull else { return [] }
    guard case .text(let text) = attribute else { return [attribute] }
    return try text.split(at: MarkedText("."), most: -1, meter).map { part in
      let isNumber = part.allScalars(\.isPythonDigit)
      return (isNumber ? Value.integer(digits: part.bytes) : nil) ?? .text(part)
    }
  }

  private func attribute(
    _ path: [Value], of value: Value, standard: Value? = nil
  ) throws(JinjaError) -> Value {
    var value = value
    for part in path {
      value = try item(part, of: value)
      if value.isUndefined, let standard { value = standard }
    }
    return value
  }

  private func map(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    if !value.isTrue { return .generator(try Generator([], above: 0)) }
    let source = try generator(over: value)
    let change: (Value) throws(JinjaError) -> Value
    if passed.positional.isEmpty {
      let arguments = try passed.bound(to: ["attribute", "default"], of: "map")
      guard let name = arguments[0] else { throw JinjaError(.type, "'map' needs a filter") }
      let path = try path(name)
      let standard = arguments[1].flatMap { $0.isNull ? nil : $0 }
      change = { [unowned self] (value) throws(JinjaError) in
        try attribute(path, of: value, standard: standard)
      }
    } else {
      guard case .text(let name) = passed.positional[0] else {
        throw JinjaError(.type, "'map' needs the name of a filter")
      }
      let rest = Passed(positional: Array(passed.positional.dropFirst()), named: passed.named)
      change = { [unowned self] (value) throws(JinjaError) in
        try filter(name.string, value, rest)
      }
    }
    return .generator(
      try Generator(above: source.depth) { [meter] () throws(JinjaError) -> Value? in
        try meter.step()
        guard let next = try source.next() else { return nil }
        return try change(next)
      })
  }

  private func select(
    _ filter: Filter, _ value: Value, _ passed: Passed
  ) throws(JinjaError) -> Value {
    if !value.isTrue { return .generator(try Generator([], above: 0)) }
    var rest = passed
    var path: [Value] = []
    if filter == .selectattr || filter == .rejectattr {
      guard let first = rest.positional.first else {
        throw JinjaError(.type, "'\(filter.rawValue)' needs an attribute")
      }
      path = try self.path(first)
      rest.positional.removeFirst()
    }
    var test: String?
    if let first = rest.positional.first {
      guard case .text(let name) = first else {
        throw JinjaError(.type, "'\(filter.rawValue)' needs the name of a test")
      }
      test = name.string
      rest.positional.removeFirst()
    }
    let wanted = filter == .select || filter == .selectattr
    let source = try generator(over: value)
    return .generator(
      try Generator(above: source.depth) {
        [unowned self, path, test, rest] () throws(JinjaError) -> Value? in
        while let next = try source.next() {
          try meter.step()
          let value = try attribute(path, of: next)
          let passes = try test.map { (name) throws(JinjaError) in
            try self.test(name, value, rest)
          }
          if passes ?? value.isTrue == wanted { return next }
        }
        return nil
      })
  }

  /// What sorting compares: texts in lower case, unless case counts.
  private func sortKey(
    _ value: Value, _ isCaseSensitive: Value?
  ) throws(JinjaError) -> Value {
    guard !(isCaseSensitive?.isTrue ?? false), case .text(let text) = value else { return value }
    try meter.change(text.count)
    return .text(text.lowercased)
  }

  private func sortedPairs(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["case_sensitive", "by", "reverse"], of: "dictsort")
    let by = (arguments[1] ?? .text("key")).text?.string
    guard case .dictionary(let mapping) = value, by == "key" || by == "value" else {
      throw JinjaError(.type, "'dictsort' needs a dictionary, by 'key' or 'value'")
    }
    var pairs: [(Value, Value)] = []
    for ((key, value), item) in zip(mapping.pairs, try mapping.elements(.items, meter)) {
      pairs.append((try sortKey(by == "key" ? key : value, arguments[0]), item))
    }
    return try .list(
      of: Value.sorted(pairs, isReversed: arguments[2]?.isTrue ?? false, meter))
  }

  private func sort(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["reverse", "case_sensitive", "attribute"], of: "sort")
    var paths: [[Value]] = []
    if let names = arguments[2]?.text {
      for name in try names.split(at: MarkedText(","), most: -1, meter) {
        paths.append(try path(.text(name)))
      }
    } else {
      paths = [try path(arguments[2])]
    }
    var pairs: [(Value, Value)] = []
    for element in try elements(of: value) {
      var keys: [Value] = []
      try meter.list(paths.count)
      for path in paths { keys.append(try sortKey(attribute(path, of: element), arguments[1])) }
      pairs.append((try .list(of: keys), element))
    }
    return try .list(
      of: Value.sorted(pairs, isReversed: arguments[0]?.isTrue ?? false, meter))
  }

  private func unique(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["case_sensitive", "attribute"], of: "unique")
    let path = try path(arguments[1])
    let source = try generator(over: value)
    var seen: Set<HashKey> = []
    return .generator(
      try Generator(above: source.depth) { [unowned self] () throws(JinjaError) -> Value? in
        while let next = try source.next() {
          try meter.step()
          let key = try sortKey(attribute(path, of: next), arguments[0])
          try meter.hold(1)
          if seen.insert(try HashKey(key, meter)).inserted { return next }
        }
        return nil
      })
  }

  private func extreme(
    _ filter: Filter, _ value: Value, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["case_sensitive", "attribute"], of: filter.rawValue)
    let path = try path(arguments[1])
    var best: (key: Value, value: Value)?
    for element in try elements(of: value) {
      let key = try sortKey(attribute(path, of: element), arguments[0])
      guard let current = best else {
        best = (key, element)
        continue
      }
      if try key.order(current.key, meter) == (filter == .max ? .greater : .less) {
        best = (key, element)
      }
    }
    return best?.value ?? .undefined("the sequence is empty")
  }

  private func groups(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(
      to: ["attribute", "default", "case_sensitive"], of: "groupby", least: 1)
    let path = try path(arguments[0])
    var pairs: [(Value, Value)] = []
    for element in try elements(of: value) {
      let key = try attribute(path, of: element, standard: arguments[1])
      try meter.list(2)
      pairs.append((try sortKey(key, arguments[2]), try .tuple(of: [key, element])))
    }
    var groups: [(key: Value, elements: [Value])] = []
    for pair in try Value.sorted(pairs, isReversed: false, meter) {
      guard case .tuple(let parts) = pair else { continue }
      let key = parts.elements[0]
      if let last = groups.last,
        try sortKey(last.key, arguments[2]).isEqual(to: sortKey(key, arguments[2]), meter)
      {
        groups[groups.count - 1].elements.append(parts.elements[1])
      } else {
        try meter.hold(1)
        groups.append((key, [parts.elements[1]]))
      }
    }
    var result: [Value] = []
    for (key, elements) in groups {
      result.append(try .tuple(of: [key, .list(of: elements)]))
    }
    return try .list(of: result)
  }

  private func sum(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["attribute", "start"], of: "sum")
    let path = try path(arguments[0])
    var total = arguments[1] ?? .integer(0)
    for element in try elements(of: value) {
      let next = try attribute(path, of: element)
      try next.requireDefined()
      guard let a = total.number, let b = next.number else {
        throw JinjaError(.type, "'sum' needs numbers, not '\(next.typeName)'")
      }
      total = try Arithmetic(meter).apply("+", a, b)
    }
    return total
  }

  private func join(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["d", "attribute"], of: "join")
    let path = try path(arguments[1])
    var joined = Joined(try (arguments[0] ?? .text("")).string(meter))
    for element in try elements(of: value) {
      try joined.append(try attribute(path, of: element).string(meter), meter)
    }
    return .text(joined.text)
  }

  private func batches(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["linecount", "fill_with"], of: "batch", least: 1)
    guard let size = arguments[0]?.index, size > 0 else {
      throw JinjaError(.value, "'batch' needs a size")
    }
    let elements = try elements(of: value)
    var batches: [Value] = []
    for start in stride(from: 0, to: elements.count, by: size) {
      let end = min(elements.count - start, size) + start
      try meter.list(end - start)
      var batch = Array(elements[start..<end])
      if let fill = arguments[1], !fill.isNull, batch.count < size {
        try meter.list(size)
        batch += Array(repeating: fill, count: size - batch.count)
      }
      batches.append(try .list(of: batch))
    }
    return .generator(try Generator(batches, above: value.depth + 1))
  }
}
