import ModelFormat

/// What can be asked, as the OpenAPI file says it and as requests are read; tests compare the two.
package enum Interface {
  /// The file.
  package static var document: [UInt8] { PackageResources.openapi_json }

  /// Each object that is read, by the name of its schema, with the members that it may have.
  package static var objects: [(schema: String, members: [String])] {
    let names =
      [
        CompletionRequest.names, ChatRequest.names, TemplateRequest.names, ChatRequest.messageNames,
        ChatRequest.countedNames, TextRoutes.tokenizeNames, TextRoutes.detokenizeNames,
        AnswerOptions.streamNames, EmbeddingsRequest.names,
      ] + ResponsesRequest.objectNames + ResponsesReader.objectNames + TemplateDemands.names
      + ToolOffer.objectNames + AnswerConstraint.names
      + ChatRequest.objectNames + MessagesReader.names
    return names.map { ($0.schema, $0.taken + $0.neutral.keys) }
  }
}
