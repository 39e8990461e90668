/// What JSON Schema's formats allow, as patterns.
enum TextFormats {
  static func pattern(of name: String) -> String? {
    switch name {
    case "date": date
    case "time": time
    case "date-time": "(\(date))[Tt](\(time))"
    case "duration": duration
    case "email": #"[A-Za-z0-9_+%-]+(\.[A-Za-z0-9_+%-]+)*@\#(host)"#
    case "hostname": host
    case "ipv4": ipv4
    case "ipv6": ipv6
    case "uuid": "\(hex){8}-\(hex){4}-\(hex){4}-\(hex){4}-\(hex){12}"
    case "uri", "iri": #"[A-Za-z][A-Za-z0-9+.-]*:\#(uriCharacter)+"#
    case "uri-reference", "iri-reference": #"\#(uriCharacter)*"#
    case "json-pointer": #"(/([^~/]|~[01])*)*"#
    default: nil
    }
  }

  private static let hex = "[0-9A-Fa-f]"
  private static let leap =
    "([0-9][0-9](0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
  private static let date =
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    + "|02-(0[1-9]|1[0-9]|2[0-8]))|\(leap)-02-29"
  private static let time =
    #"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"#
  private static let duration =
    "P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)(\(durationTime))?|\(durationTime))"
  private static let durationTime = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
  private static let label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
  private static let host = #"\#(label)(\.\#(label))*"#
  private static let octet = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
  private static let ipv4 = #"\#(octet)(\.\#(octet)){3}"#
  private static let group = "\(hex){1,4}"
  private static let ipv6 =
    "(\(group):){7}\(group)|(\(group):){1,7}:|(\(group):){1,6}:\(group)|(\(group):){1,5}(:\(group)){1,2}"
    + "|(\(group):){1,4}(:\(group)){1,3}|(\(group):){1,3}(:\(group)){1,4}|(\(group):){1,2}(:\(group)){1,5}"
    + "|\(group):(:\(group)){1,6}|:((:\(group)){1,7}|:)"
  private static let uriCharacter = #"([A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%\#(hex){2})"#
}
