/// The names in a folder.
package enum FolderListing {
  /// Names of what is in `folder`, itself and its parent included, in no order.
  ///
  /// - Throws: ``BlockIOError`` if it cannot be read to its end.
  package static func names(in folder: String) throws(BlockIOError) -> [String] {
    var names: [String] = []
    let status = SystemCalls.list(folder, &names)
    guard status == 0 else {
      throw BlockIOError(.open, path: folder, reason: .system(errno: -status))
    }
    return names
  }
}
