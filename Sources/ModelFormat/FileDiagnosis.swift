/// What a file is that is no model, or is not all of one, as its first bytes and its name tell.
public enum FileDiagnosis {
  /// How much of a file to look at.
  public static let prefixByteCount = 4096

  /// The error of a file that could not be read, with what the file is, where that is recognised.
  ///
  /// - Parameter prefix: the file's first bytes.
  public static func explaining(
    _ error: FormatError, _ prefix: UnsafeRawBufferPointer, path: String
  ) -> FormatError {
    guard error.kind != .unsupported else { return error }
    if ModelFile.recognise(prefix) == .unknown {
      if let text = text(prefix) ?? folderText(prefix, path) ?? otherText(prefix) {
        return FormatError(.unrecognised, path: path, text)
      }
    }
    guard error.kind == .truncated || error.kind == .unrecognised else { return error }
    if let text = pieceText(path) { return FormatError(.unrecognised, path: path, text) }
    var error = error
    let isTruncated = error.kind == .truncated
    if isUnfinished(path) {
      error.message +=
        (isTruncated ? "; the file is incomplete: " : "; ")
        + "its name says that its download is not finished: finish it, or download the file again"
    } else if isTruncated {
      error.message += "; the file is incomplete: finish the download, or copy it again"
    }
    return error
  }

  /// What stands in place of a file that should have been downloaded; nil if it may be the file.
  ///
  /// - Parameter prefix: the first bytes of a document or a model.
  public static func text(_ prefix: UnsafeRawBufferPointer) -> String? {
    if prefix.isEmpty { return "the file is empty: download it again" }
    if prefix.starts(with: "version https://git-lfs".utf8) {
      return "a Git LFS pointer, which stands for the file itself: run \"git lfs pull\" in its "
        + "repository, or download the file"
    }
    let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
    let start = prefix.prefix(64).drop {
      $0 <= UInt8(ascii: " ") || byteOrderMark.contains($0)
    }.map { byte in
      (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte
    }
    guard ["<!doctype html", "<html"].contains(where: { start.starts(with: $0.utf8) }) else {
      return nil
    }
    return
      "a web page, not the file: the server asked for a login or had no such file; download it "
      + "again"
  }

  /// What a document of a Hugging Face folder stands for.
  private static func folderText(_ prefix: UnsafeRawBufferPointer, _ path: String) -> String? {
    let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
    let name = slash.map { path[path.utf8.index(after: $0)...] } ?? path[...]
    let isDocument =
      ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
      .contains { $0 == name } || name.hasSuffix(".safetensors.index.json")
    guard isDocument, prefix.contains(UInt8(ascii: "{")) else { return nil }
    let folder = slash.map { path[..<$0] } ?? "."
    return
      "a document of a Hugging Face folder and not a model by itself: give the folder, "
      + (folder.isEmpty ? "/" : "\(folder)")
  }

  /// Whether a name is what download tools call a file until they have all of it.
  public static func isUnfinished(_ name: String) -> Bool {
    [".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp"]
      .contains(where: name.hasSuffix)
  }

  /// What other kind of file stands in place of a model.
  private static func otherText(_ prefix: UnsafeRawBufferPointer) -> String? {
    for (magic, text) in magics where prefix.starts(with: magic) { return text }
    let start = prefix.prefix(256)
    if start.first == UInt8(ascii: "{"), !start.contains(0),
      let text = String(validating: start.prefix { $0 >= UInt8(ascii: " ") }, as: UTF8.self)
    {
      return "a JSON document and not a model: \(text)"
    }
    guard prefix.count >= 16, prefix.prefix(prefixByteCount).allSatisfy({ $0 == 0 }) else {
      return nil
    }
    return "it begins with zeros: room was reserved for a download that did not happen"
  }

  private static let magics: [(magic: [UInt8], text: String)] = [
    ([0x1F, 0x8B], "compressed by gzip: decompress it first (gunzip)"),
    ([0x28, 0xB5, 0x2F, 0xFD], "compressed by zstd: decompress it first (unzstd)"),
    ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0], "compressed by xz: decompress it first (unxz)"),
    (
      [0x50, 0x4B, 3, 4],
      "a ZIP archive, such as PyTorch's pytorch_model.bin: use the model's safetensors files, or a GGUF "
        + "file"
    ),
    (Array("lmgg".utf8), oldFormat), (Array("tjgg".utf8), oldFormat),
    (Array("fmgg".utf8), oldFormat), (Array("algg".utf8), oldFormat),
  ]

  private static let oldFormat =
    "a file of ggml's formats before GGUF (August 2023): download the model as GGUF"

  /// What a file is whose name says that it is a piece of another, cut anywhere, e.g. `model.gguf.part1of2` or
  /// `model.gguf-split-a`.
  private static func pieceText(_ path: String) -> String? {
    let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
    let name = slash.map { path[path.utf8.index(after: $0)...] } ?? path[...]
    for ending in [".gguf", ".safetensors", ".bin"] {
      guard let found = name.range(ending), found.upperBound < name.endIndex else { continue }
      let rest = name[found.upperBound...]
      let marks = [".part", "-part", "-split-", ".split-", ".0", ".a"]
      guard let mark = marks.first(where: rest.hasPrefix),
        isNumbered(rest.dropFirst(mark.count))
      else { continue }
      let whole = name[..<found.upperBound]
      return
        "one of the pieces that a file was cut into; join them in their order: cat \(whole)\(mark)* > "
        + "\(whole)"
    }
    return nil
  }

  /// `1of2`, `a`, `01`, `a` of `.aa`.
  private static func isNumbered(_ text: Substring) -> Bool {
    let text = text.utf8.filter { $0 != UInt8(ascii: "-") }
    let digits = text.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    if !digits.isEmpty {
      let rest = text.dropFirst(digits.count)
      return rest.isEmpty || rest.starts(with: "of".utf8)
    }
    return (1...2).contains(text.count)
      && text.allSatisfy { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) }
  }
}

extension Substring {
  /// Where `text` first occurs.
  fileprivate func range(_ text: String) -> Range<Index>? {
    var start = startIndex
    while start < endIndex {
      let rest = self[start...]
      if rest.hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}
