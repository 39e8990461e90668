/// How memory is divided into slots for bundles: families whose bundles take about the same room share a class of
/// equal slots.
///
/// Files mix types from layer to layer, so the bundles of one layer may be twice as long as another's. Each class has room
/// for the same share of its bundles, because every token uses as many in each layer. Where all are equal, there is one class.
public struct BundleSlots: Sendable, Equatable {
  public struct Class: Sendable, Equatable {
    /// Room of a slot: that of the longest bundle in the class.
    public fileprivate(set) var slotByteCount: Int
    /// Bundles of all its families.
    public fileprivate(set) var bundleCount: Int
    public fileprivate(set) var slotCount = 0
    /// Further slots in borrowed memory, as far as there is some.
    public fileprivate(set) var borrowableCount = 0
    fileprivate var families: [Int]
  }

  /// The class with the longest slots first.
  public private(set) var classes: [Class] = []
  /// Index into ``classes`` of each family's bundles.
  public let classOfFamily: [Int]

  public var slotCount: Int { classes.reduce(0) { $0 + $1.slotCount } }
  public var byteCount: Int { classes.reduce(0) { $0 + $1.slotCount * $1.slotByteCount } }
  /// Memory of all slots in borrowed memory.
  public var borrowableByteCount: Int {
    classes.reduce(0) { $0 + $1.borrowableCount * $1.slotByteCount }
  }

  /// - Parameters:
  ///   - byteCount: memory, enough for `heldAtOnce` bundles of the longest family.
  ///   - heldAtOnce: bundles of one family that are held at once; a class has room for that many, or for all.
  ///   - borrowable: memory beside that which may come to be borrowed.
  public init(
    _ families: [BundleFamily], within byteCount: Int, heldAtOnce: Int, borrowable: Int = 0
  ) {
    self.init(
      families.map { ($0.slotByteCount, $0.bundleCount) }, within: byteCount,
      heldAtOnce: heldAtOnce, borrowable: borrowable)
  }

  /// As the one for families, of which only the room and number of bundles count.
  package init(
    _ families: [(slotByteCount: Int, bundleCount: Int)], within byteCount: Int, heldAtOnce: Int,
    borrowable: Int = 0
  ) {
    var classes: [Class] = []
    let order = families.indices.sorted { families[$0].slotByteCount > families[$1].slotByteCount }
    for family in order {
      let (length, count) = families[family]
      if let last = classes.indices.last,
        length >= classes[last].slotByteCount - classes[last].slotByteCount / Self.tolerance
      {
        classes[last].bundleCount += count
        classes[last].families.append(family)
      } else {
        classes.append(Class(slotByteCount: length, bundleCount: count, families: [family]))
      }
    }
    Self.fill(&classes, byteCount)
    // A class that holds little more than one token's bundles is no cache: its memory does more for others too.
    while classes.count > 1,
      classes.contains(where: { $0.slotCount < min($0.bundleCount, 2 * heldAtOnce) })
    {
      Self.mergeTwo(&classes)
      Self.fill(&classes, byteCount)
    }
    // Each class has the same share of its bundles again, as near as that comes.
    var left = borrowable
    while let index = classes.indices.filter({
      classes[$0].slotCount + classes[$0].borrowableCount < classes[$0].bundleCount
        && classes[$0].slotByteCount <= left
    }).min(by: { classes[$0].share < classes[$1].share }) {
      classes[index].borrowableCount += 1
      left -= classes[index].slotByteCount
    }
    var classOfFamily = [Int](repeating: 0, count: families.count)
    for (index, item) in classes.enumerated() {
      for family in item.families { classOfFamily[family] = index }
    }
    self.classes = classes
    self.classOfFamily = classOfFamily
  }

  /// Bundles that are shorter by less than a sixteenth share the class of the longer ones.
  private static let tolerance = 16

  /// Gives each class slots for the same share of its bundles, as large as fits.
  private static func fill(_ classes: inout [Class], _ byteCount: Int) {
    let whole = classes.reduce(0) { $0 + $1.bundleCount * $1.slotByteCount }
    guard whole > 0 else { return }
    let share = min(1, Double(byteCount) / Double(whole))
    var left = byteCount
    for index in classes.indices {
      let count = Int(share * Double(classes[index].bundleCount))
      classes[index].slotCount = min(count, left / classes[index].slotByteCount)
      left -= classes[index].slotCount * classes[index].slotByteCount
    }
    // What rounding left goes where it adds most to the share.
    while let index = classes.indices.filter({
      classes[$0].slotCount < classes[$0].bundleCount && classes[$0].slotByteCount <= left
    }).min(by: { classes[$0].share < classes[$1].share }) {
      classes[index].slotCount += 1
      left -= classes[index].slotByteCount
    }
  }

  /// Puts the two neighbours together that cost least memory as one.
  private static func mergeTwo(_ classes: inout [Class]) {
    func cost(_ index: Int) -> Int {
      (classes[index].slotByteCount - classes[index + 1].slotByteCount)
        * classes[index + 1].bundleCount
    }
    guard let index = (0..<classes.count - 1).min(by: { cost($0) < cost($1) }) else { return }
    let other = classes.remove(at: index + 1)
    classes[index].bundleCount += other.bundleCount
    classes[index].families += other.families
  }
}

extension BundleSlots.Class {
  fileprivate var share: Double { Double(slotCount + borrowableCount) / Double(bundleCount) }
}
