import BlockIO
import CommandLineSupport
import HostResources
import KVCache
import Kernels
import Runtime
import TensorBasics

extension RunReport {
  /// What a run did, for people: a few lines, each shorter than 80 characters.
  ///
  /// - Parameters:
  ///   - seed: what the answer was drawn with; nil where nothing was drawn.
  ///   - maximumTokenCount: tokens that the answer was allowed.
  func summary(seed: UInt64?, maximumTokenCount: Int) -> [String] {
    var lines = [promptLine, answerLine(seed: seed)]
    if io.bytesRead > 0 {
      let each = io.bytesPerToken >= 1 ? ", \(ByteCount(Int(io.bytesPerToken))) a token" : ""
      lines.append(
        "drive: \(ByteCount(io.bytesRead)) read at "
          + "\(ByteCount(Int(io.driveBytesPerSecond)))/s\(each)")
    }
    if result.drafts.draftedCount > 0 {
      let each = Double(result.sampledTokenCount - 1) / Double(max(1, result.sweepCount - 1))
      lines.append(
        "drafts: \(result.drafts.acceptedCount) of \(result.drafts.draftedCount) were right, "
          + "\((each * 100).rounded() / 100) tokens a sweep")
    }
    lines += keyValueLines
    lines.append(
      "memory: peak \(ByteCount(memory.peakResidentBytes)) of "
        + "\(ByteCount(memory.budgetBytes))")
    return lines + [ending(maximumTokenCount)].compactMap { $0 }
  }

  private var promptLine: String {
    let computed = promptTokens.count - result.reusedTokenCount
    var line = "prompt: \(Terminal.counted(promptTokens.count, "token"))"
    if result.reusedTokenCount > 0 { line += ", \(result.reusedTokenCount) of them reused" }
    guard let rate = timing.prefillTokensPerSecond, rate > 0 else { return line }
    let seconds = Self.seconds(Double(computed) / rate)
    // A rate of a few tokens says more about the weights, which had to be read for them.
    guard computed >= Self.leastTokensOfRate else {
      return line
        + ", \(result.reusedTokenCount > 0 ? "\(computed) computed" : "read") in \(seconds)"
    }
    return line + ", \(Self.rate(rate)), \(seconds)"
  }

  private static let leastTokensOfRate = 16

  private func answerLine(seed: UInt64?) -> String {
    var line = "answer: \(Terminal.counted(result.tokens.count, "token"))"
    if let rate = timing.decodeTokensPerSecond { line += ", \(Self.rate(rate))" }
    if let first = timing.timeToFirstTokenSeconds {
      line += ", the first after \(Self.seconds(first))"
    }
    if let seed { line += ", seed \(seed)" }
    return line
  }

  private var keyValueLines: [String] {
    var lines: [String] = []
    let moved = [
      ("read", Int(io.kvBytesPerToken)), ("written", io.kvBytesWritten / max(1, kvPositionCount)),
    ].filter { $0.1 > 0 }.map { "\(ByteCount($0.1)) \($0.0) a token" }
    if io.kvBytesWritten + io.kvBytesRead > 0 {
      lines.append(
        "keys and values: \(io.kvType.rawValue), \(Self.percent(io.kvResidentFraction)) in memory")
      if !moved.isEmpty { lines.append("  " + moved.joined(separator: ", ")) }
    } else if io.kvType != .f16 {
      lines.append("keys and values: \(io.kvType.rawValue)")
    }
    if io.kvPolicy != .full {
      lines.append(
        "\(io.kvPolicy): attended over \(Self.percent(io.kvAttendedFraction)) of the blocks")
    }
    return lines
  }

  /// Why the answer ends where it does and how to get more; nil where the model ended it.
  func ending(_ maximumTokenCount: Int) -> String? {
    switch result.finishReason {
    case .stop: return nil
    case .cancelled: return "the answer was interrupted"
    case .length:
      return "the answer was cut off at \(Terminal.counted(maximumTokenCount, "token")): "
        + "raise --max-tokens for more"
    case .context:
      let remedy =
        contextLength.reserved < contextLength.trained
        ? "--context N makes it longer" : "the model was trained for no more"
      return
        "the answer was cut off: the context of \(Terminal.counted(contextLength.reserved, "token")) "
        + "is full; \(remedy)"
    }
  }

  private static func percent(_ fraction: Double) -> String {
    "\(Int((100 * fraction).rounded())) %"
  }

  private static func rate(_ value: Double) -> String {
    "\((value * 100).rounded() / 100) tokens/s"
  }

  private static func seconds(_ value: Double) -> String { "\((value * 100).rounded() / 100) s" }
}
