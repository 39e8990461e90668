import Kernels
import TensorBasics

/// Lines of tentative positions beside those that end a chunk, which leave its line, or one another, somewhere: trees of
/// drafts.
///
/// A branch has its keys and values in groups of sixteen positions of its own, from the group of the chunk's first tentative
/// position on, so that attention reads a sequence's pages up to there and the branch's groups after that. What the
/// positions before its own have in these groups it copies from the line that it leaves. One sweep's branches are there at a
/// time; they are those of all sequences.
///
/// Memory: [branch, layer, head, two] groups.
public final class KeyValueBranches {
  /// Groups that a branch reaches over.
  private static let groupCount = 2

  /// Most branches of a sweep.
  public let capacity: Int
  private let shape: KeyValueShape
  private let memory: AlignedBuffer
  private var branches: [Branch] = []

  /// A branch, whose own positions follow those of a line that it leaves.
  struct Branch {
    let cache: KeyValueStore
    /// The branch that it leaves; nil = the chunk's own line.
    let parent: Int?
    let positions: Range<Int>
    /// The first of its groups, counted from the context's start.
    let firstGroup: Int
  }

  /// - Throws: ``KeyValueError/allocation(_:)``.
  public init(_ shape: KeyValueShape, capacity: Int) throws(KeyValueError) {
    (self.shape, self.capacity) = (shape, capacity)
    do {
      memory = try AlignedBuffer(byteCount: Self.byteCount(shape, capacity: capacity))
    } catch { throw .allocation(error) }
    branches.reserveCapacity(capacity)
  }

  /// Memory of so many branches.
  public static func byteCount(_ shape: KeyValueShape, capacity: Int) -> Int {
    AlignedBuffer.roundedUp(
      capacity * shape.layerCount * shape.keyValueHeadCount * headByteCount(shape))
  }

  private static func headByteCount(_ shape: KeyValueShape) -> Int {
    groupCount * KeyValueGroup.byteCount(headDim: shape.headDim)
  }

  /// Where branches of a sequence must end whose certain positions do.
  public static func limit(after certainEnd: Int) -> Int {
    (certainEnd / KeyValueGroup.positionCount + groupCount) * KeyValueGroup.positionCount
  }

  /// Forgets all branches, before the next sweep.
  public func removeAll() { branches.removeAll(keepingCapacity: true) }

  /// Adds a branch of a sequence whose chunk has tentative positions.
  ///
  /// - Parameters:
  ///   - parent: an earlier branch of the sequence that it leaves; nil = the chunk's own line.
  ///   - positions: its own, after one of the line that it leaves, up to ``limit(after:)``.
  ///   - certainEnd: where the sequence's certain positions end.
  public func append(
    _ cache: KeyValueStore, parent: Int?, positions: Range<Int>, certainEnd: Int
  ) {
    precondition(
      branches.count < capacity && positions.lowerBound >= certainEnd
        && positions.upperBound <= Self.limit(after: certainEnd), "there is no room for the branch")
    branches.append(
      Branch(
        cache: cache, parent: parent, positions: positions,
        firstGroup: certainEnd / KeyValueGroup.positionCount))
  }

  /// Writes the positions of a branch of one layer and head, rounded to f16, after those of the lines that it leaves, which
  /// have theirs.
  ///
  /// - Parameters:
  ///   - keys: of its first position, [headDim], after RoPE; those of the next one are `stride` floats later.
  ///   - values: as `keys`.
  package func store(
    _ number: Int, layer: Int, head: Int, keys: UnsafePointer<Float>, values: UnsafePointer<Float>,
    stride: Int
  ) {
    let branch = branches[number]
    let (headDim, length) = (shape.headDim, KeyValueGroup.positionCount)
    let groups = groups(number, layer: layer, head: head)
    for group in 0...((branch.positions.upperBound - 1) / length - branch.firstGroup) {
      let byteCount = KeyValueGroup.byteCount(headDim: headDim)
      let own = groups + group * byteCount
      if (branch.firstGroup + group) * length < branch.positions.lowerBound,
        let before = self.group(
          branch.firstGroup + group, ofLine: branch.parent, branch.cache, layer: layer, head: head)
      {
        own.copyMemory(from: before, byteCount: byteCount)
      } else {
        own.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
      }
    }
    for (row, position) in branch.positions.enumerated() {
      KeyValueBlock.store(
        key: keys + row * stride, value: values + row * stride, headDim: headDim,
        position: position - branch.firstGroup * length, into: groups)
    }
  }

  /// Puts the branch's groups of a tile into a list of the addresses of all.
  ///
  /// - Parameter result: [`AttentionTile.groupCount`], of the sequence's own pages.
  package func place(
    _ number: Int, layer: Int, head: Int, tile: Int,
    into result: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    let first = branches[number].firstGroup - tile * AttentionTile.groupCount
    for group in 0..<Self.groupCount where (0..<AttentionTile.groupCount).contains(first + group) {
      result[first + group] = UnsafeRawPointer(
        groups(number, layer: layer, head: head)
          + group * KeyValueGroup.byteCount(headDim: shape.headDim))
    }
  }

  /// Copies the groups of a branch up to `end` into the open pages of its sequence, whose tentative positions they replace.
  func copy(_ number: Int, to end: Int) {
    let branch = branches[number]
    let byteCount = KeyValueGroup.byteCount(headDim: shape.headDim)
    for layer in 0..<shape.layerCount {
      let page = branch.cache.pool.openPage(place: branch.cache.place, layer: layer)
      for head in 0..<shape.keyValueHeadCount {
        let groups = groups(number, layer: layer, head: head)
        for group in branch.firstGroup...(end - 1) / KeyValueGroup.positionCount {
          (page + head * shape.openBlockByteCount
            + group % KeyValueBlock.groupCount * byteCount).copyMemory(
              from: groups + (group - branch.firstGroup) * byteCount, byteCount: byteCount)
        }
      }
    }
  }

  /// The group of the line that is left where `group` lies, counted from the context's start.
  private func group(
    _ group: Int, ofLine parent: Int?, _ cache: KeyValueStore, layer: Int, head: Int
  ) -> UnsafeRawPointer? {
    let byteCount = KeyValueGroup.byteCount(headDim: shape.headDim)
    if let parent {
      let first = branches[parent].firstGroup
      return UnsafeRawPointer(
        groups(parent, layer: layer, head: head) + (group - first) * byteCount)
    }
    let (page, index) = group.quotientAndRemainder(dividingBy: KeyValueBlock.groupCount)
    return cache.openBlock(layer: layer, head: head, pageGroup: page).map {
      $0 + index * byteCount
    }
  }

  private func groups(_ number: Int, layer: Int, head: Int) -> UnsafeMutableRawPointer {
    memory.address
      + ((number * shape.layerCount + layer) * shape.keyValueHeadCount + head)
      * Self.headByteCount(shape)
  }
}
