/// How one logical file is cut in units that lie in turn on several member files.
///
/// Unit `i` lies on member `i mod memberCount`, after the member's header and its earlier
/// units. A plain file is the case of one member without a header.
public struct StripeLayout: Sendable, Equatable {
  /// Bytes of a unit.
  public let unitByteCount: Int
  public let memberCount: Int
  /// Bytes of a member before its first unit.
  public let headerByteCount: Int
  /// Bytes of the logical file.
  public let byteCount: Int

  /// - Parameters:
  ///   - unitByteCount: a multiple of the alignment of reads.
  ///   - headerByteCount: likewise.
  public init(unitByteCount: Int, memberCount: Int, headerByteCount: Int, byteCount: Int) {
    precondition(
      unitByteCount > 0 && memberCount > 0 && headerByteCount >= 0 && byteCount >= 0,
      "no such stripes")
    self.unitByteCount = unitByteCount
    self.memberCount = memberCount
    self.headerByteCount = headerByteCount
    self.byteCount = byteCount
  }

  /// The layout of a logical file of `byteCount` bytes that is one plain file.
  public static func plain(byteCount: Int) -> StripeLayout {
    StripeLayout(
      unitByteCount: max(1, byteCount), memberCount: 1, headerByteCount: 0, byteCount: byteCount)
  }

  /// The longest range from logical byte `offset` on that lies together on one member, and where.
  ///
  /// Past the logical file's end it goes on as if there were units; members end before them.
  ///
  /// - Parameter limit: bytes wanted at most, at least 1.
  public func part(at offset: Int, limit: Int) -> Extent {
    let (unit, start) = offset.quotientAndRemainder(dividingBy: unitByteCount)
    // One member has all units, one after the other.
    let rest = memberCount == 1 ? limit : unitByteCount - start
    return Extent(
      fileIndex: unit % memberCount,
      offset: headerByteCount + unit / memberCount * unitByteCount + start,
      byteCount: min(limit, rest))
  }

  /// The length of member `index`, its header included.
  public func memberByteCount(_ index: Int) -> Int {
    let (units, last) = byteCount.quotientAndRemainder(dividingBy: unitByteCount)
    let whole = units / memberCount + (index < units % memberCount ? 1 : 0)
    return headerByteCount + whole * unitByteCount + (index == units % memberCount ? last : 0)
  }
}
