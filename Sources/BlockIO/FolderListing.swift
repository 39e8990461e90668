import Glibc
import TensorBasics

/// The names in a folder.
package enum FolderListing {
  /// Names of what is in `folder`, itself and its parent included, in no order; none where it cannot be
  /// read.
  package static func names(in folder: String) -> [String] {
    guard let listing = folder.withSystemPath({ opendir($0) }) else { return [] }
    defer { closedir(listing) }
    var names: [String] = []
    while let entry = readdir(listing) {
      names.append(
        withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
          String(systemPath: bytes.prefix { $0 != 0 })
        })
    }
    return names
  }
}
