/// What a parser made of the beginning of a file.
///
/// Parsers see a prefix of the file. Where it is too short, the caller reads a longer one and parses
/// again; doubling the prefix each time keeps the work linear.
public enum ParseProgress<Value> {
  /// Everything the parser wanted was in the prefix.
  case complete(Value)
  /// The prefix must hold at least this many bytes (more than it held, at most the file's length).
  case needsMore(atLeast: Int)
}

extension ParseProgress: Sendable where Value: Sendable {}

/// Why parsing stopped, inside the parsers.
enum ParseInterruption: Error {
  case needsMore(atLeast: Int)
  case failed(FormatError)
}

/// Runs a parser and turns its interruption into the public form.
func parseProgress<Value>(
  _ parse: () throws(ParseInterruption) -> Value
) throws(FormatError) -> ParseProgress<Value> {
  do {
    return .complete(try parse())
  } catch {
    switch error {
    case .needsMore(let byteCount): return .needsMore(atLeast: byteCount)
    case .failed(let reason): throw reason
    }
  }
}
