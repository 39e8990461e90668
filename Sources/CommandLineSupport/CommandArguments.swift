public import ArgumentParser
import Glibc
import TensorBasics

/// The process's arguments as the system handed them over.
public enum CommandArguments {
  /// All arguments after the program's name; bytes that are not UTF-8 survive (`SystemPath.swift`).
  public static var all: [String] {
    (0..<Int(CommandLine.argc)).dropFirst().compactMap { index in
      CommandLine.unsafeArgv[index].map { String(systemPath: $0) }
    }
  }

  private static let promptHint =
    "an argument that begins with a dash and is not an option goes after --, as in -- '-1 + 1 ='; "
    + "a prompt can also come from --prompt-file, or with --prompt-file - from standard input"
  /// Options that people look for in the wrong command.
  private static let otherCommands = [
    ("--plan", "flashinfer-inspect"), ("--tensors", "flashinfer-inspect"),
    ("--metadata", "flashinfer-inspect"), ("--render", "flashinfer-inspect"),
    ("--tokenize", "flashinfer-inspect"), ("--quantize", "flashinfer-convert"),
    ("--max-tokens", "flashinfer-run"), ("--temperature", "flashinfer-run"),
  ]
  private static let valueHint =
    "a value that begins with a dash goes after an equals sign, as in --system='- be brief'"

  /// A refusal of the argument parser, which begins like all other errors.
  static func plain(_ message: String) -> String {
    let prefix = "Error: "
    guard message.hasPrefix(prefix) else { return message }
    let rest = message.dropFirst(prefix.count)
    // An option's or an argument's name stays as it is.
    let startsWithWord = rest.dropFirst().first?.isLowercase ?? false
    return "error: "
      + (startsWithWord ? rest.prefix(1).lowercased() + rest.dropFirst() : String(rest))
  }

  /// What may help where `arguments` were refused with `message`; nil if nothing is known.
  static func hint(for message: String, _ arguments: [String]) -> String? {
    for (option, command) in Self.otherCommands where message.contains("Unknown option '\(option)'")
    {
      return "\(option) is an option of \(command)"
    }
    if message.contains("Unknown option '") || message.contains("Invalid option: -") {
      return promptHint
    }
    let dashes = zip(arguments, arguments.dropFirst()).contains {
      $0.hasPrefix("--") && $1.hasPrefix("-")
    }
    return dashes && message.contains("Missing value for '") ? valueHint : nil
  }

  /// Refuses what would be read as a bundle of short options with `-h` among them, and so print the help and
  /// end well: `-h`, the only short option there is, stands alone.
  static func refusal(of arguments: [String]) -> String? {
    let bundle = arguments.prefix { $0 != "--" }.first {
      $0.hasPrefix("-") && !$0.hasPrefix("--") && $0 != "-h" && $0.contains("h")
    }
    return bundle.map { "error: unknown option '\($0)'\nhint: \(promptHint); \(valueHint)." }
  }
}

extension String {
  fileprivate var trimmingTrailingNewlines: String {
    String(self[..<(lastIndex { !$0.isNewline }.map { index(after: $0) } ?? startIndex)])
  }
}

extension ParsableCommand {
  /// Runs the command on the process's arguments, byte for byte; what is wrong with them becomes usage,
  /// an exit code and, if there is one, a hint.
  public static func runAsProgram() {
    // A file longer than the user's limit is an error like a full drive, not an end.
    signal(SIGXFSZ, SIG_IGN)
    let arguments = CommandArguments.all
    if let refusal = CommandArguments.refusal(of: arguments) {
      Terminal.note(refusal)
      Terminal.exit(.usage)
    }
    if let refusal = subcommandRefusal(of: arguments) {
      Terminal.note(refusal)
      Terminal.exit(.usage)
    }
    do {
      var command = try parseAsRoot(arguments)
      try command.run()
    } catch {
      let message = fullMessage(for: error)
      switch exitCode(for: error) {
      case .validationFailure where !message.isEmpty: break
      case .success:
        // Help and versions, for which a full disk is an error as for any other output.
        Terminal.print(message.isEmpty ? "" : message + "\n")
        _exit(EXIT_SUCCESS)
      // Exit codes of commands that have said what there is to say.
      default: exit(withError: error)
      }
      let text = CommandArguments.plain(message).trimmingTrailingNewlines
      let hint = CommandArguments.hint(for: message, arguments).map { "\nhint: \($0)." } ?? ""
      Terminal.note(text + hint)
      Terminal.exit(.usage)
    }
  }

  /// What is wrong where a command that only has subcommands is given none, or help is asked for on one
  /// that there is not.
  private static func subcommandRefusal(of arguments: [String]) -> String? {
    let names = configuration.subcommands.compactMap { $0.configuration.commandName }
    guard !names.isEmpty else { return nil }
    if arguments.isEmpty { return "error: name what to do\n\n\(helpMessage())" }
    guard arguments[0] == "help", arguments.count > 1, !names.contains(arguments[1]) else {
      return nil
    }
    return "error: there is no subcommand '\(arguments[1])'; there are: "
      + names.joined(separator: ", ")
  }
}
