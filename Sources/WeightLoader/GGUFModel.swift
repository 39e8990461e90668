import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// A GGUF model: one file, or the members of a split one, found from any of them and checked against each
/// other.
struct GGUFModel<Content> {
  /// What the headers say; members in order.
  let files: [GGUFFile]
  /// What was copied out of each header.
  let contents: [Content]

  /// Finds the other members by their names: beside `path`, then beside what it links to.
  ///
  /// - Parameter read: copies out of a header what the caller needs of it.
  /// - Throws: ``LoaderError/missingFile(path:_:)`` that names members that are not there;
  ///   ``LoaderError/format(_:)`` for a file that is not the member it should be; ``LoaderError/io(_:)``.
  init(
    _ path: String,
    _ read: (GGUFFile, _ header: UnsafeRawBufferPointer) throws(FormatError) -> Content
  ) throws(LoaderError) {
    let opened = try Self.parse(path, read)
    var members = [opened]
    if let split = opened.file.split, split.count > 1 {
      let siblings = try GGUFSiblings(split, openedAt: path)
      members = []
      for index in 0..<split.count {
        members.append(
          index == split.index
            ? opened : try Self.member(index, of: split, at: siblings.places(index), path, read))
      }
    }
    files = members.map(\.file)
    contents = members.map(\.content)
    do { try GGUF.checkTensors(of: files) } catch { throw .format(error) }
  }

  private typealias Member = (file: GGUFFile, content: Content)

  private static func parse(
    _ path: String,
    _ read: (GGUFFile, _ header: UnsafeRawBufferPointer) throws(FormatError) -> Content
  ) throws(LoaderError) -> Member {
    try FileHeader.parse(path) { (prefix, fileByteCount, path) throws(FormatError) in
      switch try GGUF.parse(prefix, fileByteCount: fileByteCount, path: path) {
      case .needsMore(let byteCount): ParseProgress<Member>.needsMore(atLeast: byteCount)
      case .complete(let file): .complete((file, try read(file, prefix)))
      }
    }
  }

  /// The member at the first of `places` that has it; the error is that of the first place with any file.
  private static func member(
    _ index: Int, of split: GGUFSplit, at places: [String], _ opened: String,
    _ read: (GGUFFile, _ header: UnsafeRawBufferPointer) throws(FormatError) -> Content
  ) throws(LoaderError) -> Member {
    var failure: LoaderError?
    for place in places {
      do throws(LoaderError) {
        // A foreign file is refused before its contents can be found wrong.
        let member = try parse(place) { (file, header) throws(FormatError) in
          try split.check(file, is: index, withMemberAt: opened)
          return try read(file, header)
        }
        return member
      } catch { failure = failure ?? error }
    }
    throw failure ?? .missingFile(path: opened, "member \(index + 1) has gone")
  }
}

/// Where the members of a split model may be.
private struct GGUFSiblings {
  private let split: GGUFSplit
  /// What members' paths begin with, the likeliest first.
  private let stems: [String]

  /// - Throws: ``LoaderError/missingFile(path:_:)`` unless there is a file for every member.
  init(_ split: GGUFSplit, openedAt path: String) throws(LoaderError) {
    self.split = split
    let ending = split.nameEnding(split.index)
    stems = LinkTrail.places(from: path).compactMap { place in
      guard place.utf8.suffix(ending.utf8.count).elementsEqual(ending.utf8) else { return nil }
      return String(place.dropLast(ending.count))
    }
    let missing = (0..<split.count).filter { $0 != split.index && places($0).isEmpty }
    guard !missing.isEmpty else { return }
    let this = "member \(split.index + 1) of the \(split.count) files of a split model"
    guard let stem = stems.first else {
      let names = missing.map { "…" + split.nameEnding($0) }
      throw .missingFile(
        path: path,
        "\(this), but its name does not end in \(ending), so that the others cannot be found: "
          + "\(Self.list(names)); give the path under which they lie beside each other"
          + (rightName(of: path).map { ", or rename it to \($0)" } ?? ""))
    }
    let slash = stem.utf8.lastIndex(of: UInt8(ascii: "/"))
    let name = slash.map { String(stem[stem.utf8.index(after: $0)...]) } ?? stem
    let names = missing.map { name + split.nameEnding($0) }
    throw .missingFile(
      path: path,
      "\(this), of which \(Self.list(names)) \(missing.count == 1 ? "is" : "are") missing; "
        + "\(missing.count == 1 ? "it belongs" : "they belong") beside it"
        + (danglingLink(to: missing).map { "; \($0)" } ?? ""))
  }

  /// What the file at `path` must be called to be a member, of those whose names it lies beside; nil where these are of no
  /// model, or of several.
  private func rightName(of path: String) -> String? {
    let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
    let folder = slash.map { String(path[...$0]) } ?? "."
    let names = (try? FolderListing.names(in: folder)) ?? []
    let ending = split.nameEnding(split.index)
    let count = String(split.nameEnding(0).dropFirst("-00001".count))
    let members = names.filter { $0.hasSuffix(count) && GGUFSplit.isMember(fileName: $0) }
    let stems = Set(members.map { String($0.dropLast(ending.count)) })
    guard stems.count == 1, let stem = stems.first, !names.contains(stem + ending) else {
      return nil
    }
    return stem + ending
  }

  /// A link where one of those members should be, to a file that is not there.
  private func danglingLink(to missing: [Int]) -> String? {
    for path in missing.lazy.flatMap({ index in stems.map { $0 + split.nameEnding(index) } }) {
      let trail = LinkTrail.places(from: path)
      if trail.count > 1, let end = trail.last {
        return "\(path) is a link to \(end), where there is no file"
      }
    }
    return nil
  }

  /// Places where there is a file for member `index`.
  func places(_ index: Int) -> [String] {
    stems.map { $0 + split.nameEnding(index) }.filter { place in
      place.withSystemPath { access($0, F_OK) } == 0
    }
  }

  /// The names, or the first few of many.
  private static func list(_ names: [String]) -> String {
    let limit = 4
    guard names.count > limit else { return names.joined(separator: ", ") }
    return names.prefix(limit - 1).joined(separator: ", ") + " and \(names.count - limit + 1) more"
  }
}
