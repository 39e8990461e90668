/// Errors that end the reading of a model, or are collected by those who only show it.
struct ProblemCollector {
  let collects: Bool
  private(set) var problems: [FormatError] = []

  init(_ collects: Bool) { self.collects = collects }

  /// Notes an error, or throws it.
  mutating func note(_ error: FormatError) throws(FormatError) {
    guard collects else { throw error }
    problems.append(error)
  }
}
