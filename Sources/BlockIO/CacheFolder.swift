import Glibc
import TensorBasics

/// The folder for files that can be made again.
public enum CacheFolder {
  /// `$XDG_CACHE_HOME/flashinfer/NAME`, by default under `~/.cache`; nil if there is no such place.
  public static func standard(_ name: String) -> String? {
    func variable(_ name: String) -> String? {
      guard let value = getenv(name) else { return nil }
      let text = String(systemPath: value)
      return text.hasPrefix("/") ? text : nil
    }
    let base = variable("XDG_CACHE_HOME") ?? variable("HOME").map { $0 + "/.cache" }
    return base.map { $0 + "/flashinfer/" + name }
  }

  /// Makes a folder, whose path is absolute, and those above it.
  ///
  /// - Throws: ``BlockIOError`` if that is not possible.
  public static func make(_ path: String) throws(BlockIOError) {
    var folder = ""
    for part in path.utf8.split(separator: UInt8(ascii: "/")) {
      folder += "/\(Substring(part))"
      let status = SystemCalls.makeFolder(folder, mode: 0o755)
      guard status == 0 || status == -EEXIST else {
        throw BlockIOError(.create, path: folder, reason: .system(errno: -status))
      }
    }
  }
}
