// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import TensorBasics
import WeightLoader

@c @implementation
public func flashinfer_file_at(
  _ loader: OpaquePointer?, _ file: UInt64, _ path: UnsafeMutablePointer<CChar>?, _ capacity: Int,
  _ byte_count: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let byteCount = try required(byte_count, "byte_count")
    let loader = try LoaderHandle.find(loader).loader
    guard file < UInt64(loader.files.count) else {
      throw CallError(
        .notFound,
        "\(loader.path): there is no file number \(file): there are \(loader.files.count), counted from 0"
      )
    }
    let bytes = loader.files[Int(file)].systemPath
    byteCount.pointee = bytes.count
    guard bytes.count < size(capacity) else { return .ok }
    let place = try required(path, "path")
    for (index, byte) in bytes.enumerated() { place[index] = CChar(bitPattern: byte) }
    place[bytes.count] = 0
    return .ok
  }
}

@c @implementation
public func flashinfer_metadata_count(
  _ loader: OpaquePointer?, _ count: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try required(count, "count").pointee = UInt64(LoaderHandle.find(loader).loader.metadata.count)
    return .ok
  }
}

@c @implementation
public func flashinfer_metadata_at(
  _ loader: OpaquePointer?, _ index: UInt64,
  _ metadata: UnsafeMutablePointer<flashinfer_metadata>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let place = try required(metadata, "metadata")
    let size = try flashinfer_metadata.size(at: place, "metadata")
    let handle = try LoaderHandle.find(loader)
    let entry = try entry(index, of: handle.loader)
    var found = flashinfer_metadata()
    found.key = handle.key(Int(index))
    found.type = LastingStrings.string(entry.typeName)
    found.count = UInt64(entry.count)
    found.byte_count = UInt64(entry.byteCount)
    found.is_array = entry.isArray ? 1 : 0
    found.file = UInt64(entry.fileIndex)
    found.write(to: place, size: size)
    return .ok
  }
}

@c @implementation
public func flashinfer_metadata_find(
  _ loader: OpaquePointer?, _ key: UnsafePointer<CChar>?, _ index: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let key = try text(key, "key")
    let index = try required(index, "index")
    let loader = try LoaderHandle.find(loader).loader
    guard let found = loader.metadataIndex(of: key) else {
      throw CallError(.notFound, "\(loader.path): there is no metadata key '\(key)'")
    }
    index.pointee = UInt64(found)
    return .ok
  }
}

@c @implementation
public func flashinfer_metadata_read(
  _ loader: OpaquePointer?, _ index: UInt64, _ values: UnsafeMutableRawPointer?, _ capacity: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    let entry = try entry(index, of: loader)
    guard entry.byteCount > 0 else { return .ok }
    let values = try required(values, "values")
    guard entry.byteCount <= size(capacity) else {
      throw CallError(
        .invalid,
        "values has room for \(size(capacity)) bytes; '\(entry.key)' has \(entry.byteCount)")
    }
    try loader.read(
      entry, into: UnsafeMutableRawBufferPointer(start: values, count: entry.byteCount))
    return .ok
  }
}

private func entry(_ index: UInt64, of loader: TensorLoader) throws(CallError) -> MetadataEntry {
  guard index < UInt64(loader.metadata.count) else {
    throw CallError(
      .notFound,
      "\(loader.path): there is no metadata entry \(index): there are \(loader.metadata.count), "
        + "counted from 0")
  }
  return loader.metadata[Int(index)]
}
