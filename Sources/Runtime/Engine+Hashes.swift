import KVCache

/// By what of a prompt several engines' stores have, a request finds the one that need not read it again.
extension Engine {
  /// A number for the beginning of `tokens` up to each multiple of 128: the same in every engine, whatever its model.
  public static func hashes(of tokens: [Int32]) -> [UInt64] {
    KeyValueDirectory.hashes(of: tokens[...])
  }

  /// The numbers of all beginnings that the store has for this model now; none without a store.
  ///
  /// Reads the tokens of all its entries, on the caller's thread. Which of them are used last is as before.
  public func storedHashes() -> Set<UInt64> {
    guard let store,
      let directory = try? KeyValueDirectory(openingExisting: store.path)
    else { return [] }
    return directory.storedHashes(exchange.locked { exchange.origins })
  }
}
