import CommandLineSupport
import ModelFormat
import TensorBasics
import WeightLoader

/// What reading everything in a file and comparing checksums gave; what differs is an error instead.
struct VerificationResult {
  enum Outcome: String {
    /// The file's own checksums agree.
    case intact
    /// Checksums from the last time it was read agree.
    case unchanged
    /// Checksums of what was read the last time agree; the rest is remembered from now on.
    case unchangedInPart
    /// The file was written to since the last time, and holds another model.
    case changed
    /// The file was written to or renamed since the last time, and holds the same weights.
    case rewritten
    /// The file was written to since it was read in part, so that there was nothing to compare with.
    case unknown
    /// It was never read before: its checksums are remembered from now on.
    case firstTime

    init(_ memory: WeightMemory) {
      self =
        switch memory {
        case .unchanged: .unchanged
        case .inPart: .unchangedInPart
        case .changed: .changed
        case .rewritten: .rewritten
        case .unknown: .unknown
        case .none: .firstTime
        }
    }
  }

  let path: String
  let outcome: Outcome
  /// Extents of an image, tensors of another file.
  let partCount: Int
  let byteCount: Int
  let identity: ModelIdentity?

  /// Reads all of `source`.
  init(path: String, _ source: ModelSource, _ cancellation: CancellationFlag) throws {
    self.path = path
    let description = source.description
    let title = "verifying \(Progress.name(path))"
    guard description.extents.isEmpty else {
      outcome = .intact
      partCount = description.extents.count
      byteCount = description.extents.reduce(0) { $0 + $1.byteCount }
      identity = nil
      try Progress.showing(title, total: byteCount, unit: .bytes) { progress in
        try source.verifyExtents(cancellation: cancellation) { progress.update($0) }
      }
      return
    }
    guard description.configuration != nil, !description.tensors.isEmpty else {
      throw CommandError(.notPossibleHere, "\(path): the file holds no weights to verify")
    }
    byteCount = description.storedByteCount
    let (identity, memory) = try Progress.showing(title, total: byteCount, unit: .bytes) {
      progress in
      try source.verifyWeights(
        cancellation: cancellation, note: { Terminal.warn($0) },
        progress: { progress.update($0) })
    }
    outcome = Outcome(memory)
    partCount = description.storedTensors.count
    self.identity = identity
  }

  func write(to json: inout JSONWriter) {
    json.object { json in
      json.text("path", path)
      json.text("outcome", outcome.rawValue)
      json.number("parts", partCount)
      json.number("bytes", byteCount)
      json.text("identity", identity?.description)
    }
  }

  /// A line for people.
  var text: String {
    let bytes = ByteCount(byteCount)
    let identity = identity.map { "; identity \($0)" } ?? ""
    let found =
      switch outcome {
      case .intact: "intact"
      case .unchanged: "unchanged since they were last read"
      case .unchangedInPart: "unchanged as far as they were read before"
      case .changed:
        "the file was written to since they were last read, and now holds another model: most of them are not what "
          + "they were"
      case .rewritten:
        "the file was written to or renamed since they were last read, and they are what they were"
      case .unknown:
        "the file was written to since they were read before, and what they were is not known"
      case .firstTime: "read for the first time"
      }
    let parts = outcome == .intact ? "extents" : "tensors"
    return "\(partCount) \(parts), \(bytes): \(found)\(identity)"
  }
}
