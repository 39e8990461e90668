import Glibc
import Kernels
import TensorBasics

/// SparF (arXiv:2409.04992, algorithm 1), for the query heads that share a KV head.
///
/// 1. The r elements of largest |q| are chosen; their rows of the channel-indexed keys give approximate
///    scores s = q_i · K_iᵀ. The flash controller reads only pages with a chosen row (page filter) and
///    passes only the rows chosen on (entry filter).
/// 2. ŝ = softmax(s / √(‖q_i‖₁ / ‖q‖₁)). The paper writes √(d · ‖q_i‖₁ / ‖q‖₁): queries arrive here with
///    the model's scale of scores in them, 1/√d as a rule, so that only the rest of the root is left.
/// 3. The k positions of largest ŝ are chosen, the most recent ones among them in any case; exact
///    attention over them is blended with the mean value: α · out + (1 − α) · v̄, α = Σ ŝ over those.
///
/// The paper tests one query head per KV head. Where g heads share one, both choices are made for the group,
/// of |q| and ŝ summed over it, as SparQ does (arXiv:2312.04985): what is read does not grow with g.
/// Temperature, ŝ, α and the result are each query's own.
///
/// In a window, v̄ is the mean over the token groups that the window touches.
extension DriveController {
  /// Makes `buffers.partials` of the whole output: no other tiles can be merged with them.
  func attendSparsely(
    layer: Int, stream: Int, _ visible: VisibleRange, _ options: SparseAttention
  ) throws(DriveError) {
    let positions = Int(visible.first)...Int(visible.last)
    let elementCount = options.channelCount(headDim: layout.headDim)
    chooseElements(elementCount)
    try scoreApproximately(
      layer: layer, stream: stream, positions, elementCount: elementCount)
    weigh(positionCount: positions.count, elementCount: elementCount)
    let count = options.tokenCount(of: positions.count)
    choosePositions(
      count, of: positions.count, recentCount: options.recentCount(ofTokens: count))
    try attendOverChosen(count, layer: layer, stream: stream, firstPosition: positions.lowerBound)
    AttentionKernel.finish(
      buffers.partials, into: buffers.partials.outputs, outputStride: layout.headDim)
    buffers.partials.close()
    if count < positions.count {
      computeMean(layer: layer, stream: stream, firstPosition: positions.lowerBound)
      blend(chosenCount: count, into: buffers.partials.outputs)
    }
  }

  /// Adds a value to the sums that means are made of.
  func addToMean(stream: Int, position: Int, value: UnsafePointer<UInt16>) {
    let slotCount = buffers.valueSumCount(stream)
    let (group, index) = position.quotientAndRemainder(dividingBy: layout.groupPositions)
    let sum = buffers.valueSum(stream, slot: group % slotCount)
    if index == 0, slotCount > 1 || group == 0 {
      sum.update(repeating: 0, count: layout.headDim)
    }
    for element in 0..<layout.headDim {
      sum[element] += Float(Float16(bitPattern: value[element]))
    }
  }

  /// The r elements of largest |q| summed over the group, into `buffers.elements`, ascending.
  private func chooseElements(_ count: Int) {
    let length = layout.headDim
    buffers.magnitudes.update(repeating: 0, count: length)
    for index in 0..<contents.groupSize * length {
      buffers.magnitudes[index % length] += abs(buffers.queries[index])
    }
    TopSelection.largest(
      count, of: buffers.magnitudes, valueCount: length, into: buffers.elements)
    operations.selections += length
  }

  /// q_i · K_iᵀ for all visible positions, into `buffers.scores` [groupSize][positions].
  private func scoreApproximately(
    layer: Int, stream: Int, _ positions: ClosedRange<Int>, elementCount: Int
  ) throws(DriveError) {
    let size = PageLayout.tilePositionCount
    for member in 0..<contents.groupSize {
      (buffers.scores + member * buffers.scoreStride)
        .update(repeating: 0, count: positions.count)
    }
    for tile in positions.lowerBound / size...positions.upperBound / size {
      let seen = positions.clamped(to: tile * size...tile * size + size - 1)
      let isOnPages = (tile + 1) * size <= positionCounts[layer]
      var pageHere = -1
      for index in 0..<elementCount {
        let element = Int(buffers.elements[index])
        let keys: UnsafePointer<UInt16>
        if isOnPages {
          let page = element / layout.elementsPerPage
          if page != pageHere {
            try readPage(
              layout.channelPage(stream: stream, tile: tile, page: page), into: buffers.keyPages)
            pageHere = page
          }
          keys =
            UnsafeRawPointer(buffers.keyPages).assumingMemoryBound(to: UInt16.self)
            + element % layout.elementsPerPage * size
        } else {
          keys = UnsafePointer(buffers.channelKeys(stream)) + element * size
        }
        add(
          element: element, keys,
          tilePositions: seen.lowerBound - tile * size..<seen.upperBound
            + 1 - tile * size, toScoresFrom: seen.lowerBound - positions.lowerBound)
        operations.bytesPassed += 2 * seen.count
      }
    }
    operations.multiplyAdds += positions.count * elementCount * contents.groupSize
  }

  /// scores += q[element] · keys[element], for the group's queries.
  private func add(
    element: Int, _ keys: UnsafePointer<UInt16>, tilePositions: Range<Int>,
    toScoresFrom first: Int
  ) {
    let row = buffers.row
    Dequantisation.row(
      UnsafeRawPointer(keys + tilePositions.lowerBound), type: .f16,
      columnCount: tilePositions.count, into: row)
    for member in 0..<contents.groupSize {
      let weight = buffers.queries[member * layout.headDim + element]
      let scores = buffers.scores + member * buffers.scoreStride + first
      for index in 0..<tilePositions.count { scores[index] += weight * row[index] }
    }
  }

  /// Turns approximate scores into ŝ, and adds them over the group into `buffers.totals`.
  private func weigh(positionCount: Int, elementCount: Int) {
    buffers.totals.update(repeating: 0, count: positionCount)
    for member in 0..<contents.groupSize {
      let query = buffers.queries + member * layout.headDim
      let scores = buffers.scores + member * buffers.scoreStride
      var (all, chosen): (Float, Float) = (0, 0)
      for element in 0..<layout.headDim { all += abs(query[element]) }
      for index in 0..<elementCount { chosen += abs(query[Int(buffers.elements[index])]) }
      let factor = chosen > 0 ? 1 / (chosen / all).squareRoot() : 1
      var highest = -Float.infinity
      for index in 0..<positionCount { highest = max(highest, scores[index]) }
      for index in 0..<positionCount { scores[index] = (scores[index] - highest) * factor }
      VectorOps.exp(scores, count: positionCount)
      var sum: Float = 0
      for index in 0..<positionCount { sum += scores[index] }
      VectorOps.scale(scores, by: 1 / sum, count: positionCount)
      VectorOps.add(buffers.totals, scores, count: positionCount)
    }
    operations.exponentials += positionCount * contents.groupSize
  }

  /// The k positions that are attended over, relative to the first visible one, into `buffers.chosen`.
  private func choosePositions(_ count: Int, of positionCount: Int, recentCount: Int) {
    for index in positionCount - recentCount..<positionCount {
      buffers.totals[index] = .infinity
    }
    TopSelection.largest(
      count, of: buffers.totals, valueCount: positionCount, into: buffers.chosen)
    operations.selections += positionCount
  }

  /// Exact attention over the chosen positions: they are packed into tiles, in order.
  private func attendOverChosen(
    _ count: Int, layer: Int, stream: Int, firstPosition: Int
  ) throws(DriveError) {
    let size = PageLayout.tilePositionCount
    buffers.partials.reset()
    var groupHere = -1
    var pages: (keys: UnsafePointer<UInt16>, values: UnsafePointer<UInt16>)?
    for index in 0..<count {
      let (group, position) = (firstPosition + Int(buffers.chosen[index]))
        .quotientAndRemainder(dividingBy: layout.groupPositions)
      if group != groupHere {
        pages = try readGroup(layer: layer, stream: stream, group: group)
        groupHere = group
      }
      guard let pages else { continue }
      pack(pages.keys, pages.values, position, as: index % size)
      guard index % size == size - 1 || index == count - 1 else { continue }
      for member in 0..<contents.groupSize {
        buffers.visible[member] = VisibleRange(first: 0, last: Int32(index % size))
      }
      accumulate(tileFirstPosition: 0)
    }
    operations.bytesPassed += 4 * count * layout.headDim
    countProducts(positionCount: count)
  }

  /// Copies one position of a token group to position `target` of the tile in the buffers.
  private func pack(
    _ keys: UnsafePointer<UInt16>, _ values: UnsafePointer<UInt16>, _ position: Int,
    as target: Int
  ) {
    let (length, lanes) = (layout.headDim, KeyValueGroup.positionCount)
    let half = lanes * length
    let from = position / lanes * half
    let to = buffers.group(target / lanes)
    for element in 0..<length {
      to[element * lanes + target % lanes] = keys[from + element * lanes + position % lanes]
    }
    (to + half + target % lanes * length)
      .update(from: values + from + position % lanes * length, count: length)
  }

  /// output = α · output + (1 − α) · v̄, each query by its own α.
  private func blend(chosenCount: Int, into output: UnsafeMutablePointer<Float>) {
    for member in 0..<contents.groupSize {
      let weights = buffers.scores + member * buffers.scoreStride
      var alpha: Float = 0
      for index in 0..<chosenCount { alpha += weights[Int(buffers.chosen[index])] }
      alpha = min(1, alpha)
      let row = output + member * layout.headDim
      for element in 0..<layout.headDim {
        row[element] = alpha * row[element] + (1 - alpha) * buffers.mean[element]
      }
    }
    operations.multiplyAdds += 2 * contents.groupSize * layout.headDim
  }

  /// v̄, into `buffers.mean`: of all positions, or of the token groups from `firstPosition`'s on.
  private func computeMean(layer: Int, stream: Int, firstPosition: Int) {
    let (mean, length) = (buffers.mean, layout.headDim)
    let slotCount = buffers.valueSumCount(stream)
    let end = positionCounts[layer]
    let first = slotCount == 1 ? 0 : firstPosition / layout.groupPositions
    let last = slotCount == 1 ? 0 : (end - 1) / layout.groupPositions
    mean.update(repeating: 0, count: length)
    for group in first...last {
      VectorOps.add(mean, buffers.valueSum(stream, slot: group % slotCount), count: length)
    }
    VectorOps.scale(
      mean, by: 1 / Float(end - first * layout.groupPositions), count: length)
  }
}
