/// Hidden states of the positions that a model read last: [capacity, hiddenSize], in a ring.
struct StateWindow {
  /// Most of them: as many tokens of a prompt the layer attends over that predicts further ones.
  static let capacity = 256

  /// Those whose states it holds.
  private(set) var positions = 0..<0
  private let hiddenSize: Int
  private var states: [Float]

  init(hiddenSize: Int) {
    self.hiddenSize = hiddenSize
    states = [Float](repeating: 0, count: Self.capacity * hiddenSize)
  }

  /// Memory of one.
  static func byteCount(hiddenSize: Int) -> Int {
    MemoryLayout<Float>.stride * capacity * hiddenSize
  }

  /// Takes states [rowCount, hiddenSize] of positions from `first` on, in place of all that it held from there on.
  mutating func take(_ rows: UnsafePointer<Float>, rowCount: Int, at first: Int) {
    let follows = first > positions.lowerBound && first <= positions.upperBound
    let end = first + rowCount
    for row in max(0, rowCount - Self.capacity)..<rowCount {
      let slot = (first + row) % Self.capacity * hiddenSize
      states.withUnsafeMutableBufferPointer {
        $0.baseAddress?.advanced(by: slot).update(from: rows + row * hiddenSize, count: hiddenSize)
      }
    }
    positions = max(follows ? positions.lowerBound : first, end - Self.capacity)..<end
  }

  /// Copies the state after a position that it holds.
  func copy(_ position: Int, to row: UnsafeMutablePointer<Float>) {
    states.withUnsafeBufferPointer {
      guard let base = $0.baseAddress else { return }
      row.update(from: base + position % Self.capacity * hiddenSize, count: hiddenSize)
    }
  }
}
