public import ArgumentParser
public import BlockIO

/// How far repeated measurements may lie apart to be believed.
public struct SpreadArguments: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How far repeated measurements may lie apart, over their median, to be kept for later runs.",
      valueName: "share"))
  public var maxSpread = 0.25

  public init() {}

  public func validate() throws {
    guard maxSpread >= 0 else {
      throw ValidationError("--max-spread must be 0 or more, not \(maxSpread)")
    }
  }

  /// Keeps what was measured for later runs, unless the machine was too busy to believe it.
  ///
  /// - Parameters:
  ///   - name: of what was measured, such as `the drive`.
  ///   - spread: how far its measurements lie apart, over their median.
  public func keep(
    _ name: String, spread: Double, _ store: () throws(BlockIOError) -> Void
  ) {
    guard spread <= maxSpread else {
      Terminal.warn(
        "this machine is too busy to be believed: measurements of \(name) differ by "
          + "\(Int((spread * 100).rounded())) %; they are not kept, measure again when it is idle "
          + "(--max-spread \((spread * 100).rounded(.up) / 100) would keep them)")
      return
    }
    Terminal.warnWhereNotKept(store)
  }
}
