/// The places that symbolic links lead through.
package enum LinkTrail {
  /// As many links as the kernel follows.
  private static let limit = 40

  /// `path`, and where a link leads, what it names, and so on to what is no link. Nothing need be there.
  package static func places(from path: String) -> [String] {
    var places = [path]
    var next = ""
    while places.count <= limit, SystemCalls.readLink(places[places.count - 1], &next) == 0 {
      let link = places[places.count - 1]
      let folder = link.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(link[...$0]) } ?? ""
      places.append(next.hasPrefix("/") ? next : folder + next)
    }
    return places
  }
}
