import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// How an image is cut over several files (`docs/format.md`, section 9).
public struct Striping: Sendable {
  /// The members after the first.
  public let otherPaths: [String]
  public let unitByteCount: Int
  /// All members' absolute paths, as their headers record them.
  let recordedPaths: [String]

  /// How much lies together on one member unless told otherwise.
  public static let defaultUnitByteCount = StripeMember.defaultUnitByteCount

  /// Plans the stripes of an image whose first member will be at `path`.
  ///
  /// - Parameters:
  ///   - otherPaths: the other members, best each on a drive of its own.
  ///   - unitByteCount: bytes that lie together on one member, a multiple of 4096.
  /// - Throws: ``ConversionError/notPossible(_:)`` if there is no such set.
  public init(
    path: String, otherPaths: [String],
    unitByteCount: Int = defaultUnitByteCount
  ) throws(ConversionError) {
    let paths = [path] + otherPaths
    guard StripeMember.countRange.contains(paths.count) else {
      throw .notPossible(
        "an image is striped over \(StripeMember.countRange) files, not \(paths.count)")
    }
    guard StripeMember.unitByteCountRange.contains(unitByteCount),
      unitByteCount % FlashImage.alignment == 0
    else {
      throw .notPossible(
        "a stripe unit is a multiple of 4096 bytes up to 1 GiB, not \(unitByteCount) bytes")
    }
    recordedPaths = try Self.absolute(paths)
    guard Set(recordedPaths).count == paths.count else {
      throw .notPossible("two members of a striped image cannot be one file")
    }
    guard StripeMember.canHold(paths: recordedPaths) else {
      throw .notPossible(
        "the members' absolute paths take more than the \(StripeMember.pathByteLimit) bytes "
          + "reserved for them")
    }
    self.otherPaths = otherPaths
    self.unitByteCount = unitByteCount
  }

  func layout(imageByteCount: Int) -> StripeLayout {
    StripeLayout(
      unitByteCount: unitByteCount, memberCount: 1 + otherPaths.count,
      headerByteCount: StripeMember.headerByteCount, byteCount: imageByteCount)
  }

  private static func absolute(_ paths: [String]) throws(ConversionError) -> [String] {
    guard let current = getcwd(nil, 0) else {
      throw .io(BlockIOError(.inspect, path: ".", reason: .system(errno: errno)))
    }
    defer { free(current) }
    let folder = String(systemPath: current)
    return paths.map { $0.utf8.first == UInt8(ascii: "/") ? $0 : "\(folder)/\($0)" }
  }
}
