import ArgumentParser
import ModelFormat

/// The arguments of a command that were given and are not its defaults, as they were spelled.
struct GivenArguments {
  private var names: [String] = []
  private var values: [String: [String]] = [:]
  private var flags: Set<String> = []
  private var repeating: Set<String> = []

  /// What a command says of one of its arguments.
  private struct Definition {
    var kind: String
    var names: [String]
    var valueName: String?
    var defaultValue: String?
    var isRepeating: Bool

    init?(_ json: JSONValue) {
      guard let kind = json["kind"]?.string else { return nil }
      self.kind = kind
      names = json["names"]?.array?.compactMap { $0["name"]?.string } ?? []
      valueName = json["valueName"]?.string
      defaultValue = json["defaultValue"]?.string
      isRepeating = json["isRepeating"]?.bool == true
    }
  }

  /// - Parameters:
  ///   - arguments: the process's, which the command has taken.
  ///   - type: the command.
  init(_ arguments: [String], of type: any ParsableArguments.Type) {
    let json = Array(type._dumpHelp().utf8).withUnsafeBytes {
      try? JSONParser.parse($0, path: "help")
    }
    let definitions = json?["command"]?["arguments"]?.array?.compactMap(Definition.init) ?? []
    var positionals = definitions.filter { $0.kind == "positional" }[...]
    var rest = arguments[...]
    if let name = (type as? any ParsableCommand.Type)?.configuration.commandName, rest.first == name
    {
      rest = rest.dropFirst()
    }
    var takesOptions = true
    while let argument = rest.popFirst() {
      guard takesOptions, argument.hasPrefix("-"), argument != "-" else {
        if let next = positionals.popFirst(), let name = next.valueName {
          add(argument, name, next)
        }
        continue
      }
      if argument == "--" {
        takesOptions = false
        continue
      }
      let spelled = argument.drop { $0 == "-" }.split(
        separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard let name = spelled.first.map(String.init),
        let definition = definitions.first(where: { $0.names.contains(name) }),
        let first = definition.names.first
      else { continue }
      if definition.kind == "flag" {
        names.append(first)
        flags.insert(first)
      } else if let value = spelled.count > 1 ? String(spelled[1]) : rest.popFirst() {
        add(value, first, definition)
      }
    }
  }

  private mutating func add(_ value: String, _ name: String, _ definition: Definition) {
    if definition.isRepeating { repeating.insert(name) }
    guard definition.isRepeating || value != definition.defaultValue else {
      values[name] = nil
      return
    }
    if !names.contains(name) { names.append(name) }
    // Of an option that does not repeat the last one counts.
    values[name] = (definition.isRepeating ? values[name] ?? [] : []) + [value]
  }

  /// Writes a member for each: `true` for flags, texts, or arrays of them for what may repeat.
  func write(to json: inout JSONWriter) {
    for name in Set(names).sorted() {
      if flags.contains(name) {
        json.flag(name, true)
      } else if repeating.contains(name) {
        json.array(name, of: values[name] ?? []) { $0.text(nil, $1) }
      } else if let value = values[name]?.last {
        json.text(name, value)
      }
    }
  }
}
