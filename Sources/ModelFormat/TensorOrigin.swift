/// What a file calls a tensor and where it says so, for errors about it.
struct TensorOrigin {
  var name: String
  var path: String?
  var offset: Int?
}

/// The names that a model's files have for tensors, which records hold under their GGUF names.
protocol TensorOrigins {
  func origin(of tensor: TensorRecord) -> TensorOrigin

  /// - Parameter name: a GGUF name.
  func origin(ofMissing name: String) -> TensorOrigin
}

/// Of files that use the GGUF names themselves.
struct StoredTensorNames: TensorOrigins {
  let path: String?
  /// Those that tensors lie in, where they are known.
  var files: [String] = []

  func origin(of tensor: TensorRecord) -> TensorOrigin {
    let file = files.indices.contains(tensor.fileIndex) ? files[tensor.fileIndex] : path
    return TensorOrigin(name: tensor.name, path: file, offset: tensor.offset)
  }

  func origin(ofMissing name: String) -> TensorOrigin { TensorOrigin(name: name, path: path) }
}
