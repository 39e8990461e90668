import Kernels

/// Positions that may be rejected: those of drafted tokens, before it is known whether the model draws them too.
///
/// They end a chunk, and lie in one page group that they do not fill. So nothing of them is sealed, written or shared, and
/// what a query after the certain positions sees stays: to reject them is to forget their number, and to zero what attention
/// would weigh with 0.
extension KeyValueStore {
  /// Where the next chunk may begin, at the earliest.
  var certainEnd: Int { chunk.upperBound - tentativeCount }

  /// Most positions after `certainEnd` that may be rejected later.
  ///
  /// - Parameter certainEnd: where the positions that are certain end, one of which is in the same chunk.
  public func tentativeRoom(after certainEnd: Int) -> Int {
    let (length, rest) = (KeyValueBlock.positionCount, certainEnd % KeyValueBlock.positionCount)
    // A policy plans for one page group at a time.
    if rest == 0 && policy != nil { return 0 }
    return max(0, min(length - 1 - rest, limit - certainEnd))
  }

  /// Takes back the tentative positions from `position` on; those before it are certain from here on.
  ///
  /// - Precondition: the chunk has passed all layers, and its positions before `position` are all that are certain.
  public func reject(from position: Int) {
    precondition(
      isCommitted && (certainEnd...chunk.upperBound).contains(position),
      "position \(position) is not one of the last \(tentativeCount) before \(chunk.upperBound)")
    if position < chunk.upperBound {
      end(at: position)
    } else {
      tentativeCount = 0
    }
  }

  /// Takes back the tentative positions that nothing was decided of, because the sweep that added them was broken off.
  public func rejectUndecided() {
    if isCommitted, tentativeCount > 0 { reject(from: certainEnd) }
  }

  /// Takes the positions of a branch, and of the lines that it leaves, up to `position` in place of the tentative ones; they
  /// are certain from here on.
  ///
  /// - Parameters:
  ///   - branch: one of the sequence's in the chunk, which has passed all layers.
  ///   - position: after one of the branch's own.
  public func accept(_ branch: Int, of branches: KeyValueBranches, to position: Int) {
    precondition(isCommitted && position > certainEnd, "a branch is accepted after its sweep")
    branches.copy(branch, to: position)
    end(at: position)
  }

  /// Makes `position`, in the page group of the tentative positions, the chunk's end.
  private func end(at position: Int) {
    tentativeCount = 0
    // Later groups are zeroed when they are opened again.
    for layer in 0..<shape.layerCount {
      for head in 0..<shape.keyValueHeadCount {
        KeyValueBlock.clearGroup(
          from: position % KeyValueBlock.positionCount, headDim: shape.headDim,
          in: pool.openPage(place: place, layer: layer) + head * shape.openBlockByteCount)
      }
    }
    if exactPositionCount == chunk.upperBound { exactPositionCount = position }
    exactPositionCount = min(exactPositionCount, position)
    chunk = min(chunk.lowerBound, position)..<position
  }
}
