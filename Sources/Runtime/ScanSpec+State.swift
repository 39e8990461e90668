import Kernels
import ModelFormat

extension ScanSpec {
  /// Whether one matrix gives all inputs but β and α.
  var isFused: Bool { inputs != .byKind && inputs != .apart && !isOfThree }
  /// Whether queries, keys and values have a matrix each.
  var isOfThree: Bool { inputs == .gatedLinear || inputs == .taylor }
  /// Numbers of a token from which its decays and β come.
  var numberCount: Int {
    inputs == .taylor ? 0 : decaysKeys ? Self.decayRank : 2 * valueHeadCount
  }
  /// Decays and β of a token.
  var gateCount: Int {
    inputs == .taylor ? 0 : decaysKeys ? keysLength : 2 * valueHeadCount
  }
  /// Where queries, keys and values begin among the channels.
  var queriesStart: Int { inputs == .mamba2 ? valuesLength + keysLength : 0 }
  var keysStart: Int { inputs == .mamba2 ? valuesLength : keysLength }
  var valuesStart: Int { inputs == .mamba2 || !scans ? 0 : 2 * keysLength }
  /// Floats of what the convolution remembers, with what keeps the scan's state aligned.
  var historyCount: Int { ((tapCount - 1) * channelCount + 15) / 16 * 16 }
  /// Floats of a value head's state.
  var headStateCount: Int {
    inputs == .taylor
      ? LinearScan.stateCount(keyCount: featureCount, columnCount: valueLength + 1)
      : LinearScan.stateCount(keyCount: keyLength, columnCount: valueLength)
  }
  /// Floats of a token's query, key and value as a scan of features takes them; 0 of others.
  var expandedCount: Int { inputs == .taylor ? 2 * featureCount + valueLength + 1 : 0 }
  /// Where a value head's state begins in that of the layer.
  func stateStart(ofHead head: Int) -> Int { historyCount + head * headStateCount }
  /// Whether what is known under a key gives way to its new value (delta rule), for which keys have a length of 1.
  var deletes: Bool {
    switch inputs {
    case .byKeyHead, .byKind, .apart: true
    case .mamba2, .gatedConvolution, .lightning, .gatedLinear, .activatedConvolution, .taylor: false
    }
  }
  /// Floats of a sequence's state.
  package var stateCount: Int { historyCount + (scans ? valueHeadCount * headStateCount : 0) }
}
