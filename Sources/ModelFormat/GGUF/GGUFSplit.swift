/// Which member of a split model a GGUF file is.
///
/// A split model is several GGUF files, each with a header and tensors of its own. The first holds the
/// metadata and may hold no tensors; the later ones state only these three keys. Nothing else ties members to
/// each other.
public struct GGUFSplit: Sendable, Equatable {
  /// `split.no`: this member's number, from 0; file names count from 1.
  public let index: Int
  /// `split.count`: members of the model.
  public let count: Int
  /// `split.tensors.count`: tensors of all members together.
  public let tensorCount: Int

  /// As many as llama.cpp's 16-bit field can state.
  private static let countLimit = Int(UInt16.max)

  /// What the metadata says; nil of a file that is a model by itself.
  ///
  /// A model merged by `llama-gguf-split` keeps the keys, with a count of 0.
  ///
  /// - Throws: ``FormatError`` for a key that is missing, no integer or out of range.
  static func read(_ metadata: GGUFMetadataReader) throws(FormatError) -> GGUFSplit? {
    let (countKey, indexKey) = ("split.count", "split.no")
    guard let count = try metadata.integer(countKey), count > 0 else { return nil }
    guard count <= countLimit else {
      throw metadata.error(
        .malformed, key: countKey,
        "\"\(countKey)\" is \(count); a split model has at most \(countLimit) members")
    }
    func required(_ key: String) throws(FormatError) -> Int {
      if let value = try metadata.integer(key) { return value }
      throw metadata.error(
        .malformed, key: countKey, "\"\(countKey)\" is \(count), but \"\(key)\" is missing")
    }
    let index = try required(indexKey)
    guard index < count else {
      throw metadata.error(
        .malformed, key: indexKey,
        "\"\(indexKey)\" is \(index), but there are \(count) members, counted from 0")
    }
    return GGUFSplit(
      index: index, count: count, tensorCount: try required("split.tensors.count"))
  }

  /// How the name of each member ends, e.g. `-00002-of-00003.gguf`.
  ///
  /// - Parameter index: the member's number, from 0.
  public func nameEnding(_ index: Int) -> String {
    func padded(_ number: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
    return "-\(padded(index + 1))-of-\(padded(count)).gguf"
  }

  /// Whether a file is called like a member of a split model of several, e.g. `name-00002-of-00003.gguf`.
  public static func isMember(fileName: String) -> Bool {
    let ending = ".gguf"
    guard fileName.hasSuffix(ending) else { return false }
    let words = fileName.dropLast(ending.count).split(
      separator: "-", omittingEmptySubsequences: false)
    func isNumber(_ word: Substring) -> Bool {
      word.utf8.count >= 5 && word.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains)
    }
    guard words.count >= 4, words[words.count - 2] == "of", isNumber(words[words.count - 3]),
      let count = words.last, isNumber(count)
    else { return false }
    return Int(count) != 1
  }

  /// Checks that a member belongs with another one of the model.
  ///
  /// - Parameters:
  ///   - file: what was found under the name of member `index`.
  ///   - path: the other member's path, for the error.
  /// - Throws: ``FormatError`` of `file` that says what is wrong and what would help.
  public func check(
    _ file: GGUFFile, is index: Int, withMemberAt path: String
  ) throws(FormatError) {
    let wanted = "member \(index + 1) of \(count) of the model of \(path) should be here"
    guard let found = file.split else {
      throw FormatError(
        .malformed, path: file.path, "a GGUF file that is not split; \(wanted): download it again")
    }
    guard found.count == count else {
      throw FormatError(
        .malformed, path: file.path,
        "it belongs to a model of \(found.count) members; \(wanted): download it again")
    }
    guard found.tensorCount == tensorCount else {
      throw FormatError(
        .malformed, path: file.path,
        "it belongs to a model of \(found.tensorCount) tensors, not \(tensorCount); \(wanted): "
          + "download all members from one place")
    }
    guard found.index == index else {
      throw FormatError(
        .malformed, path: file.path,
        "its header says that it is member \(found.index + 1) of \(count); \(wanted): give each member the "
          + "name that its header asks for, which here ends in \(nameEnding(found.index)), or download it again"
      )
    }
  }
}

extension GGUF {
  /// Checks that the members of a model hold all of its tensors, and each of them once.
  ///
  /// - Parameter files: all members in order, or the one file of a model that is not split.
  /// - Throws: ``FormatError`` that names the members at fault as far as that can be known.
  public static func checkTensors(of files: [GGUFFile]) throws(FormatError) {
    guard let split = files.first?.split else { return }
    var holder: [String: String] = [:]
    for file in files {
      for tensor in file.tensors {
        guard let other = holder.updateValue(file.path, forKey: tensor.name) else { continue }
        throw FormatError(
          .malformed, at: tensor.infoOffset, path: file.path,
          "tensor \"\(tensor.name)\" is also in \(other): one of the two belongs to another model; "
            + "download all members from one place")
      }
    }
    guard holder.count == split.tensorCount else {
      let held = split.count == 1 ? "it holds" : "the \(split.count) members hold together"
      throw FormatError(
        .malformed, path: files[0].path,
        "\(held) \(holder.count) tensors, and \"split.tensors.count\" is \(split.tensorCount): download all "
          + "members from one place")
    }
  }
}
