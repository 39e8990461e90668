import BlockIO
import ModelFormat

/// The members of a striped image, found from any one of them and checked against each other.
struct StripeSet {
  /// Where each member is now.
  let paths: [String]
  let layout: StripeLayout

  /// Finds the other members: where the opened one says they were written, else under the same name
  /// beside it.
  ///
  /// - Throws: ``LoaderError/missingFile(path:_:)``; ``LoaderError/format(_:)`` for a file that is not
  ///   the member it should be; ``LoaderError/io(_:)``.
  init(member: StripeMember, at path: String) throws(LoaderError) {
    layout = StripeLayout(
      unitByteCount: member.unitByteCount, memberCount: member.memberCount,
      headerByteCount: StripeMember.headerByteCount, byteCount: member.imageByteCount)
    var paths: [String] = []
    for index in 0..<member.memberCount {
      if index == member.index {
        let prefix = try Self.prefix(path)
        try Self.check(byteCount: prefix.fileByteCount, index: index, layout, path: path)
        paths.append(path)
      } else {
        paths.append(try Self.find(index, of: member, openedAt: path, layout))
      }
    }
    self.paths = paths
  }

  /// The header in a file's first bytes.
  static func header(
    _ prefix: borrowing FilePrefix, path: String
  ) throws(LoaderError) -> StripeMember {
    do throws(FormatError) {
      switch try StripeMember.parse(
        prefix.bytes, fileByteCount: prefix.fileByteCount, path: path)
      {
      case .complete(let member): return member
      case .needsMore:
        throw FormatError(
          .truncated, at: prefix.byteCount, path: path, "the member header ends here")
      }
    } catch { throw .format(error) }
  }

  /// The path of member `index`; the first place with the right file wins, and the error is that of
  /// the first place with any file.
  private static func find(
    _ index: Int, of member: StripeMember, openedAt path: String, _ layout: StripeLayout
  ) throws(LoaderError) -> String {
    let candidates = places(index, of: member, openedAt: path)
    var failure: LoaderError?
    for candidate in candidates {
      do throws(LoaderError) {
        let prefix = try prefix(candidate)
        try check(
          try header(prefix, path: candidate), is: index, of: member, openedAt: path,
          candidate: candidate)
        try check(byteCount: prefix.fileByteCount, index: index, layout, path: candidate)
        return candidate
      } catch {
        if case .io(let cause) = error, cause.isMissingFile { continue }
        failure = failure ?? error
      }
    }
    if let failure { throw failure }
    let others = candidates.dropFirst().map { ", nor at \($0)" }.joined()
    throw .missingFile(
      path: path,
      "member \(index + 1) of the \(member.memberCount) that make up this image is not at "
        + candidates[0] + others)
  }

  private static func places(
    _ index: Int, of member: StripeMember, openedAt path: String
  ) -> [String] {
    let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
    let folder = slash.map { String(path[...$0]) } ?? ""
    let recorded = member.paths[index]
    let name = recorded.split(separator: "/").last.map(String.init) ?? recorded
    let first = recorded.hasPrefix("/") ? recorded : folder + recorded
    let second = folder + name
    // The opened file is another member.
    return second == first || second == path ? [first] : [first, second]
  }

  private static func prefix(_ path: String) throws(LoaderError) -> FilePrefix {
    do {
      return try FilePrefix(path: path, byteCount: StripeMember.headerByteCount)
    } catch { throw .io(error) }
  }

  private static func check(
    _ found: StripeMember, is index: Int, of member: StripeMember, openedAt path: String,
    candidate: String
  ) throws(LoaderError) {
    guard found.setIdentifier == member.setIdentifier,
      found.unitByteCount == member.unitByteCount,
      found.imageByteCount == member.imageByteCount, found.memberCount == member.memberCount
    else {
      throw .format(
        FormatError(
          .malformed, at: 16, path: candidate,
          "it belongs to another striped image than \(path), whose member \(index + 1) should be "
            + "here"))
    }
    guard found.index == index else {
      throw .format(
        FormatError(
          .malformed, at: 24, path: candidate,
          "it is member \(found.index + 1) of the image; member \(index + 1) should be here"))
    }
  }

  private static func check(
    byteCount: Int, index: Int, _ layout: StripeLayout, path: String
  ) throws(LoaderError) {
    let expected = layout.memberByteCount(index)
    guard byteCount != expected else { return }
    throw .format(
      FormatError(
        byteCount < expected ? .truncated : .malformed, at: min(byteCount, expected), path: path,
        byteCount < expected
          ? "the member ends here; it was written with \(expected) bytes"
          : "the member should end here, but bytes follow"))
  }
}
