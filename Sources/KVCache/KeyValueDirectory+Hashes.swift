import TensorBasics

/// Numbers for beginnings of contexts, by which stores are compared without their tokens.
extension KeyValueDirectory {
  /// A number for all of `tokens` up to the end of each complete page group.
  ///
  /// XXH3-64 of the page group's tokens, 4 bytes each, with the number before as its seed and 0 as the first one's.
  ///
  /// - Parameter hash: the number of what comes before `tokens`; 0 where nothing does.
  public static func hashes(of tokens: ArraySlice<Int32>, after hash: UInt64 = 0) -> [UInt64] {
    let length = KeyValueOrigin.pageGroupPositionCount
    var (last, rest) = (hash, tokens)
    var hashes: [UInt64] = []
    while rest.count >= length {
      let bytes = KeyValueEntry.tables(tokens: rest.prefix(length), pageChecksums: [])
      last = bytes.withUnsafeBytes { Checksum.of($0, seed: last) }
      hashes.append(last)
      rest = rest.dropFirst(length)
    }
    return hashes
  }

  /// The numbers of all beginnings that entries of `origins` hold.
  public func storedHashes(_ origins: Set<KeyValueOrigin>) -> Set<UInt64> {
    var chains: [UInt64: (firstPageGroup: Int, hashes: [UInt64])] = [:]
    // An entry begins after its parent's first page group, so parents come first.
    for header in usableHeaders(origins).sorted(by: { $0.firstPageGroup < $1.firstPageGroup }) {
      var before: UInt64 = 0
      if header.firstPageGroup > 0 {
        guard let parent = chains[header.parent],
          case let place = header.firstPageGroup - 1 - parent.firstPageGroup,
          parent.hashes.indices.contains(place)
        else { continue }
        before = parent.hashes[place]
      }
      guard let entry = open(header) else { continue }
      let count = header.wholePageGroupCount * KeyValueOrigin.pageGroupPositionCount
      let hashes = Self.hashes(of: entry.tokens[..<count], after: before)
      chains[header.id] = (header.firstPageGroup, hashes)
    }
    return Set(chains.values.flatMap(\.hashes))
  }
}
