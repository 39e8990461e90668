import BlockIO
public import ModelFormat
public import TensorBasics

/// A layer's bundles: units of equal shape of which a token needs a few, as its experts.
///
/// A bundle has a part of each of several stacked tensors. In an image with bundles the parts lie
/// together and one read brings them; elsewhere each part is a read of its own.
public struct BundleFamily: Sendable {
  /// A matrix of a bundle, as it lies in memory.
  public struct Part: Sendable {
    /// Index into `ModelDescription.tensors`.
    public let tensor: Int
    public let rowCount: Int
    /// As the file has it.
    public let layout: RowLayout
    /// Index into ``BundleFamily/fragments``, and the part's first byte from there.
    let fragment: Int
    let offset: Int
  }

  /// Bytes that lie together, in the file and in a slot.
  struct Fragment: Sendable {
    var fileIndex: Int
    /// Of bundle 0, and from one bundle to the next.
    var offset: Int
    var byteStride: Int
    /// Where each bundle's bytes begin, where they lie at no equal distances.
    var places: [ExpertStack.Place]?
    var byteCount: Int
    /// First byte of the fragment's room in a slot: aligned, and long enough for aligned reads.
    var slotOffset = 0

    /// Whether every bundle's bytes begin at a multiple of `alignment`.
    func isAligned(to alignment: Int) -> Bool {
      places?.allSatisfy { $0.offset % alignment == 0 } ?? ((offset | byteStride) % alignment == 0)
    }

    /// The bytes of `bundle`.
    func extent(of bundle: Int) -> Extent {
      Extent(
        fileIndex: places?[bundle].fileIndex ?? fileIndex,
        offset: places?[bundle].offset ?? offset + bundle * byteStride, byteCount: byteCount)
    }
  }

  public let parts: [Part]
  public let bundleCount: Int
  let fragments: [Fragment]
  /// Memory of one bundle.
  public let slotByteCount: Int
  /// Bytes of a bundle in the file.
  public let bundleByteCount: Int

  /// - Parameters:
  ///   - tensors: stacked tensors with equally many parts, in the order of use.
  ///   - alignment: what the device's reads must be aligned to.
  public init(tensors: [Int], of model: ModelDescription, alignment: Int) {
    var parts: [Part] = []
    var fragments: [Fragment] = []
    var counts: Set<Int> = []
    for tensor in tensors {
      let record = model.tensors[tensor]
      guard let stack = record.stack else { preconditionFailure("a bundle's tensors are stacked") }
      counts.insert(stack.count)
      let end = record.offset + record.partByteCount
      if let last = fragments.indices.last, record.isBundled,
        fragments[last].fileIndex == record.fileIndex,
        fragments[last].byteStride == stack.byteStride,
        record.offset >= fragments[last].offset, end - fragments[last].offset <= stack.byteStride
      {
        fragments[last].byteCount = max(fragments[last].byteCount, end - fragments[last].offset)
      } else {
        fragments.append(
          Fragment(
            fileIndex: record.fileIndex, offset: record.offset, byteStride: stack.byteStride,
            places: stack.places, byteCount: record.partByteCount))
      }
      parts.append(
        Part(
          tensor: tensor, rowCount: record.partRowCount, layout: record.layout,
          fragment: fragments.count - 1,
          offset: record.offset - fragments[fragments.count - 1].offset))
    }
    precondition(counts.count == 1, "a bundle's tensors have equally many parts")
    // Bundles of an image fill their stride, so that the last one too is whole extents.
    for index in fragments.indices
    where fragments[index].isAligned(to: FlashImage.alignment)
      && parts.count(where: { $0.fragment == index }) > 1
    {
      fragments[index].byteCount = fragments[index].byteStride
    }
    var slotByteCount = 0
    for index in fragments.indices {
      fragments[index].slotOffset = slotByteCount
      slotByteCount +=
        AlignedBuffer.roundedUp(fragments[index].byteCount)
        + (fragments[index].isAligned(to: alignment) ? 0 : AlignedBuffer.pageByteCount)
    }
    self.parts = parts
    self.fragments = fragments
    self.slotByteCount = slotByteCount
    bundleCount = counts.first!
    bundleByteCount = fragments.reduce(0) { $0 + $1.byteCount }
  }

  /// Whether the reads of every bundle are whole extents, so that they can be checked.
  func isVerifiable(_ model: ModelDescription, alignment: Int) -> Bool {
    fragments.indices.allSatisfy { fragment in
      (0..<bundleCount).allSatisfy { bundle in
        let read = fragments[fragment].extent(of: bundle).aligned(to: alignment)
        return ExtentVerifier.wholeExtents(around: read, in: model)?.range == read
      }
    }
  }

  /// Where a part of `bundle` begins in its slot, whose reads began at multiples of `alignment`.
  func slotOffset(ofPart part: Int, of bundle: Int, alignment: Int) -> Int {
    let fragment = fragments[parts[part].fragment]
    return fragment.slotOffset + fragment.extent(of: bundle).offset % alignment + parts[part].offset
  }
}
