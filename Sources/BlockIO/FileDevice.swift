/// A device whose requests name files directly, and which may be given others while it is in use.
public protocol FileDevice: BlockDevice {
  /// Opens another file for reading. It bypasses the page cache where the device's ``BlockDevice/alignment`` allows it.
  ///
  /// - Returns: its `fileIndex`, which a file that was closed may have had.
  /// - Throws: ``BlockIOError`` if it cannot be opened.
  func open(path: String) throws(BlockIOError) -> Int

  /// Closes a file that ``open(path:)`` opened.
  ///
  /// - Precondition: nothing of it is in flight.
  func close(fileIndex: Int)
}
