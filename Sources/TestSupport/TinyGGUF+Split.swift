extension TinyGGUF {
  /// The members of the model as `llama-gguf-split` writes them.
  ///
  /// The first has the metadata and ``alignment``; later ones state only their place, and are aligned to 32
  /// bytes.
  ///
  /// - Parameters:
  ///   - count: members; where there are fewer tensors than that, some hold none.
  ///   - firstIsEmpty: whether the first holds no tensors.
  public func split(into count: Int, firstIsEmpty: Bool = false) -> [TinyGGUF] {
    let holders = firstIsEmpty ? count - 1 : count
    precondition(holders > 0, "no member for the tensors")
    return (0..<count).map { index in
      let share = firstIsEmpty ? index - 1 : index
      var member = TinyGGUF()
      if index == 0 {
        member = self
        member.tensors = []
      }
      if share >= 0 {
        member.tensors = Array(
          tensors[tensors.count * share / holders..<tensors.count * (share + 1) / holders])
      }
      member["split.no"] = .uint16(UInt16(index))
      member["split.count"] = .uint16(UInt16(count))
      member["split.tensors.count"] = .int32(Int32(tensors.count))
      return member
    }
  }

  /// The name of a member of a split model, e.g. `tiny-00002-of-00003.gguf`.
  ///
  /// - Parameter index: from 0.
  public static func memberName(_ stem: String, _ index: Int, of count: Int) -> String {
    func padded(_ number: Int) -> String { String(String(100_000 + number).dropFirst()) }
    return "\(stem)-\(padded(index + 1))-of-\(padded(count)).gguf"
  }
}

extension TemporaryFolder {
  /// Writes the members of a split model and returns their paths.
  public func write(members: [TinyGGUF], stem: String = "tiny") -> [String] {
    members.enumerated().map { index, member in
      write(TinyGGUF.memberName(stem, index, of: members.count), member.bytes())
    }
  }
}
