// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlockIO
public import CFlashInfer
import HostResources
import ModelFormat
import TensorBasics
import WeightLoader

@c @implementation
public func flashinfer_abi_version() -> UInt32 { FLASHINFER_ABI_VERSION }

@c @implementation
public func flashinfer_version() -> UnsafePointer<CChar>! {
  LastingStrings.string(FlashInferVersion.current)
}

@c @implementation
public func flashinfer_open(
  _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<flashinfer_options>?,
  _ loader: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let path = try FlashInferC.path(path)
    let loader = try required(loader, "loader")
    let (ram, settings) = try loaderOptions(options)
    if let ram { try HostLimits().check(budget: ram) }
    let opened = LoaderHandle(try TensorLoader.open(path, ram: ram, options: settings))
    loader.pointee = handle(HandleTable.shared.add(opened))
    return .ok
  }
}

/// The budget and the settings that C asks for.
private func loaderOptions(
  _ pointer: UnsafePointer<flashinfer_options>?
) throws(CallError) -> (ram: Int?, LoaderOptions) {
  var settings = LoaderOptions()
  guard let pointer else { return (nil, settings) }
  let options = try flashinfer_options.read(from: pointer, "options")
  settings.callerByteCount = try integer(options.caller_bytes, "options->caller_bytes")
  if options.read_bytes > 0 {
    settings.readByteCount = try integer(options.read_bytes, "options->read_bytes")
    guard settings.readByteCount % 4096 == 0, settings.readByteCount <= 1 << 30 else {
      throw CallError(
        .invalid, "options->read_bytes is \(options.read_bytes), not a multiple of 4096 up to 1 GiB"
      )
    }
  }
  if options.piece_bytes > 0 {
    settings.pieceByteCount = try integer(options.piece_bytes, "options->piece_bytes")
  }
  if options.queue_depth > 0 {
    settings.queueDepth = Int(options.queue_depth)
    guard settings.queueDepth <= LoaderOptions.queueDepthLimit else {
      throw CallError(
        .invalid,
        "options->queue_depth is \(options.queue_depth), not 1 to \(LoaderOptions.queueDepthLimit)")
    }
  }
  let backends: [StorageBackend] = [.auto, .uring, .pread, .mmap]
  guard options.backend < UInt32(backends.count) else {
    throw CallError(.invalid, "options->backend is \(options.backend), not 0 to 3")
  }
  settings.backend = backends[Int(options.backend)]
  if options.stream_bytes > 0 {
    settings.streamByteCount = try integer(options.stream_bytes, "options->stream_bytes")
  }
  let ram = try integer(options.ram, "options->ram")
  return (ram == 0 ? nil : ram, settings)
}

@c @implementation
public func flashinfer_close(
  _ loader: OpaquePointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try LoaderHandle.find(loader).loader.close()
    try HandleTable.shared.remove(number(loader), as: LoaderHandle.self)
    return .ok
  }
}

@c @implementation
public func flashinfer_get_plan(
  _ loader: OpaquePointer?, _ plan: UnsafeMutablePointer<flashinfer_plan>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let plan = try required(plan, "plan")
    let size = try flashinfer_plan.size(at: plan, "plan")
    let found = try LoaderHandle.find(loader).loader.plan
    flashinfer_plan(
      size: size, budget: UInt64(found.budgetByteCount), process: UInt64(found.processByteCount),
      caller: UInt64(found.callerByteCount), stream: UInt64(found.streamByteCount),
      held: UInt64(found.heldByteCount), piece: UInt64(found.pieceByteCount),
      read: UInt64(found.readByteCount), queue_depth: UInt32(found.queueDepth), reserved: 0
    ).write(to: plan, size: size)
    return .ok
  }
}

@c @implementation
public func flashinfer_tensor_count(
  _ loader: OpaquePointer?, _ count: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try required(count, "count").pointee = UInt64(LoaderHandle.find(loader).loader.tensors.count)
    return .ok
  }
}

@c @implementation
public func flashinfer_tensor_at(
  _ loader: OpaquePointer?, _ index: UInt64, _ tensor: UnsafeMutablePointer<flashinfer_tensor>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let place = try required(tensor, "tensor")
    let size = try flashinfer_tensor.size(at: place, "tensor")
    let handle = try LoaderHandle.find(loader)
    let index = try tensorIndex(index, of: handle.loader)
    var tensor = flashinfer_tensor()
    let found = handle.loader.tensors[index]
    tensor.name = handle.name(index)
    tensor.type = LastingStrings.string(found.type.name)
    tensor.byte_count = UInt64(found.byteCount)
    tensor.part_byte_count = UInt64(found.partByteCount)
    tensor.part_count = UInt64(found.partCount)
    let limit = Int(FLASHINFER_DIMENSION_LIMIT)
    let extra = max(0, found.shape.count - limit)
    var shape = found.shape.dropFirst(extra).map { UInt64($0) }
    for count in found.shape.prefix(extra) {
      // Beside a dimension of 0 the others may be anything.
      let (product, overflows) = shape[0].multipliedReportingOverflow(by: UInt64(count))
      shape[0] = overflows ? .max : product
    }
    withUnsafeMutableBytes(of: &tensor.shape) { bytes in
      let room = bytes.bindMemory(to: UInt64.self)
      for index in 0..<limit { room[index] = index < shape.count ? shape[index] : 0 }
    }
    tensor.dimension_count = UInt32(shape.count)
    tensor.layout = found.layout == .interleaved ? 1 : 0
    tensor.block_element_count = UInt32(found.type.blockElementCount)
    tensor.block_byte_count = UInt32(found.type.blockByteCount)
    tensor.is_weight = found.type.elementType == nil ? 0 : 1
    tensor.unit_row_count = UInt32(found.unitRowCount)
    tensor.unit_byte_count = UInt64(found.unitByteCount)
    tensor.column_count = UInt64(found.columnCount)
    tensor.part_row_count = UInt64(found.partRowCount)
    (tensor.file, tensor.file_offset) = (UInt64(found.fileIndex), UInt64(found.offset))
    tensor.part_stride = UInt64(found.byteStride)
    tensor.write(to: place, size: size)
    return .ok
  }
}

/// A `size_t` as a number of Swift's, which stops where arrays do.
func size(_ count: Int) -> Int { count < 0 ? .max : count }

func tensorIndex(_ index: UInt64, of loader: TensorLoader) throws(CallError) -> Int {
  guard index < UInt64(loader.tensors.count) else {
    throw CallError(
      LoaderError.noSuchTensorIndex(
        Int(clamping: index), count: loader.tensors.count, path: loader.path))
  }
  return Int(index)
}

@c @implementation
public func flashinfer_find(
  _ loader: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ index: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let name = try text(name, "name")
    let index = try required(index, "index")
    let loader = try LoaderHandle.find(loader).loader
    guard let found = loader.index(of: name) else {
      throw LoaderError.noSuchTensor(name, path: loader.path)
    }
    index.pointee = UInt64(found)
    return .ok
  }
}

@c @implementation
public func flashinfer_bundle(
  _ loader: OpaquePointer?, _ layer: UInt64, _ expert: UInt64,
  _ parts: UnsafeMutablePointer<flashinfer_part>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let count = try required(count, "count")
    let found = try LoaderHandle.find(loader).loader.bundle(
      layer: try integer(layer, "layer"), expert: try integer(expert, "expert"))
    count.pointee = found.count
    guard let parts else { return .ok }
    for (index, part) in found.prefix(size(capacity)).enumerated() {
      parts[index] = flashinfer_part(tensor: UInt64(part.tensor), part: UInt64(part.part))
    }
    return .ok
  }
}

@c @implementation
public func flashinfer_get_statistics(
  _ loader: OpaquePointer?, _ statistics: UnsafeMutablePointer<flashinfer_statistics>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let statistics = try required(statistics, "statistics")
    let size = try flashinfer_statistics.size(at: statistics, "statistics")
    let found = try LoaderHandle.find(loader).loader.currentStatistics()
    flashinfer_statistics(
      size: size, bytes_read: UInt64(found.bytesRead), requests: UInt64(found.requests),
      retries: UInt64(found.retries), busy_nanoseconds: UInt64(found.busyNanoseconds),
      wait_nanoseconds: UInt64(found.waitNanoseconds), mean_queue_depth: found.meanQueueDepth
    ).write(to: statistics, size: size)
    return .ok
  }
}
