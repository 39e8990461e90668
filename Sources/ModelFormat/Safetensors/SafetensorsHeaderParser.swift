import TensorBasics

/// Turns a safetensors file's JSON into tensors, checking them against the file and each other.
struct SafetensorsHeaderParser {
  let dataOffset: Int
  let fileByteCount: Int
  let path: String

  /// - Returns: All tensors in ascending offsets.
  func tensors(_ json: JSONValue) throws(FormatError) -> [SafetensorsTensor] {
    guard let members = json.members else {
      throw error(.malformed, json, "the header is not a JSON object")
    }
    var names = Set<ExactString>()
    var tensors: [SafetensorsTensor] = []
    tensors.reserveCapacity(members.count)
    for member in members {
      guard names.insert(ExactString(member.key)).inserted else {
        throw error(.malformed, member.value, "tensor \"\(member.key)\" appears twice")
      }
      if member.key == "__metadata__" { continue }
      tensors.append(try tensor(member.key, member.value))
    }
    tensors.sort { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }
    for (first, second) in zip(tensors, tensors.dropFirst())
    where first.offset + first.byteCount > second.offset {
      throw FormatError(
        .malformed, at: second.infoOffset, path: path,
        "tensors \"\(first.name)\" and \"\(second.name)\" overlap")
    }
    return tensors
  }

  /// The strings of `__metadata__`; none if there is no such member.
  func metadata(_ json: JSONValue) -> [String: String] {
    var metadata: [String: String] = [:]
    for member in json["__metadata__"]?.members ?? [] {
      if let text = member.value.string { metadata[member.key] = text }
    }
    return metadata
  }

  private func error(
    _ kind: FormatError.Kind, _ value: JSONValue, _ message: String
  ) -> FormatError {
    FormatError(kind, at: value.offset, path: path, message)
  }

  private func tensor(
    _ name: String, _ info: JSONValue
  ) throws(FormatError) -> SafetensorsTensor {
    guard !info.isUnusable else {
      throw error(.malformed, info, "a tensor should be described and there is \(info.found)")
    }
    guard let typeName = info["dtype"]?.string else {
      throw error(.malformed, info, "tensor \"\(name)\" has no dtype")
    }
    guard let type = StorageType.safetensors(typeName) else {
      throw error(
        .unsupported, info, "tensor \"\(name)\" has dtype \(typeName), which is not known")
    }
    let shape = try integers(info["shape"], name, "shape", info)
    let range = try integers(info["data_offsets"], name, "data_offsets", info)
    guard range.count == 2, range[0] <= range[1] else {
      throw error(.malformed, info, "tensor \"\(name)\" has no range of data_offsets")
    }
    guard range[1] <= fileByteCount - dataOffset else {
      throw error(
        .truncated, info,
        "tensor \"\(name)\" ends at byte \(range[1]) of the data, which has"
          + " \(fileByteCount - dataOffset)")
    }
    guard (shape.last ?? 1) % type.blockElementCount == 0 else {
      throw error(
        .unsupported, info,
        "tensor \"\(name)\" has rows of \(shape.last ?? 1) elements of \(typeName), which are not whole bytes"
      )
    }
    var byteCount = type.blockByteCount
    for (index, length) in shape.enumerated() {
      let isRow = index == shape.count - 1
      let (product, overflow) = byteCount.multipliedReportingOverflow(
        by: isRow ? length / type.blockElementCount : length)
      guard !overflow else {
        throw error(.malformed, info, "tensor \"\(name)\" has an impossible shape")
      }
      byteCount = product
    }
    guard byteCount == range[1] - range[0] else {
      throw error(
        .malformed, info,
        "tensor \"\(name)\" takes \(byteCount) bytes by its shape, \(range[1] - range[0]) by its"
          + " data_offsets")
    }
    return SafetensorsTensor(
      name: name, type: type, shape: shape, offset: dataOffset + range[0], byteCount: byteCount,
      infoOffset: info.offset)
  }

  /// An array of integers that are not negative.
  private func integers(
    _ value: JSONValue?, _ name: String, _ key: String, _ info: JSONValue
  ) throws(FormatError) -> [Int] {
    guard let values = value?.array else {
      throw error(.malformed, info, "tensor \"\(name)\" has no \(key)")
    }
    var integers: [Int] = []
    for value in values {
      guard let integer = value.integer, integer >= 0 else {
        throw error(.malformed, value, "the \(key) of tensor \"\(name)\" are not whole numbers")
      }
      integers.append(integer)
    }
    return integers
  }
}
