public import ModelFormat
public import Runtime
public import WeightLoader

extension Progress {
  /// Shows how far `session` comes with the next tokens that it is given, which are `count` of the total
  /// from `first` on.
  public func follow(_ session: Session, from first: Int = 0, count: Int) {
    session.onProgress = { [self] in update(first + Int($0 * Double(count))) }
  }

  /// Shows what each token that `session` decodes from now on has read, where it takes long.
  public func followTokens(_ session: Session) {
    let device = session.stream.source.device
    var (position, start) = (session.position, device.statistics.bytesRead)
    session.onDecodePart = { [self, unowned session] in
      if session.position != position {
        (position, start) = (session.position, device.statistics.bytesRead)
        restart()
      }
      update(device.statistics.bytesRead - start)
    }
  }

  /// Shows how far `session` comes with tokens that `read` gives it.
  public static func reading<Result>(
    _ tokenCount: Int, in session: Session, _ title: String = "reading the prompt",
    _ read: () throws -> Result
  ) rethrows -> Result {
    try showing(title, total: tokenCount, unit: .count("tokens")) { progress in
      progress.follow(session, count: tokenCount)
      defer { session.onProgress = nil }
      return try read()
    }
  }
}

extension ModelSource {
  /// The model's identity, for which all weights may have to be read: shows how far that has come.
  public func computeIdentity(showingProgress title: String) throws -> ModelIdentity? {
    let total = description.storedByteCount
    return try Progress.showing(title, total: total, unit: .bytes) { progress in
      try computeIdentity(
        cancellation: Interruption.flag, note: { Terminal.warn($0) },
        progress: { progress.update($0) })
    }
  }
}
